import numpy as np

from tests.helpers.evaluations import image_evaluation
from utils.metrics.evaluated_set import NO_LABEL_AREA, EvaluatedSet


def boxes(*rows):
    return np.array(rows, np.float32).reshape(-1, 4)


def test_images_are_joined_in_order_with_ids_from_zero():
    labels = boxes((0, 0, 20, 30), (50, 0, 80, 40))
    images = [
        image_evaluation(labels[1:] + 1, [0.9], [2], labels, [0, 2], image_id=7),
        image_evaluation(image_id=8),
        image_evaluation(boxes((0, 0, 5, 5), (9, 9, 10, 10)), [0.8, 0.3], [0, 1], labels[:1], [0], image_id=3),
    ]
    evaluated = EvaluatedSet.concatenate(images)
    assert evaluated.num_images == 3
    assert evaluated.image_ids.tolist() == [0, 2, 2] and evaluated.label_image_ids.tolist() == [0, 0, 2]
    assert evaluated.confidences.tolist() == [0.9, 0.8, 0.3]
    assert evaluated.classes.tolist() == [2, 0, 1] and evaluated.label_classes.tolist() == [0, 2, 0]
    assert evaluated.areas.tolist() == [1200, 25, 1] and evaluated.label_areas.tolist() == [600, 1200, 600]
    assert evaluated.label_boxes.tolist() == [*labels.tolist(), [0, 0, 20, 30]]
    assert evaluated.claimed_areas.tolist() == [1200, 600, NO_LABEL_AREA]
    assert evaluated.tp[:, 0].tolist() == [True, False, False] and evaluated.tp.shape == (3, 10)


def test_no_images():
    empty = EvaluatedSet.concatenate([])
    assert (
        empty.num_images == 0 and empty.tp.shape == (0, 10) and empty.boxes.shape == empty.label_boxes.shape == (0, 4)
    )
    assert empty.tp.dtype == bool and empty.classes.dtype == empty.label_classes.dtype == np.int64
