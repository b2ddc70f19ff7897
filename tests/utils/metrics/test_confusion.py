import numpy as np

from tests.helpers.evaluations import image_evaluation
from tests.helpers.random_runs import random_images
from utils.metrics.confusion import ConfusionMatrix
from utils.metrics.evaluated_set import EvaluatedSet


def boxes(*rows):
    return np.array(rows, np.float32).reshape(-1, 4)


def add(matrix, *detections_and_labels):
    matrix.add(image_evaluation(*detections_and_labels))


def test_hand_made_image():
    matrix = ConfusionMatrix(3)
    add(
        matrix,
        boxes((0, 0, 20, 10), (50, 0, 70, 10), (0, 50, 20, 60), (0, 0, 19, 10), (100, 100, 120, 110)),
        [0.9, 0.8, 0.7, 0.6, 0.2],
        [0, 2, 1, 0, 2],
        boxes((0, 0, 20, 10), (50, 0, 70, 11), (100, 100, 120, 110)),
        [0, 1, 2],
    )
    expected = np.zeros((4, 4), int)
    expected[0, 0] = 1  # a true positive
    expected[2, 1] = 1  # a 1 detected as 2
    expected[1, 3] = 1  # a 1 detected on background
    expected[0, 3] = 1  # a duplicate
    expected[3, 2] = 1  # a 2 whose detection is below the confidence threshold
    assert matrix.counts.tolist() == expected.tolist()


def test_the_largest_iou_pairs_first_regardless_of_confidence():
    matrix = ConfusionMatrix(2)
    add(matrix, boxes((0, 0, 20, 7), (0, 0, 20, 9)), [0.9, 0.3], [0, 1], boxes((0, 0, 20, 10)), [1])
    assert matrix.counts.tolist() == [[0, 0, 1], [0, 1, 0], [0, 0, 0]]


def test_each_label_is_paired_once_and_second_best_pairs_are_kept():
    matrix = ConfusionMatrix(2)
    labels = boxes((0, 0, 20, 10), (4, 0, 24, 10))
    add(matrix, boxes((1, 0, 21, 10), (1.5, 0, 21.5, 10)), [0.9, 0.8], [0, 1], labels, [0, 1])
    assert matrix.counts.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]


def test_confidence_and_iou_are_above_their_thresholds():
    matrix = ConfusionMatrix(1, conf_threshold=0.5, iou_threshold=0.5)
    label = boxes((0, 0, 20, 10))
    add(matrix, boxes((0, 0, 10, 10)), [0.9], [0], label, [0])
    add(matrix, label, [0.5], [0], label, [0])
    assert matrix.counts.tolist() == [[0, 1], [2, 0]]
    add(matrix, boxes((0, 0, 10.1, 10)), [0.51], [0], label, [0])
    assert matrix.counts.tolist() == [[1, 1], [2, 0]]


def test_images_without_labels_or_detections():
    matrix = ConfusionMatrix(2)
    add(matrix)
    assert not matrix.counts.any()
    matrix.add(image_evaluation(label_boxes=boxes((0, 0, 9, 5), (9, 9, 20, 20)), label_classes=[1, 1]))
    add(matrix, boxes((0, 0, 9, 5)), [0.9], [0])
    assert matrix.counts.tolist() == [[0, 0, 1], [0, 0, 0], [0, 2, 0]]


def test_normalized_columns_sum_to_one_or_are_empty():
    matrix = ConfusionMatrix(2)
    matrix.counts[:] = [[3, 0, 1], [1, 0, 1], [0, 0, 0]]
    assert matrix.normalized().tolist() == [[0.75, 0, 0.5], [0.25, 0, 0.5], [0, 0, 0]]


def test_every_label_and_every_confident_detection_is_counted():
    rng = np.random.default_rng(0)
    matrix = ConfusionMatrix(3)
    confident = labels = 0
    for _ in range(30):
        corner = rng.uniform(0, 80, (8, 2))
        every = np.concatenate((corner, corner + rng.uniform(5, 40, (8, 2))), 1)
        confidences = rng.random(8)
        detected = every + rng.normal(0, 2, (8, 4))
        add(matrix, detected, confidences, rng.integers(0, 3, 8), every[:5], rng.integers(0, 3, 5))
        confident, labels = confident + (confidences > 0.25).sum(), labels + 5
    assert matrix.counts[:3].sum() == confident and matrix.counts[:, :3].sum() == labels
    assert np.trace(matrix.counts[:3, :3]) > 0 and matrix.counts[3, 3] == 0


def test_a_set_has_the_counts_of_its_images():
    images = random_images(3, noise=25)
    images.insert(2, image_evaluation(image_id=2))  # without labels and detections
    one_by_one, at_once = ConfusionMatrix(3), ConfusionMatrix(3)
    for image in images:
        one_by_one.add(image)
    at_once.add_set(EvaluatedSet.concatenate(images))
    np.testing.assert_array_equal(at_once.counts, one_by_one.counts)
    assert (at_once.counts[:3, :3] > 0).sum() >= 3 and at_once.counts[3].any() and at_once.counts[:, 3].any()
