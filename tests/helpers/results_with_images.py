"""Comparisons of runs whose images exist as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.helpers.comparison import trained_model
from utils.comparison.result import ComparisonResult
from utils.comparison.statistics import PRIMARY_METRIC, ModelScores
from utils.datasets.image_writing import write_image
from utils.datasets.index import DatasetIndex
from utils.metrics.evaluated_set import EvaluatedSet, ImageEvaluation
from utils.metrics.paired_difference import Scores

HEIGHT, WIDTH = 60, 100


def result_with_images(
    folder: Path, runs: Sequence[Sequence[EvaluatedSet]], *, labels: Sequence[str], names: Sequence[str]
) -> ComparisonResult:
    """A result on grey images, with runs whose mAP50-95 are 0, 0.1, 0.2..."""
    images = runs[0][0].num_images
    pixels = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    paths = [str(write_image(folder / f"photo {i:02d} <&>.png", pixels)) for i in range(images)]
    scores = [
        ModelScores(
            label=label,
            fixed_weights=False,
            metrics={PRIMARY_METRIC: Scores(points=np.arange(len(of)) / 10, resampled=np.zeros((len(of), 2)))},
            seeds=tuple(range(len(of))),
        )
        for label, of in zip(labels, runs, strict=True)
    ]
    index = DatasetIndex(
        paths=np.array(paths),
        sizes_hw=np.full((images, 2), (HEIGHT, WIDTH), np.int32),
        labels=np.zeros((0, 5), np.float32),
        starts=np.zeros(images + 1, np.int64),
    )
    models = [trained_model(label) for label in labels]
    return ComparisonResult(header="<h>", val=index, names=names, models=models, scores=scores, pairs=[], costs=[])


def run_of(images: Sequence[ImageEvaluation]) -> list[EvaluatedSet]:
    """One run."""
    return [EvaluatedSet.concatenate(images)]
