"""COCO's figures are those of pycocotools, the reference implementation, on the same JSON."""

import contextlib
import gzip
import io
import json

import numpy as np
import pytest

from utils.metrics.coco import ABSENT, FIGURES, coco_figures
from utils.validation.coco_json import coco_arrays

pycocotools = pytest.importorskip("pycocotools", reason="an oracle of requirements-dev.txt")
from pycocotools.coco import COCO  # noqa: E402
from pycocotools.cocoeval import COCOeval  # noqa: E402


def oracle(truth, predictions):
    with contextlib.redirect_stdout(io.StringIO()):
        dataset = COCO()
        dataset.dataset = truth
        dataset.createIndex()
        judge = COCOeval(dataset, dataset.loadRes(predictions), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return dict(zip(FIGURES, judge.stats.tolist(), strict=True))


def random_set(
    seed, *, images=12, classes=3, objects=6, found=12, scores=0.001, side=160.0, crowds=0.0, text=False, size=(8, 110)
):
    """A set of images, some empty; boxes near labels, with wrong classes, duplicates and scores that tie."""
    rng = np.random.default_rng(seed)
    ids = [f"{name:03d}.x" if text else int(name) for name in rng.permutation(900)[:images]]
    truth = {
        "images": [{"id": name, "file_name": f"{name}.jpg", "height": 150, "width": 200} for name in ids],
        "categories": [{"id": number, "name": f"c{number}"} for number in range(classes)],
        "annotations": [],
    }
    predictions = []
    for name in ids:
        count = int(rng.integers(0, objects + 1)) if rng.random() > 0.15 else 0
        corner = rng.uniform(0, side, (count, 2))
        labels = np.concatenate((corner, rng.uniform(*size, (count, 2))), 1).round(3)
        kinds = rng.integers(0, classes, count)
        for box, kind in zip(labels, kinds, strict=True):
            truth["annotations"].append(
                {
                    "id": len(truth["annotations"]) + 1,
                    "image_id": name,
                    "category_id": int(kind),
                    "bbox": box.tolist(),
                    "area": float(box[2] * box[3] * rng.choice([1.0, 0.7])),
                    "iscrowd": int(rng.random() < crowds),
                }
            )
        for _ in range(int(rng.integers(0, found + 1))):
            if count and rng.random() < 0.8:
                chosen = int(rng.integers(count))
                box = labels[chosen] + rng.normal(0, 4, 4) * rng.choice([0, 0.2, 1])
                kind = int(kinds[chosen]) if rng.random() < 0.8 else int(rng.integers(classes))
            else:
                box, kind = rng.uniform(5, 80, 4), int(rng.integers(classes))
            box[2:] = np.maximum(box[2:], 1)
            score = round(round(rng.random() / scores) * scores, 5)
            predictions.append({"image_id": name, "category_id": kind, "bbox": box.round(3).tolist(), "score": score})
    return truth, predictions


CASES = {
    "plain": {},
    "crowded": {"objects": 40, "found": 120, "side": 60.0, "size": (10, 60)},
    "many classes": {"classes": 40, "images": 30, "objects": 10, "found": 30},
    "ties": {"scores": 0.25, "found": 40},
    "more than a hundred of a class": {"classes": 1, "objects": 30, "found": 400, "images": 5},
    "heaps": {"crowds": 0.3, "objects": 12, "found": 30},
    "names instead of numbers": {"text": True},
    "small only": {"size": (4, 20)},
    "one image": {"images": 1, "objects": 20, "found": 30},
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("case", CASES)
def test_random_sets_get_the_figures_of_pycocotools(case, seed):
    truth, predictions = random_set(seed + 5, **CASES[case])
    assert predictions and truth["annotations"]
    figures, expected = coco_figures(*coco_arrays(truth, predictions)), oracle(truth, predictions)
    assert expected["AP50"] > 0.02
    for name in FIGURES:
        assert figures[name] == pytest.approx(expected[name], abs=1e-6), name


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bccd", "coco8"])
def test_real_sets_get_the_figures_of_pycocotools(name, reference):
    """What `val.py --save-json` wrote of trained models, on 87 images of blood cells and the eight of COCO8."""
    content = json.loads(gzip.decompress((reference / f"coco_{name}.json.gz").read_bytes()))
    truth, predictions = content["truth"], content["predictions"]
    assert len(truth["images"]) == {"bccd": 87, "coco8": 8}[name]
    figures, expected = coco_figures(*coco_arrays(truth, predictions)), oracle(truth, predictions)
    assert expected["AP"] > 0.1 and expected["AP_medium"] > 0.01 and expected["AR_large"] > 0.2
    for figure in FIGURES:
        assert figures[figure] == pytest.approx(expected[figure], abs=1e-6), figure


def test_identical_boxes_and_overlaps_on_the_threshold():
    truth, _ = random_set(1, images=2)
    name = truth["images"][0]["id"]
    kinds = (0, 0, 1)
    truth["annotations"] = [
        {"id": i + 1, "image_id": name, "category_id": kind, "bbox": [10.0, 20, 40, 60], "area": 2400.0, "iscrowd": 0}
        for i, kind in enumerate(kinds)
    ]
    widths = (20, 40, 40, 30, 22, 24, 40)
    predictions = [
        {"image_id": name, "category_id": i % 2, "bbox": [10.0, 20, width, 60], "score": 0.5}
        for i, width in enumerate(widths)
    ]
    expected = oracle(truth, predictions)
    assert coco_figures(*coco_arrays(truth, predictions)) == pytest.approx(expected, abs=1e-9)
    assert 0 < expected["AP"] < 1


def test_perfect_detections_score_one_and_absent_sizes_minus_one():
    truth, _ = random_set(3, size=(40, 90))
    for label in truth["annotations"]:
        label["area"] = label["bbox"][2] * label["bbox"][3]
    perfect = [
        {key: label[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.9}
        for label in truth["annotations"]
    ]
    figures = coco_figures(*coco_arrays(truth, perfect))
    assert figures["AP"] == figures["AP75"] == figures["AR_100"] == 1 and figures["AP_small"] == ABSENT
    assert 0 < figures["AR_1"] < figures["AR_10"] == 1


def test_nothing_found_is_zero_and_nothing_to_find_is_minus_one():
    truth, predictions = random_set(2)
    nothing = coco_figures(*coco_arrays(truth, []))
    assert nothing["AP"] == nothing["AR_100"] == 0
    empty = coco_figures(*coco_arrays({**truth, "annotations": []}, predictions))
    assert set(empty.values()) == {ABSENT} and set(empty) == set(FIGURES)
