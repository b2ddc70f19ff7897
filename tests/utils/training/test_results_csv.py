"""The rows of results.csv, of this version and the last, and the lines printed for an epoch."""

import math
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from utils.plots.curves import plot_results
from utils.training.results_csv import (
    COLUMNS,
    columns_of,
    format_duration,
    header_line,
    progress_line,
    results_row,
    timing_line,
    with_current_names,
    write_results,
)

LOSSES = {"box": 0.5, "obj": 0.25, "cls": 0.125}
EVALUATION = SimpleNamespace(
    metrics=SimpleNamespace(mean_precision=0.1, mean_recall=0.2, map50=0.3, map50_95=0.4),
    losses={"cls": 3.0, "box": 1.0, "obj": 2.0},
)


def test_a_row_has_the_columns_users_know() -> None:
    row = results_row(7, losses=LOSSES, evaluation=EVALUATION, learning_rates=[0.1, 0.01, 0.02], offsets=(0.75, 0.625))
    assert row == {
        "epoch": 7,
        "train/box_loss": 0.5,
        "train/obj_loss": 0.25,
        "train/cls_loss": 0.125,
        "metrics/precision": 0.1,
        "metrics/recall": 0.2,
        "metrics/mAP_0.5": 0.3,
        "metrics/mAP_0.5:0.95": 0.4,
        "val/box_loss": 1.0,
        "val/obj_loss": 2.0,
        "val/cls_loss": 3.0,
        "x/lr0": 0.1,
        "x/lr1": 0.01,
        "x/lr2": 0.02,
        "akconv/offset_abs_mean": 0.75,
        "akconv/oob_fraction": 0.625,
    }
    assert tuple(row) == COLUMNS
    unvalidated = results_row(7, losses=LOSSES, evaluation=None, learning_rates=[1, 2, 3], offsets=(0, 0))
    empty = {name for name, value in unvalidated.items() if math.isnan(value)}
    assert empty == {name for name in COLUMNS if name.startswith(("metrics/", "val/"))}


def test_rows_of_both_versions_and_without_offsets_are_written_and_plotted(tmp_path: Path) -> None:
    oldest = {name: 0.5 for name in COLUMNS[:-2]} | {"epoch": 0}
    old = with_current_names({**oldest, "epoch": 1, "akconv/mean_offset": 0.25, "akconv/outside": 0.125})
    new = {**oldest, "epoch": 2, "akconv/offset_abs_mean": 0.75, "akconv/oob_fraction": 0.0}
    write_results([oldest, old, new], tmp_path / "results.csv")
    table = pd.read_csv(tmp_path / "results.csv")
    assert tuple(table.columns) == COLUMNS and table["epoch"].tolist() == [0, 1, 2]
    assert table["akconv/offset_abs_mean"].tolist() == pytest.approx([math.nan, 0.25, 0.75], nan_ok=True)
    columns = columns_of([oldest, old, new])
    assert columns["akconv/oob_fraction"] == pytest.approx([math.nan, 0.125, 0.0], nan_ok=True)
    plot_results(columns, tmp_path / "results.png")
    assert (tmp_path / "results.png").is_file()


def test_printed_lines_align_with_their_header() -> None:
    names = header_line().split()
    line = progress_line(4, 30, LOSSES, instances=12, size=640, device=torch.device("cpu"))
    cells = dict(zip(names, line.split(), strict=True))
    assert cells["Epoch"] == "4/29" and cells["box_loss"] == "0.5" and cells["cls_loss"] == "0.125"
    assert (cells["Instances"], cells["Size"]) == ("12", "640") and cells["Memory"].endswith("G")
    assert len(line) == len(header_line().strip("\n"))


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (600, "10:00"), (3661, "1:01:01")])
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_much_waiting_for_data_is_reported_with_the_flags_that_help() -> None:
    busy, waiting = (timing_line(seconds=2.5, waiting_fraction=part, remaining=60) for part in (0.2, 0.21))
    assert "2.5 s" in busy and "20%" in busy and "1:00" in busy and "--workers" not in busy
    assert "--workers" in waiting and "--cache" in waiting
