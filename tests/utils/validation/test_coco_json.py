import json

import numpy as np
import pytest

from tests.helpers.coco_oracle import pycocotools_figures
from tests.helpers.evaluations import image_evaluation
from utils.metrics.average_precision import precision_recall
from utils.metrics.coco import FIGURES, coco_figures
from utils.metrics.evaluated_set import EvaluatedSet
from utils.metrics.tide import error_scores
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
    assert truth["annotations"][1]["segmentation"] == [[5, 5, 25, 5, 25, 15, 5, 15]]
    assert [(image["id"], image["height"], image["width"]) for image in truth["images"]] == [(5, 60, 80), (3, 60, 80)]
    labels, detections = coco_arrays(truth, predictions)
    assert labels.image_ids.tolist() == [1, 1] and detections.image_ids.tolist() == [1], (
        "in the order of their identifiers"
    )


@pytest.fixture
def files(tmp_path):
    """Labels and predictions of a random set, and the paths of their JSON files."""
    rng = np.random.default_rng(4)
    evaluations = []
    for image_id in range(6):
        corner = rng.integers((0, 0), (60, 40), (7, 2))
        labels = np.concatenate((corner, corner + rng.integers((9, 5), (20, 20), corner.shape)), 1)
        boxes = labels[rng.integers(0, 7, 15)] + rng.integers(-3, 4, (15, 4))
        evaluations.append(evaluation(image_id, boxes, labels))
        evaluations[-1].confidences[:] = np.sort(rng.permutation(1000)[:15] / 1000 + image_id / 10_000)[::-1]
    index = Index(*(f"x/{image_id}.jpg" for image_id in range(6)))
    paths = tmp_path / "ground_truth.json", tmp_path / "a_predictions.json"
    for path, content in zip(paths, (coco_truth, coco_predictions), strict=True):
        path.write_text(json.dumps(content(evaluations, index, ["a", "b"])))
    return EvaluatedSet.concatenate(evaluations), *paths


def test_pycocotools_loads_the_files_and_gives_our_metrics(files):
    _, truth, predictions = files
    coco = pytest.importorskip("pycocotools.coco")
    dataset = coco.COCO(str(truth))
    figures = coco_figures(*coco_arrays(*(json.loads(path.read_text()) for path in (truth, predictions))))
    assert figures == pytest.approx(pycocotools_figures(truth, predictions), abs=1e-6) and figures["AP50"] > 0.1
    for annotation in dataset.loadAnns(dataset.getAnnIds()):
        x, y, width, height = map(int, annotation["bbox"])
        mask = np.zeros((60, 80), np.uint8)
        mask[y : y + height, x : x + width] = 1
        assert (dataset.annToMask(annotation) == mask).all(), "the polygon is the box"


def test_tidecv_loads_the_files_and_gives_our_errors(files):
    evaluated, truth, predictions = files
    datasets, tidecv = pytest.importorskip("tidecv.datasets"), pytest.importorskip("tidecv")
    tide = tidecv.TIDE()
    run = tide.evaluate(datasets.COCO(str(truth)), datasets.COCOResult(str(predictions)), mode=tidecv.TIDE.BOX)
    main, special = tide.get_main_errors(), tide.get_special_errors()
    expected = [run.ap, *(value for errors in (main, special) for value in errors[run.preds.name].values())]
    actual = [100 * float(values[0]) for values in error_scores(evaluated).values()]
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-6)


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
