"""What the image of a comparison is made from: the curves of all runs, the differences, and the costs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from utils.comparison.predictions import ALL
from utils.comparison.report import ComparisonResult
from utils.comparison.statistics import TITLES
from utils.comparison.trained_runs import run_folder
from utils.log import LOGGER
from utils.plots.comparison import Curve, Interval, plot_comparison

CURVES = {
    "mAP50": "metrics/mAP_0.5",
    "mAP50-95": "metrics/mAP_0.5:0.95",
    "training box loss": "train/box_loss",
}
COSTS = {  # key -> title, and what the number is divided by
    "gflops": ("GFLOPs", 1.0),
    "inference_ms": ("inference, ms an image", 1.0),
    "parameters": ("parameters, millions", 1e6),
}


def draw_comparison(findings: ComparisonResult, checkpoints: Sequence[Sequence[Path]], path: Path) -> None:
    """Draw compare.png.

    Args:
        findings: of the comparison.
        checkpoints: of each model, one for each seed.
        path: where to write.
    """
    names = [model.label for model in findings.models]
    plot_comparison(
        names,
        curves=curves_of(checkpoints),
        intervals=intervals_of(findings),
        accuracy=[float(model.metrics[ALL, "", "map50_95"].points.mean()) for model in findings.models],
        costs={title: [float(cost[key]) / unit for cost in findings.costs] for key, (title, unit) in COSTS.items()},
        path=path,
    )


def curves_of(checkpoints: Sequence[Sequence[Path]]) -> dict[str, list[Curve]]:
    """Return per title the curves of all runs, read from the results.csv beside their weights where there is one."""
    found: dict[str, list[Curve]] = {title: [] for title in CURVES}
    for model, runs in enumerate(checkpoints):
        for checkpoint in runs:
            folder = run_folder(checkpoint)
            if folder is not None:
                for title, values in _read_curves(folder / "results.csv").items():
                    found[title].append(Curve(model=model, values=values))
    return {title: curves for title, curves in found.items() if curves}


def _read_curves(path: Path) -> dict[str, np.ndarray]:
    """Return per title the (epochs,) values of a results.csv, nan where there is none; nothing if it is not readable.

    The file may be another program's: YOLOv5 sets its columns flush with spaces.
    """
    if not path.is_file():
        return {}
    try:
        columns = {str(name).strip(): values for name, values in pd.read_csv(path).items()}
        read = {title: np.asarray(columns[name], float) for title, name in CURVES.items() if name in columns}
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        LOGGER.warning(f"{path} cannot be read ({reason[0]}); its curves are left out")
        return {}
    return {title: np.where(np.isfinite(values), values, np.nan) for title, values in read.items()}


def intervals_of(findings: ComparisonResult) -> dict[str, list[Interval]]:
    """Return per title every further model's difference from the baseline."""
    return {
        title: [
            Interval(
                model=number + 1,
                value=pair.differences[ALL, "", figure].value,
                low=pair.differences[ALL, "", figure].low,
                high=pair.differences[ALL, "", figure].high,
            )
            for number, pair in enumerate(findings.pairs)
        ]
        for figure, title in TITLES.items()
    }
