"""The training curves of a comparison's runs, read from their results.csv, which may be YOLOv5's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from utils.comparison.trained_runs import TrainedRuns
from utils.log import LOGGER
from utils.plots.curve_comparison import Curve

COLUMNS = {  # of results.csv: title of the panel, and the split
    "metrics/mAP_0.5": ("mAP50", "validation"),
    "metrics/mAP_0.5:0.95": ("mAP50-95", "validation"),
    "train/box_loss": ("box loss", "training"),
    "val/box_loss": ("box loss", "validation"),
    "train/obj_loss": ("objectness loss", "training"),
    "val/obj_loss": ("objectness loss", "validation"),
    "train/cls_loss": ("class loss", "training"),
    "val/cls_loss": ("class loss", "validation"),
}


def read_curves(models: Sequence[TrainedRuns]) -> dict[str, list[Curve]]:
    """Return per title the curves of all runs that have a results.csv; titles without any value are left out."""
    curves: dict[str, list[Curve]] = {title: [] for title, _ in COLUMNS.values()}
    for index, model in enumerate(models):
        for number, run in enumerate(model.runs):
            columns = _read_columns(run.folder / "results.csv") if run.folder is not None else {}
            for name, values in columns.items():
                title, split = COLUMNS[name]
                curves[title].append(Curve(model=index, run=number, split=split, values=values))
    return {title: runs for title, runs in curves.items() if runs}


def _read_columns(path: Path) -> dict[str, np.ndarray]:
    """Return (epochs,) values by column, nan where there is none; empty if the file cannot be read."""
    if not path.is_file():
        return {}
    try:
        columns = {str(name).strip(): values for name, values in pd.read_csv(path).items()}  # YOLOv5 pads its names
        read = {name: np.asarray(columns[name], float) for name in COLUMNS if name in columns}
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        LOGGER.warning(f"{path} cannot be read ({reason[0]}); its curves are skipped")
        return {}
    finite = {name: np.where(np.isfinite(values), values, np.nan) for name, values in read.items()}
    return {name: values for name, values in finite.items() if np.isfinite(values).any()}
