"""The results of each epoch: the rows of results.csv, with YOLOv5's column names, and the line printed for each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from utils.files import write_csv
from utils.losses.detection import COMPONENTS
from utils.runtime import peak_memory_gb
from utils.validation.evaluate import Evaluation

METRIC_COLUMNS = ("metrics/precision", "metrics/recall", "metrics/mAP_0.5", "metrics/mAP_0.5:0.95")
LEARNING_RATE_COLUMNS = ("x/lr0", "x/lr1", "x/lr2")
OFFSET_COLUMNS = ("akconv/offset_abs_mean", "akconv/oob_fraction")
COLUMNS = (
    "epoch",
    *(f"train/{name}_loss" for name in COMPONENTS),
    *METRIC_COLUMNS,
    *(f"val/{name}_loss" for name in COMPONENTS),
    *LEARNING_RATE_COLUMNS,
    *OFFSET_COLUMNS,
)
RENAMED_COLUMNS = {"akconv/mean_offset": "akconv/offset_abs_mean", "akconv/outside": "akconv/oob_fraction"}
WIDTHS = (8, 8, 9, 9, 9, 6, 6, 7, 9, 8)  # of the printed line; together less than 80
Row = dict[str, float]


def results_row(
    epoch: int,
    *,
    losses: Mapping[str, float],
    evaluation: Evaluation | None,
    learning_rates: Sequence[float],
    offsets: Sequence[float],
) -> Row:
    """Return the row of an epoch, from 0; metrics and losses of an epoch without validation are nan.

    `losses` are means over the training; `learning_rates` are those of the first three parameter groups, and `offsets`
    the values of `OFFSET_COLUMNS`.
    """
    metrics: Sequence[float] = [math.nan] * len(METRIC_COLUMNS)
    val_losses: Mapping[str, float] = dict.fromkeys(COMPONENTS, math.nan)
    if evaluation is not None:
        m, val_losses = evaluation.metrics, evaluation.losses
        metrics = (m.mean_precision, m.mean_recall, m.map50, m.map50_95)
    train, val = ([values[name] for name in COMPONENTS] for values in (losses, val_losses))
    return dict(zip(COLUMNS, (epoch, *train, *metrics, *val, *learning_rates, *offsets), strict=True))


def with_current_names(row: Row) -> Row:
    """Return a row with the columns of version 0.1.0 renamed."""
    return {RENAMED_COLUMNS.get(name, name): value for name, value in row.items()}


def write_results(rows: Sequence[Row], path: Path | str) -> None:
    """Write all of `results.csv` atomically: the rows live in the checkpoint, so a crash cannot tear or repeat them."""
    values = ([row.get(name, math.nan) for name in COLUMNS] for row in rows)
    table = ([int(epoch), *("" if math.isnan(v) else f"{v:.6g}" for v in rest)] for epoch, *rest in values)
    write_csv(path, [COLUMNS, *table])


def columns_of(rows: Sequence[Row]) -> dict[str, list[float]]:
    """Return the rows as columns, nan where a row lacks a value."""
    return {name: [row.get(name, math.nan) for row in rows] for name in COLUMNS}


def header_line() -> str:
    """Return the header of `epoch_line`, less than 80 columns wide."""
    names = ("Epoch", "Memory", *(f"{name}_loss" for name in COMPONENTS), "P", "R", "mAP50", "mAP50-95", "Left")
    return "\n" + _aligned(names)


def progress_line(epoch: int, epochs: int, means: Mapping[str, float], *, device: torch.device) -> str:
    """Return the beginning of `epoch_line`, for an epoch that is not finished: memory in use and mean losses."""
    memory = torch.cuda.memory_reserved(device) / 1e9 if device.type == "cuda" else peak_memory_gb(device)
    losses = (f"{means[name]:.4g}" for name in COMPONENTS)
    return _aligned((f"{epoch}/{epochs - 1}", "-" if memory is None else f"{memory:.3g}G", *losses))


def epoch_line(row: Row, epochs: int, *, remaining: float, device: torch.device) -> str:
    """Return a finished epoch's line from its row of results.csv, with the seconds left for all epochs."""
    losses = {name: row[f"train/{name}_loss"] for name in COMPONENTS}
    metrics = ("-" if math.isnan(row[name]) else f"{row[name]:.3f}" for name in METRIC_COLUMNS)
    line = progress_line(int(row["epoch"]), epochs, losses, device=device)
    return line + _aligned((*metrics, format_duration(remaining)), WIDTHS[2 + len(COMPONENTS) :])


def _aligned(cells: Sequence[str], widths: Sequence[int] = WIDTHS) -> str:
    """Align cells to the right, each after at least one space, but the first."""
    return "".join(f" {cell:>{width - 1}}" for cell, width in zip(cells, widths, strict=False))


def format_seconds(seconds: float) -> str:
    """Return a measured time in the unit that suits it: 2.1 s, 12.3 min or 5.21 hours."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3597 else f"{seconds / 3600:.2f} hours"


def format_duration(seconds: float) -> str:
    """Return a duration as h:mm:ss or m:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
