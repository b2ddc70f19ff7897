"""The rows of results.csv, of this version and the last, and the line printed for each."""

import math
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from utils.errors import RunError
from utils.plots.curves import plot_results
from utils.training.results_csv import (
    COLUMNS,
    columns_of,
    epoch_line,
    format_duration,
    format_seconds,
    header_line,
    progress_line,
    results_row,
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


def test_a_printed_line_aligns_with_its_header_and_fits_a_terminal() -> None:
    device = torch.device("cpu")
    row = results_row(4, losses=LOSSES, evaluation=EVALUATION, learning_rates=[1, 2, 3], offsets=(0, 0))
    names, line = header_line().split(), epoch_line(row, 30, remaining=3725, device=device)
    cells = dict(zip(names, line.split(), strict=True))
    assert cells["Epoch"] == "4/29" and cells["box_loss"] == "0.5" and cells["cls_loss"] == "0.125"
    assert (cells["P"], cells["mAP50"], cells["mAP50-95"], cells["Left"]) == ("0.100", "0.300", "0.400", "1:02:05")
    assert cells["Memory"].endswith("G") and len(line) == len(header_line().strip("\n")) < 80
    assert line.startswith(progress_line(4, 30, LOSSES, device=device))
    unvalidated = results_row(4, losses=LOSSES, evaluation=None, learning_rates=[1, 2, 3], offsets=(0, 0))
    assert epoch_line(unvalidated, 30, remaining=0, device=device).split()[5:] == ["-", "-", "-", "-", "0:00"]


def test_wide_values_do_not_touch() -> None:
    losses = dict.fromkeys(LOSSES, 1.2345e-05)
    row = results_row(9999, losses=losses, evaluation=EVALUATION, learning_rates=[1, 2, 3], offsets=(0, 0))
    cells = epoch_line(row, 10000, remaining=400_000, device=torch.device("cpu")).split()
    assert len(cells) == 10 and cells[0] == "9999/9999" and cells[-1] == "111:06:40"


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (600, "10:00"), (3661, "1:01:01")])
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(2.14, "2.1 s"), (90, "1.5 min"), (7200, "2.00 hours"), (59.97, "1.0 min"), (0, "0.0 s")]
)
def test_run_times(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_results_are_written_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "results.csv"
    write_results([], file)
    before, name_of_old = file.read_bytes(), file.stat().st_ino

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", refuse)
        with pytest.raises(RunError):
            write_results([dict.fromkeys(COLUMNS, 1.0)], file)
    assert file.read_bytes() == before and [*tmp_path.iterdir()] == [file]
    write_results([dict.fromkeys(COLUMNS, 1.0)], file)
    assert file.stat().st_ino != name_of_old and file.read_bytes() != before
