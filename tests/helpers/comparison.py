"""Trained runs, models and data sets for tests of comparisons, without any training or files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.config import load_model_config
from utils.comparison.trained_runs import TrainedRun, TrainedRuns
from utils.datasets.index import DatasetIndex

CONFIG = load_model_config("yolov5n.yaml")


def trained_run(
    path: Path, *, args: Mapping[str, Any] | None = None, hyperparameters: Mapping[str, float] | None = None
) -> TrainedRun:
    return TrainedRun(
        path=path,
        config=CONFIG,
        names=("cat", "dog"),
        image_size=96,
        max_stride=32,
        args=args or {},
        hyperparameters=hyperparameters or {},
        folder=path.parent.parent if path.parent.name == "weights" else None,
    )


def trained_model(
    label: str,
    *paths: Path,
    args: Mapping[str, Any] | None = None,
    hyperparameters: Mapping[str, float] | None = None,
    is_finished_weights: bool = True,
) -> TrainedRuns:
    runs = [trained_run(path, args=args, hyperparameters=hyperparameters) for path in paths or [Path(f"{label}.pt")]]
    return TrainedRuns(
        label=label,
        runs=tuple(runs),
        config=CONFIG,
        hyperparameters=hyperparameters or {},
        is_finished_weights=is_finished_weights,
    )


def index_of(paths: Sequence[object], labels: Sequence[int], counts: Sequence[int]) -> DatasetIndex:
    """A split with objects of the given class ids, as many for each image as in `counts`."""
    return DatasetIndex(
        paths=np.array([str(path) for path in paths]),
        sizes_hw=np.full((len(paths), 2), 64, np.int32),
        labels=np.array([(label, 0.5, 0.5, 0.2, 0.2) for label in labels], np.float32).reshape(-1, 5),
        starts=np.cumsum([0, *counts]),
    )
