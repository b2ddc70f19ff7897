import numpy as np
import pytest

from tests.helpers.data_oracles import REFERENCE, slow_correct
from utils.metrics.matching import IOU_THRESHOLDS, match_detections


def near_boxes(rng, labels, count):
    """Boxes around labels, some of them far off."""
    chosen = labels[rng.integers(0, len(labels), count)]
    return chosen + rng.normal(0, 3, (count, 4)) * rng.choice([0.1, 1, 3], (count, 1))


def test_reference_is_matched_identically():
    with np.load(REFERENCE / "metrics.npz") as stored:
        for number in range(40):
            detections, labels = stored[f"image{number}_detections"], stored[f"image{number}_labels"]
            correct = match_detections(detections[:, :4], detections[:, 5], labels[:, 1:], labels[:, 0])
            assert np.array_equal(correct, stored[f"image{number}_correct"]), number


def test_random_images_are_matched_as_by_the_slow_loop():
    rng = np.random.default_rng(0)
    right = 0
    for _ in range(60):
        corner = rng.uniform(0, 150, (int(rng.integers(1, 9)), 2))
        labels = np.concatenate((corner, corner + rng.uniform(8, 60, corner.shape)), 1)
        boxes = near_boxes(rng, labels, int(rng.integers(1, 25)))
        classes, label_classes = rng.integers(0, 2, len(boxes)), rng.integers(0, 2, len(labels))
        correct = match_detections(boxes, classes, labels, label_classes)
        assert np.array_equal(correct, slow_correct(boxes, classes, labels, label_classes, IOU_THRESHOLDS))
        assert correct.sum(0).max() <= len(labels)
        right += correct.sum()
    assert right > 300


def test_label_goes_to_its_best_detection_and_duplicates_are_wrong():
    label = np.array([[0.0, 0, 20, 10]])
    boxes = np.array([[0.0, 0, 20, 9], [0, 0, 20, 10], [0, 0, 20, 10]])
    correct = match_detections(boxes, np.zeros(3), label, np.zeros(1))
    assert correct[0, :8].all() and not correct[0, 9]  # IoU 0.9 up to the threshold 0.85
    assert correct[:, 0].tolist() == [True, False, False]
    assert correct[:, 9].tolist() == [False, True, False], "at 0.95 the first has no claim, so the second is right"


def test_overlap_equal_to_the_threshold_is_enough():
    box, label = np.array([[0, 0, 10, 10]], np.float32), np.array([[0, 0, 20, 10]], np.float32)
    assert match_detections(box, np.zeros(1), label, np.zeros(1)).tolist() == [[True] + [False] * 9]


def test_classes_do_not_mix():
    box = np.array([[0.0, 0, 20, 10]])
    assert not match_detections(box, np.array([1]), box, np.array([0])).any()
    assert match_detections(box, np.array([1]), box, np.array([1])).all()


def test_detection_that_loses_its_label_does_not_take_the_next_one():
    labels = np.array([[0.0, 0, 20, 10], [4, 0, 24, 10]])
    boxes = np.array([[0.0, 0, 20, 10], [1, 0, 21, 10]])
    correct = match_detections(boxes, np.zeros(2), labels, np.zeros(2))
    assert correct[:, 0].tolist() == [True, False]


@pytest.mark.parametrize(("detections", "labels"), [(0, 3), (4, 0), (0, 0)])
def test_nothing_to_match_is_nothing_right(detections, labels):
    boxes, label_boxes = np.ones((detections, 4)), np.ones((labels, 4))
    correct = match_detections(boxes, np.zeros(detections), label_boxes, np.zeros(labels))
    assert correct.shape == (detections, 10) and correct.dtype == bool and not correct.any()


def test_overlaps_run_from_half_to_95_percent():
    assert IOU_THRESHOLDS == pytest.approx([0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95])
