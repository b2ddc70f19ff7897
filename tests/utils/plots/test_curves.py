"""Curves of training: which panels are drawn, and that they show the numbers."""

import math
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from utils.plots import curves
from utils.training.results_csv import COLUMNS


def drawn(columns: dict[str, list[float]], monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """The values of every panel's first line, by its title."""
    figures: list[Figure] = []
    monkeypatch.setattr(curves, "save_figure", lambda figure, path: figures.append(figure))
    curves.plot_results(columns, Path("results.png"))
    return {axis.get_title(): np.asarray(axis.lines[0].get_ydata()) for axis in figures[0].axes}


@pytest.mark.parametrize("akconv", [True, False])
def test_offsets_have_panels_where_the_model_has_them(akconv: bool, monkeypatch: pytest.MonkeyPatch):
    columns = {name: [float(i), i + 0.5, i + 0.25] for i, name in enumerate(COLUMNS)}
    offsets = [name for name in COLUMNS if name.startswith("akconv/")]
    assert len(offsets) == 2
    for name in offsets:
        columns[name] = [math.nan, 0.25, 0.5] if akconv else [math.nan] * 3
    panels = drawn(columns, monkeypatch)
    always = {name for name in COLUMNS if name.startswith(("train/", "val/", "metrics/"))}
    assert set(panels) == always | set(offsets if akconv else ())
    for name, values in panels.items():
        np.testing.assert_array_equal(values, columns[name])


def test_results_of_a_run_without_the_columns_of_offsets_are_drawn(monkeypatch: pytest.MonkeyPatch):
    columns = {name: [0.5] for name in COLUMNS if not name.startswith("akconv/")}
    assert len(drawn(columns, monkeypatch)) == 10
