"""The folder of a finished comparison of two models, with predictions made up for the tiny data set."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tests.helpers.evaluations import image_evaluation
from utils.comparison.predictions import CACHE_VERSION
from utils.datasets.index import DatasetIndex, build_index
from utils.datasets.splits import open_data
from utils.files import file_hash
from utils.metrics.evaluated_set import EvaluatedSet

SMALL, MEDIUM = (10.0, 10.0, 30.0, 25.0), (60.0, 40.0, 120.0, 110.0)


def evaluated(images: int, found: dict[int, list[tuple[tuple[float, ...], int]]]) -> EvaluatedSet:
    """Predictions on images that each have a small object of class 0 and a medium one of class 1."""
    labels = np.array((SMALL, MEDIUM))
    of_images = []
    for image_id in range(images):
        rows = found.get(image_id, [(SMALL, 0), (MEDIUM, 1)])
        boxes = np.array([box for box, _ in rows]).reshape(-1, 4)
        classes = [class_id for _, class_id in rows]
        confidences = np.linspace(0.9, 0.5, len(rows))
        of_images.append(image_evaluation(boxes, confidences, classes, labels, [0, 1], image_id=image_id))
    return EvaluatedSet.concatenate(of_images)


def finished_comparison(data: Path, run: Path) -> Path:
    """Write a comparison; the second model misses the small object of image 2, and has a wrong class on image 4."""
    split = build_index(open_data(str(data)), "val")
    wrong = {2: [(MEDIUM, 1)], 4: [(SMALL, 0), (MEDIUM, 0)]}
    rows = []
    for label, found in (("first", {}), ("second", wrong)):
        weights = run / label / "weights" / "best.pt"
        weights.parent.mkdir(parents=True)
        weights.write_text(label)
        store(run, label, file_hash(weights), split, evaluated(len(split), found))
        metrics = [{"group": "all", "name": "", "metric": "map50_95", "runs": [0.5]}]
        rows.append({"model": label, "checkpoints": [str(weights)], "seed_numbers": [0], "metrics": metrics})
    options = {"data": str(data), "task": "val", "single_cls": False}
    (run / "results.json").write_text(json.dumps({"options": options, "results": rows}))
    (run / "report.html").write_text("<!doctype html><title>report</title>")
    return run


def store(run: Path, label: str, weights: str, split: DatasetIndex, content: EvaluatedSet) -> None:
    (run / "predictions").mkdir(exist_ok=True)
    key = f"{CACHE_VERSION} {weights} {split.fingerprint()} 0 64"
    np.savez_compressed(run / "predictions" / f"any name {label}.npz", key=np.array(key), **vars(content))
