"""COCO's metrics equal those of pycocotools, the reference implementation, on the same JSON."""

import gzip
import json

import numpy as np
import pytest

from tests.helpers.coco_oracle import pycocotools_figures
from utils.metrics.coco import ABSENT, FIGURES, coco_figures
from utils.validation.coco_json import coco_arrays


def random_set(
    seed,
    *,
    images=12,
    classes=3,
    objects=6,
    detections=12,
    step=0.001,
    area=160.0,
    crowds=0.0,
    text=False,
    size=(8, 110),
):
    """A set of images, some empty; boxes near labels, with wrong classes, duplicates and equal scores."""
    rng = np.random.default_rng(seed)
    ids = [f"{name:03d}.x" if text else int(name) for name in rng.permutation(900)[:images]]
    truth = {
        "images": [{"id": name, "file_name": f"{name}.jpg", "height": 150, "width": 200} for name in ids],
        "categories": [{"id": class_id, "name": f"c{class_id}"} for class_id in range(classes)],
        "annotations": [],
    }
    predictions = []
    for image_id in ids:
        count = int(rng.integers(0, objects + 1)) if rng.random() > 0.15 else 0
        corner = rng.uniform(0, area, (count, 2))
        labels = np.concatenate((corner, rng.uniform(*size, (count, 2))), 1).round(3)
        class_ids = rng.integers(0, classes, count)
        for box, class_id in zip(labels, class_ids, strict=True):
            truth["annotations"].append(
                {
                    "id": len(truth["annotations"]) + 1,
                    "image_id": image_id,
                    "category_id": int(class_id),
                    "bbox": box.tolist(),
                    "area": float(box[2] * box[3] * rng.choice([1.0, 0.7])),
                    "iscrowd": int(rng.random() < crowds),
                }
            )
        for _ in range(int(rng.integers(0, detections + 1))):
            if count and rng.random() < 0.8:
                chosen = int(rng.integers(count))
                box = labels[chosen] + rng.normal(0, 4, 4) * rng.choice([0, 0.2, 1])
                class_id = int(class_ids[chosen]) if rng.random() < 0.8 else int(rng.integers(classes))
            else:
                box, class_id = rng.uniform(5, 80, 4), int(rng.integers(classes))
            box[2:] = np.maximum(box[2:], 1)
            score = round(round(rng.random() / step) * step, 5)
            predictions.append(
                {"image_id": image_id, "category_id": class_id, "bbox": box.round(3).tolist(), "score": score}
            )
    return truth, predictions


CASES = {
    "plain": {},
    "crowded": {"objects": 40, "detections": 120, "area": 60.0, "size": (10, 60)},
    "many classes": {"classes": 40, "images": 30, "objects": 10, "detections": 30},
    "equal scores": {"step": 0.25, "detections": 40},
    "more than 100 of a class": {"classes": 1, "objects": 30, "detections": 400, "images": 5},
    "crowds": {"crowds": 0.3, "objects": 12, "detections": 30},
    "text ids": {"text": True},
    "small only": {"size": (4, 20)},
    "one image": {"images": 1, "objects": 20, "detections": 30},
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("case", CASES)
def test_random_sets_have_the_metrics_of_pycocotools(case, seed):
    truth, predictions = random_set(seed + 5, **CASES[case])
    assert predictions and truth["annotations"]
    figures, expected = coco_figures(*coco_arrays(truth, predictions)), pycocotools_figures(truth, predictions)
    assert expected["AP50"] > 0.02
    for name in FIGURES:
        assert figures[name] == pytest.approx(expected[name], abs=1e-6), name


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bccd", "coco8"])
def test_real_sets_have_the_metrics_of_pycocotools(name, reference):
    """Output of `val.py --save-json` with trained models, on 87 images of blood cells and the eight of COCO8."""
    content = json.loads(gzip.decompress((reference / f"coco_{name}.json.gz").read_bytes()))
    truth, predictions = content["truth"], content["predictions"]
    assert len(truth["images"]) == {"bccd": 87, "coco8": 8}[name]
    figures, expected = coco_figures(*coco_arrays(truth, predictions)), pycocotools_figures(truth, predictions)
    assert expected["AP"] > 0.1 and expected["AP_medium"] > 0.01 and expected["AR_large"] > 0.2
    for figure in FIGURES:
        assert figures[figure] == pytest.approx(expected[figure], abs=1e-6), figure


def test_identical_boxes_and_ious_equal_to_a_threshold():
    truth, _ = random_set(1, images=2)
    name = truth["images"][0]["id"]
    class_ids = (0, 0, 1)
    truth["annotations"] = [
        {
            "id": i + 1,
            "image_id": name,
            "category_id": class_id,
            "bbox": [10.0, 20, 40, 60],
            "area": 2400.0,
            "iscrowd": 0,
        }
        for i, class_id in enumerate(class_ids)
    ]
    widths = (20, 40, 40, 30, 22, 24, 40)
    predictions = [
        {"image_id": name, "category_id": i % 2, "bbox": [10.0, 20, width, 60], "score": 0.5}
        for i, width in enumerate(widths)
    ]
    expected = pycocotools_figures(truth, predictions)
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


def test_without_detections_zero_and_without_labels_minus_one():
    truth, predictions = random_set(2)
    nothing = coco_figures(*coco_arrays(truth, []))
    assert nothing["AP"] == nothing["AR_100"] == 0
    empty = coco_figures(*coco_arrays({**truth, "annotations": []}, predictions))
    assert set(empty.values()) == {ABSENT} and set(empty) == set(FIGURES)
