import numpy as np

from tests.helpers.evaluations import image_evaluation
from utils.metrics.evaluated_set import EvaluatedSet, box_areas
from utils.metrics.matching import IOU_THRESHOLDS
from utils.metrics.object_size import restrict_to_size, size_bins


def boxes(*sizes_wh):
    """Boxes of the given width and height, far apart."""
    return np.array([(200 * i, 50, 200 * i + w, 50 + h) for i, (w, h) in enumerate(sizes_wh)], float).reshape(-1, 4)


def set_of(*detections_and_labels):
    return EvaluatedSet.concatenate([image_evaluation(*detections_and_labels)])


def test_size_bins_have_the_limits_of_coco():
    areas = box_areas(boxes((31, 32), (32, 32), (96, 95), (96, 96), (400, 1)))
    assert size_bins(areas).tolist() == [0, 1, 1, 2, 0]
    assert size_bins(np.zeros(0)).shape == (0,)


def test_each_size_counts_its_own_objects_and_false_positives_only():
    labels = boxes((20, 30), (100, 120))
    false = boxes((25, 20), (100, 100)) + 2000
    evaluated = set_of(np.concatenate((labels, false)), [0.9] * 4, [0] * 4, labels, [0, 0])
    expected = {0: ([1, 0, 0, 0], [1, 0, 1, 0]), 1: ([0] * 4, [0] * 4), 2: ([0, 1, 0, 0], [0, 1, 0, 1])}
    for size_bin, (tp, counted) in expected.items():
        restricted, ignored = restrict_to_size(evaluated, size_bin)
        assert restricted.tp.shape == ignored.shape == (4, len(IOU_THRESHOLDS))
        assert restricted.tp[:, 0].tolist() == tp and (~ignored[:, 0]).tolist() == counted
        assert restricted.label_areas.tolist() == {0: [600.0], 1: [], 2: [12000.0]}[size_bin]
        assert restricted.label_boxes.tolist() == {0: [[0, 50, 20, 80]], 1: [], 2: [[200, 50, 300, 170]]}[size_bin]
        assert len(restricted.label_classes) == len(restricted.label_image_ids) == len(restricted.label_areas)


def test_a_detection_without_a_label_of_its_class_is_a_false_positive_of_its_own_size():
    labels = boxes((20, 30))
    evaluated = set_of(labels, [0.9], [1], labels, [0])
    assert [(~restrict_to_size(evaluated, size_bin)[1])[0, 0] for size_bin in range(3)] == [True, False, False]


def test_a_true_positive_at_small_thresholds_is_a_false_positive_of_its_own_size_at_large_ones():
    label = np.array([[0, 0, 33, 32.0]])  # medium
    detection = np.array([[0, 0, 33, 25.0]])  # small, IoU 0.78
    evaluated = set_of(detection, [0.9], [0], label, [0])
    small, medium = (~restrict_to_size(evaluated, size_bin)[1][0] for size_bin in (0, 1))
    assert medium.tolist() == [True] * 6 + [False] * 4 and small.tolist() == [False] * 6 + [True] * 4
