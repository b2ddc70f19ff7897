"""The rows of results: `results.csv` by the names users know, and its table and image."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from utils.files import atomic_write

COLUMNS = (
    "epoch",
    "train/box_loss",
    "train/obj_loss",
    "train/cls_loss",
    "metrics/precision",
    "metrics/recall",
    "metrics/mAP_0.5",
    "metrics/mAP_0.5:0.95",
    "val/box_loss",
    "val/obj_loss",
    "val/cls_loss",
    "x/lr0",
    "x/lr1",
    "x/lr2",
    "akconv/offset_abs_mean",
    "akconv/oob_fraction",
)
RENAMED_COLUMNS = {"akconv/mean_offset": "akconv/offset_abs_mean", "akconv/outside": "akconv/oob_fraction"}
Row = dict[str, float]


def with_current_names(row: Row) -> Row:
    """Return a row with the columns of version 0.1.0 renamed."""
    return {RENAMED_COLUMNS.get(name, name): value for name, value in row.items()}


def write_results(rows: Sequence[Row], path: Path | str) -> None:
    """Write `results.csv` whole, atomically: rows live in the checkpoint, so no kill can tear or double them."""
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    table["epoch"] = table["epoch"].astype(int)
    buffer = io.StringIO()
    table.to_csv(buffer, index=False, float_format="%.6g", lineterminator="\n")
    atomic_write(path, buffer.getvalue())


def columns_of(rows: Sequence[Row]) -> dict[str, list[float]]:
    """Return the rows as columns."""
    return {name: [row.get(name, math.nan) for row in rows] for name in COLUMNS}
