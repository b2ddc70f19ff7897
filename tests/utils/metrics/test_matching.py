import numpy as np
import pytest

from tests.helpers.data_oracles import REFERENCE, slow_tp
from utils.metrics.matching import IOU_THRESHOLDS, match_detections


def boxes_near(rng, labels, count):
    """Boxes around labels, a third of them far off."""
    chosen = labels[rng.integers(0, len(labels), count)]
    return chosen + rng.normal(0, 3, (count, 4)) * rng.choice([0.1, 1, 3], (count, 1))


def test_matches_equal_those_of_the_reference():
    with np.load(REFERENCE / "metrics.npz") as stored:
        for image in range(40):
            detections, labels = stored[f"image{image}_detections"], stored[f"image{image}_labels"]
            tp, _ = match_detections(detections[:, :4], detections[:, 5], labels[:, 1:], labels[:, 0])
            assert np.array_equal(tp, stored[f"image{image}_correct"]), image


def test_random_images_are_matched_as_by_a_plain_loop():
    rng = np.random.default_rng(0)
    total = 0
    for _ in range(60):
        corner = rng.uniform(0, 150, (int(rng.integers(1, 9)), 2))
        labels = np.concatenate((corner, corner + rng.uniform(8, 60, corner.shape)), 1)
        boxes = boxes_near(rng, labels, int(rng.integers(1, 25)))
        classes, label_classes = rng.integers(0, 2, len(boxes)), rng.integers(0, 2, len(labels))
        tp, _ = match_detections(boxes, classes, labels, label_classes)
        assert np.array_equal(tp, slow_tp(boxes, classes, labels, label_classes, IOU_THRESHOLDS))
        assert tp.sum(0).max() <= len(labels)
        total += tp.sum()
    assert total > 300


def test_a_label_is_matched_with_its_most_confident_detection_and_duplicates_are_false_positives():
    label = np.array([[0.0, 0, 20, 10]])
    boxes = np.array([[0.0, 0, 20, 9], [0, 0, 20, 10], [0, 0, 20, 10]])
    tp, _ = match_detections(boxes, np.zeros(3), label, np.zeros(1))
    assert tp[0, :8].all() and not tp[0, 9]  # IoU 0.9 up to the threshold 0.85
    assert tp[:, 0].tolist() == [True, False, False]
    assert tp[:, 9].tolist() == [False, True, False], "at 0.95 the first has no claim, so the second is a true positive"


def test_an_iou_equal_to_the_threshold_suffices():
    box, label = np.array([[0, 0, 10, 10]], np.float32), np.array([[0, 0, 20, 10]], np.float32)
    assert match_detections(box, np.zeros(1), label, np.zeros(1))[0].tolist() == [[True] + [False] * 9]


def test_a_detection_claims_the_label_of_its_class_with_the_largest_iou():
    labels = np.array([[0.0, 0, 20, 30], [200, 0, 300, 120], [205, 0, 300, 120]])
    boxes = np.concatenate((labels[:2], labels[2:] + 900))
    for classes, label_classes, claimed in (
        ([0, 1, 1], [0, 1, 1], [0, 1, -1]),
        ([0, 1, 1], [0, 0, 1], [0, 2, -1]),
        ([1, 0, 1], [0, 1, 1], [-1, -1, -1]),
    ):
        assert match_detections(boxes, np.array(classes), labels, np.array(label_classes))[1].tolist() == claimed


def test_classes_do_not_mix():
    box = np.array([[0.0, 0, 20, 10]])
    assert not match_detections(box, np.array([1]), box, np.array([0]))[0].any()
    assert match_detections(box, np.array([1]), box, np.array([1]))[0].all()


def test_a_detection_that_loses_its_label_does_not_match_the_next_one():
    labels = np.array([[0.0, 0, 20, 10], [4, 0, 24, 10]])
    boxes = np.array([[0.0, 0, 20, 10], [1, 0, 21, 10]])
    tp, _ = match_detections(boxes, np.zeros(2), labels, np.zeros(2))
    assert tp[:, 0].tolist() == [True, False]


@pytest.mark.parametrize(("detections", "labels"), [(0, 3), (4, 0), (0, 0)])
def test_without_detections_or_labels_nothing_matches(detections, labels):
    boxes, label_boxes = np.ones((detections, 4)), np.ones((labels, 4))
    tp, claimed = match_detections(boxes, np.zeros(detections), label_boxes, np.zeros(labels))
    assert tp.shape == (detections, 10) and tp.dtype == bool and not tp.any()
    assert claimed.tolist() == [-1] * detections


def test_iou_thresholds_are_those_of_coco():
    assert IOU_THRESHOLDS == pytest.approx([0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95])
