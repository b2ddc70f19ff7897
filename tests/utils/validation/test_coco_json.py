import numpy as np
import pytest

from tests.helpers.evaluations import image_evaluation
from utils.metrics.average_precision import precision_recall
from utils.metrics.coco import FIGURES, coco_figures
from utils.metrics.evaluated_set import EvaluatedSet
from utils.validation.coco_json import (
    COCO_CLASSES,
    category_ids,
    coco_arrays,
    coco_predictions,
    coco_table,
    coco_truth,
    image_ids,
)


class Index:
    """The paths of a scanned split."""

    def __init__(self, *paths):
        self.paths = np.array(paths)


def evaluation(image_id, boxes, labels):
    boxes, labels = np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.float32).reshape(-1, 4)
    return image_evaluation(
        boxes,
        np.linspace(0.9, 0.5, len(boxes)).astype(np.float32),
        np.arange(len(boxes)) % 2,
        labels,
        np.arange(len(labels)) % 2,
        image_id=image_id,
        original_hw=(60, 80),
    )


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["a/000139.jpg", "a/12.jpg"], [139, 12]),
        (["a/7.jpg", "a/x.jpg"], ["7", "x"]),
        (["a/07.jpg", "a/7.jpg"], ["07", "7"]),
        (["a/x.jpg", "a/x.png"], ["x.jpg", "x.png"]),
        (["c/a/x.jpg", "c/b/x.jpg", "c/b/y.jpg"], ["a/x.jpg", "b/x.jpg", "b/y.jpg"]),
        (["a/\u0663.jpg"], ["\u0663"]),
    ],
)
def test_image_ids_are_distinct_and_of_one_type(paths, expected):
    assert image_ids(paths) == expected


def test_cocos_classes_have_cocos_category_ids():
    ids = category_ids(COCO_CLASSES)
    known = {"person": 1, "stop sign": 13, "backpack": 27, "wine glass": 46, "dining table": 67, "toothbrush": 90}
    assert len(COCO_CLASSES) == len(set(ids)) == 80
    assert {name: dict(zip(COCO_CLASSES, ids, strict=True))[name] for name in known} == known
    assert category_ids(["cat", "dog"]) == [0, 1]


def test_boxes_are_xywh_in_pixels_of_the_file():
    index = Index("x/5.jpg", "x/3.jpg")
    evaluations = [evaluation(0, [[10, 20, 40, 30]], [[1, 2, 4, 8], [5, 5, 25, 15]]), evaluation(1, [], [])]
    truth, predictions = coco_truth(evaluations, index, ["a", "b"]), coco_predictions(evaluations, index, ["a", "b"])
    assert predictions == [{"image_id": 5, "category_id": 0, "bbox": [10, 20, 30, 10], "score": 0.9}]
    assert [label["bbox"] for label in truth["annotations"]] == [[1, 2, 3, 6], [5, 5, 20, 10]]
    assert [label["area"] for label in truth["annotations"]] == [18, 200]
    assert [(image["id"], image["height"], image["width"]) for image in truth["images"]] == [(5, 60, 80), (3, 60, 80)]
    labels, detections = coco_arrays(truth, predictions)
    assert labels.image_ids.tolist() == [1, 1] and detections.image_ids.tolist() == [1], (
        "in the order of their identifiers"
    )


def test_table_has_all_metrics_and_none_without_labels():
    box = [[10, 20, 60, 70]]
    evaluations = [evaluation(0, box, box)]
    index = Index("x/5.jpg")
    figures = coco_figures(
        *coco_arrays(coco_truth(evaluations, index, ["a"]), coco_predictions(evaluations, index, ["a"]))
    )
    text = coco_table(figures, precision_recall(EvaluatedSet.concatenate(evaluations)), max_detections=300)
    lines = text.splitlines()
    assert len(lines) == 1 + len(FIGURES) + 1 and "mAP50-95 0.9" in lines[1]
    assert [line.split()[2:5] for line in lines[4:7]] == [
        ["small", "100", "none"],
        ["medium", "100", "1.000"],
        ["large", "100", "none"],
    ]
