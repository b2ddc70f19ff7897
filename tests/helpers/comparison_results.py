"""Whole results of comparisons, without any training, for tests of figures and reports."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.helpers.comparison import trained_model
from tests.helpers.random_runs import COST, random_images
from utils.boxes import xyxy_to_cxcywh
from utils.comparison.error_analysis import error_metrics
from utils.comparison.predictions import resampled_metrics, support_by_class
from utils.comparison.result import ComparisonResult
from utils.comparison.statistics import collect_scores, compare_with_baseline
from utils.datasets.index import DatasetIndex
from utils.files import write_csv
from utils.metrics.bootstrap import draw_resamples
from utils.metrics.evaluated_set import EvaluatedSet

COLUMNS = (
    *("epoch", "train/box_loss", "train/obj_loss", "train/cls_loss", "metrics/mAP_0.5", "metrics/mAP_0.5:0.95"),
    *("val/box_loss", "val/obj_loss", "val/cls_loss"),
)
CLASSES = ("cat", "dog", "cow")


def synthetic_result(
    labels: Sequence[str],
    folder: Path,
    *,
    seeds: int = 3,
    images: int = 24,
    epochs: int = 40,
    classes: Sequence[str] = CLASSES,
) -> tuple[ComparisonResult, list[list[EvaluatedSet]]]:
    """Return a comparison of models, each better than the one before, whose runs have a results.csv in the folder."""
    weights = draw_resamples(images, 100, seed=0)
    models, scores, evaluated = [], [], []
    for index, label in enumerate(labels):
        paths = [folder / f"{index}-{seed}" / "weights/best.pt" for seed in range(seeds)]
        for seed, path in enumerate(paths):
            _write_results(path.parent.parent / "results.csv", epochs + 3 * seed, quality=0.5 + 0.05 * index, seed=seed)
        noise = 9.0 - 0.8 * index
        sets = [
            random_images(100 * index + seed, noise=noise, count=images, num_classes=len(classes))
            for seed in range(seeds)
        ]
        evaluated.append([EvaluatedSet.concatenate(of_run) for of_run in sets])
        models.append(trained_model(label, *paths))
        metrics = [resampled_metrics(run, weights, classes) | error_metrics(run, weights) for run in evaluated[-1]]
        scores.append(collect_scores(label, metrics, seeds=list(range(seeds)), fixed_weights=False))
    truth = random_images(0, count=images, num_classes=len(classes))
    height, width = truth[0].original_hw
    rows = [
        np.column_stack((one.label_classes, xyxy_to_cxcywh(one.label_boxes) / (width, height, width, height)))
        for one in truth
    ]
    val = DatasetIndex(
        paths=np.array([f"{i}.png" for i in range(images)]),
        sizes_hw=np.tile(np.array([height, width], np.int32), (images, 1)),
        labels=np.concatenate(rows).astype(np.float32),
        starts=np.cumsum([0, *map(len, rows)]),
    )
    costs = [
        {**COST, "gflops": 4.2 + 0.9 * (i % 4), "inference_ms": 30.0 + 2.5 * i, "parameters": 1_760_000 + 90_000 * i}
        for i in range(len(labels))
    ]
    result = ComparisonResult(
        header=f"blood, val: {images} images. Trained at 320 px for {epochs} epochs.",
        val=val,
        names=classes,
        models=models,
        scores=scores,
        pairs=compare_with_baseline(scores, images=images) if len(labels) > 1 else [],
        costs=costs,
        support=support_by_class(evaluated[0][0], classes),
    )
    return result, evaluated


def _write_results(path: Path, epochs: int, *, quality: float, seed: int) -> None:
    rng, progress = np.random.default_rng(seed), 1 - np.exp(-np.arange(epochs) / 12)
    accuracy = quality * progress + rng.normal(0, 0.01, epochs)
    losses = [scale * (1.2 - progress * quality) + rng.normal(0, 0.001, epochs) for scale in (0.08, 0.03, 0.02)]
    columns = [np.arange(epochs), *losses, accuracy, 0.6 * accuracy, *(1.15 * loss for loss in losses)]
    write_csv(path, [COLUMNS, *np.column_stack(columns).tolist()])
