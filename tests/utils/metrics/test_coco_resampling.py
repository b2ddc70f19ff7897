"""COCO's average precisions equal those of pycocotools on the exported JSON, on the set and on repeated images."""

import contextlib
import io

import numpy as np
import pytest

from tests.helpers.comparison import index_of
from tests.helpers.random_runs import NAMES, random_images
from utils.metrics.bootstrap import draw_resamples
from utils.metrics.coco import ABSENT, FIGURES, coco_figures
from utils.metrics.coco_resampling import as_exported, resample_coco
from utils.metrics.evaluated_set import EvaluatedSet
from utils.metrics.object_size import COCO_SCALE, TINY_SCALE, SizeScale
from utils.validation.coco_json import coco_arrays, coco_predictions, coco_truth

COUNT = 24
# Ids that sort as numbers otherwise than as text, and otherwise than the images.
PATHS = [f"images/{(7 * i) % COUNT + 1}.jpg" for i in range(COUNT)]
RANKS = np.argsort(np.argsort([(7 * i) % COUNT + 1 for i in range(COUNT)]))


def images(seed, *, step=None, factor=0.4):
    found = random_images(seed, count=COUNT, noise=6.0)
    for image in found:
        image.boxes, image.label_boxes = factor * image.boxes, factor * image.label_boxes
        if step is not None:  # many equal confidences, in the order of the boxes
            image.confidences = np.ceil(image.confidences / step) * step
    return found


def exported(evaluations, paths=PATHS):
    index = index_of(paths, [], [0] * len(paths))
    return coco_truth(evaluations, index, NAMES), coco_predictions(evaluations, index, NAMES)


def pycocotools_ap(truth, predictions, scale: SizeScale) -> dict[str, float]:
    coco, cocoeval = (pytest.importorskip(f"pycocotools.{name}") for name in ("coco", "cocoeval"))
    with contextlib.redirect_stdout(io.StringIO()):
        dataset = coco.COCO()
        dataset.dataset = truth
        dataset.createIndex()
        evaluation = cocoeval.COCOeval(dataset, dataset.loadRes(predictions), "bbox")
        evaluation.params.areaRng = [[0, 1e10], *map(list, scale.ranges.values())]
        evaluation.params.areaRngLbl = ["all", *scale.names]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][..., 2]  # (thresholds, recalls, classes, areas) of 100 detections
    parts = {"AP": precision[..., 0], "AP50": precision[:1, ..., 0], "AP75": precision[5:6, ..., 0]}
    parts |= {f"AP_{name}": precision[..., 1 + i] for i, name in enumerate(scale.names)}
    return {name: values[values > -1].mean() for name, values in parts.items() if (values > -1).any()}


def test_a_set_as_exported_has_the_numbers_of_the_files():
    found = images(3)
    truth, predictions = exported(found)
    read = as_exported(EvaluatedSet.concatenate(found))
    for boxes, rows in ((read.boxes, predictions), (read.label_boxes, truth["annotations"])):
        expected = np.array([row["bbox"] for row in rows])
        expected[:, 2:] += expected[:, :2]
        np.testing.assert_allclose(boxes, expected, rtol=0, atol=1e-9)
    assert read.confidences.tolist() == [row["score"] for row in predictions]


@pytest.mark.parametrize("scale", [COCO_SCALE, TINY_SCALE], ids=["coco", "tiny"])
@pytest.mark.parametrize("step", [None, 0.1, 0.3])
@pytest.mark.parametrize("seed", range(4))
def test_a_set_has_the_ap_of_pycocotools_on_its_export(seed, step, scale):
    found = images(seed, step=step)
    evaluated = EvaluatedSet.concatenate(found)
    own = resample_coco(evaluated, np.ones((1, COUNT), np.int32), image_ranks=RANKS, scale=scale)
    expected = pycocotools_ap(*exported(found), scale)
    assert {name: values[0] for name, values in own.items()} == pytest.approx(expected, abs=1e-6)
    assert (
        0.2 < expected["AP"] < 1
        and set(own) >= {"AP50", "AP75", "AP_small"}
        and ("AP_tiny" in own) == (scale is TINY_SCALE)
    )


def test_every_resample_has_the_ap_of_repeated_images():
    found = images(3, factor=0.7)
    weights = draw_resamples(COUNT, 6, seed=2)
    own = resample_coco(EvaluatedSet.concatenate(found), weights, image_ranks=np.arange(COUNT))
    for index, row in enumerate(weights):
        repeated = [found[i] for i in np.repeat(np.arange(COUNT), row)]
        repeated = [type(image)(**{**_fields(image), "image_id": i}) for i, image in enumerate(repeated)]
        figures = coco_figures(*coco_arrays(*exported(repeated, [f"{i}.jpg" for i in range(COUNT)])))
        for name in (name for name in FIGURES if name.startswith("AP")):
            assert np.nan_to_num(own[name][index], nan=ABSENT) == pytest.approx(figures[name], abs=1e-9), name


def _fields(image):
    names = ("image_id", "original_hw", "boxes", "confidences", "classes", "label_boxes", "label_classes")
    return {name: getattr(image, name) for name in names}


def test_more_than_a_hundred_detections_of_a_class_are_cut_as_by_coco():
    (image, *_) = images(1)
    many = type(image)(
        **{
            **_fields(image),
            "boxes": np.repeat(image.label_boxes[:1], 120, 0) + np.linspace(40, 0, 120)[:, None],
            "confidences": np.linspace(0.9, 0.1, 120),
            "classes": np.repeat(image.label_classes[:1], 120),
        }
    )
    truth, predictions = exported([many], ["1.jpg"])
    own = resample_coco(EvaluatedSet.concatenate([many]), np.ones((1, 1), np.int32), image_ranks=np.zeros(1, np.int64))
    expected = pycocotools_ap(truth, predictions, COCO_SCALE)
    assert {name: values[0] for name, values in own.items()} == pytest.approx(expected, abs=1e-6)


def test_without_labels_or_detections():
    nothing = EvaluatedSet.concatenate([])
    assert resample_coco(nothing, np.zeros((2, 0), np.int32), image_ranks=np.zeros(0, np.int64)) == {}
    found = images(0)
    for image in found:
        image.boxes, image.confidences, image.classes = np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64)
        image.tp, image.claimed_labels = np.zeros((0, 10), bool), np.zeros(0, np.int64)
    own = resample_coco(EvaluatedSet.concatenate(found), np.ones((1, COUNT), np.int32), image_ranks=RANKS)
    assert all(values[0] == 0 for values in own.values()) and own
