import numpy as np

from tests.helpers.evaluations import image_evaluation
from utils.metrics.confusion import ConfusionMatrix
from utils.metrics.detection_errors import BACKGROUND, detection_errors


def boxes(*rows):
    return np.array(rows, np.float32).reshape(-1, 4)


def errors_of(*detections_and_labels):
    return detection_errors(image_evaluation(*detections_and_labels))


def test_hand_made_image():
    labels = boxes((0, 0, 20, 10), (50, 0, 70, 10), (100, 0, 120, 10), (0, 90, 40, 99))
    detected = boxes((0, 0, 20, 10), (1, 0, 20, 10), (50, 0, 70, 11), (60, 60, 80, 70), (100, 0, 120, 9))
    negatives, positives = errors_of(detected, [0.9, 0.8, 0.7, 0.6, 0.2], [0, 0, 2, 1, 1], labels, [0, 1, 1, 2])
    assert [(e.class_id, e.confidence, e.box[0]) for e in negatives] == [(1, 0.2, 100), (2, 0, 0)]
    assert all(e.is_false_negative for e in negatives) and not any(e.is_false_negative for e in positives)
    assert [(e.class_id, e.confidence, e.true_class, e.is_duplicate) for e in positives] == [
        (0, 0.8, BACKGROUND, True),
        (2, 0.7, 1, False),
        (1, 0.6, BACKGROUND, False),
    ]


def test_a_label_whose_detection_is_paired_with_its_neighbour_is_marked():
    labels = boxes((0, 0, 40, 20), (5, 0, 45, 20), (90, 0, 99, 30))
    (neighbour, alone), positives = errors_of(labels[:1] + 1, [0.9], [0], labels, [0, 0, 0])
    assert not positives and [neighbour.box[0], neighbour.confidence, neighbour.matched_to_other] == [5, 0.9, True]
    assert [alone.box[0], alone.confidence, alone.matched_to_other] == [90, 0, False]
    (unconfident, *_), _ = errors_of(labels[:1] + 1, [0.25], [0], labels, [0, 0, 0])
    assert unconfident.confidence == 0.25 and not unconfident.matched_to_other


def test_without_detections_or_labels():
    box = boxes((0, 0, 20, 10))
    negatives, positives = detection_errors(image_evaluation(label_boxes=box, label_classes=[1]))
    assert len(negatives) == 1 and not positives
    negatives, positives = errors_of(box, [0.9], [1])
    assert not negatives and [error.true_class for error in positives] == [BACKGROUND]


def test_errors_are_the_counts_off_the_diagonal_of_the_confusion_matrix():
    rng = np.random.default_rng(0)
    negative_count = positive_count = 0
    matrix = ConfusionMatrix(3)
    for _ in range(40):
        corner = rng.uniform(0, 60, (7, 2))
        every = np.concatenate((corner, corner + rng.uniform(8, 40, (7, 2))), 1)
        detected, confidences = every + rng.normal(0, 3, (7, 4)), rng.random(7)
        image = image_evaluation(detected, confidences, rng.integers(0, 3, 7), every[:5], rng.integers(0, 3, 5))
        matrix.add(image)
        negatives, positives = detection_errors(image)
        negative_count, positive_count = negative_count + len(negatives), positive_count + len(positives)
    assert negative_count == matrix.counts[3].sum() > 20
    assert positive_count == matrix.counts[:3].sum() - np.trace(matrix.counts[:3, :3]) > 20
