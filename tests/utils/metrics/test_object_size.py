import numpy as np

from utils.metrics.matching import IOU_THRESHOLDS, match_detections
from utils.metrics.object_size import assign_size_bins, in_size_bin, size_of


def boxes(*sides):
    """Boxes of given width and height, far apart."""
    return np.array([(200 * i, 50, 200 * i + w, 50 + h) for i, (w, h) in enumerate(sides)], float).reshape(-1, 4)


def test_lines_are_where_coco_draws_them():
    assert size_of(boxes((31, 32), (32, 32), (96, 95), (96, 96), (400, 1))).tolist() == [0, 1, 1, 2, 0]
    assert size_of(np.zeros((0, 4))).shape == (0,)


def test_a_detection_claims_the_label_of_its_class_that_it_overlaps_most():
    labels, kinds = boxes((20, 30), (100, 120)), np.array([0, 1])
    found = np.concatenate((labels, labels[1:] + 900))
    assert assign_size_bins(found, np.array([0, 1, 1]), labels, kinds).tolist() == [0, 2, -1]
    assert assign_size_bins(found, np.array([1, 0, 1]), labels, kinds).tolist() == [-1, -1, -1]
    assert assign_size_bins(found, np.zeros(3), labels[:0], kinds[:0]).tolist() == [-1, -1, -1]
    assert assign_size_bins(found[:0], np.zeros(0), labels, kinds).shape == (0,)


def test_each_size_counts_its_own_objects_and_false_alarms_alone():
    labels, kinds = boxes((20, 30), (100, 120)), np.array([0, 0])
    false = boxes((25, 20), (100, 100)) + 2000
    found, classes = np.concatenate((labels, false)), np.zeros(4)
    correct = match_detections(found, classes, labels, kinds)
    claimed = assign_size_bins(found, classes, labels, kinds)
    expected = {0: ([1, 0, 0, 0], [1, 0, 1, 0]), 1: ([0] * 4, [0] * 4), 2: ([0, 1, 0, 0], [0, 1, 0, 1])}
    for number, (right, counts) in expected.items():
        ours = in_size_bin(number, correct=correct, own_sizes=size_of(found), claimed=claimed)
        for result, wanted in zip(ours, (right, counts), strict=True):
            assert result.shape == (4, len(IOU_THRESHOLDS)) and result[:, 0].astype(int).tolist() == wanted


def test_a_detection_that_is_right_at_small_overlaps_only_is_false_by_its_own_size_at_large_ones():
    label = np.array([[0, 0, 33, 32.0]])  # medium
    found = np.array([[0, 0, 33, 25.0]])  # small, overlap 0.78
    correct = match_detections(found, np.zeros(1), label, np.zeros(1))
    claimed = assign_size_bins(found, np.zeros(1), label, np.zeros(1))
    small, medium = (in_size_bin(n, correct=correct, own_sizes=size_of(found), claimed=claimed)[1][0] for n in (0, 1))
    assert medium.tolist() == [True] * 6 + [False] * 4 and small.tolist() == [False] * 6 + [True] * 4
