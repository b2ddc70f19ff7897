"""Models side by side: curves of their runs, differences with confidence intervals, and accuracy over cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from utils.plots.figure import add_grid, add_legend, save_figure, series_colour
from utils.plots.fonts import display_name

ROW_HEIGHT = 0.28
MAX_NAME_LETTERS = 44
MAX_TICKS = 6  # labels of four decimals that fit next to each other


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One run over epochs: the index of its model, and a value per epoch, nan where it is missing."""

    model: int
    values: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A model's difference from the first one, and its confidence interval, nan if unknown."""

    model: int
    value: float
    low: float
    high: float


def plot_comparison(
    names: Sequence[str],
    *,
    curves: Mapping[str, Sequence[Curve]],
    intervals: Mapping[str, Sequence[Interval]],
    accuracy: Sequence[float],
    costs: Mapping[str, Sequence[float]],
    path: Path | str,
) -> None:
    """Draw a row of panels each for curves, for intervals and for accuracy over cost.

    Args:
        names: of the models, the baseline first; a name that no font supports is shown as its position, from 1.
        curves: by title, all runs: drawn thin, with a thick mean over each model's runs; may be empty.
        intervals: by title, one per further model; may be empty.
        accuracy: mAP50-95 of each model.
        costs: by title, one value per model.
        path: output file.
    """
    names = [display_name(name, i, max_letters=MAX_NAME_LETTERS) for i, name in enumerate(names, 1)]
    intervals = {title: rows for title, rows in intervals.items() if rows}
    heights = [3.4] * bool(curves) + [1.0 + ROW_HEIGHT * len(names)] * bool(intervals) + [3.0]
    legend_rows = math.ceil(len(names) / 4)
    figure = Figure(figsize=(14, sum(heights) + 0.4 + 0.25 * legend_rows), layout="constrained")
    parts = iter(np.atleast_1d(np.asarray(figure.subfigures(len(heights), 1, height_ratios=heights))))
    if curves:
        axes = np.atleast_1d(next(parts).subplots(1, len(curves)))
        for axis, (title, runs) in zip(axes, curves.items(), strict=True):
            _draw_curves(axis, runs, title)
    if intervals:
        axes = np.atleast_1d(next(parts).subplots(1, len(intervals), sharey=True))
        for axis, (title, rows) in zip(axes, intervals.items(), strict=True):
            _draw_intervals(axis, rows, names, title)
    axes = np.atleast_1d(next(parts).subplots(1, len(costs)))
    for axis, (title, values) in zip(axes, costs.items(), strict=True):
        _draw_cost(axis, values, accuracy, title)
    entries = [(Line2D([], [], color=series_colour(i), linewidth=3), name) for i, name in enumerate(names)]
    add_legend(figure, entries, loc="outside lower center", ncols=min(len(names), 4), fontsize=9)
    save_figure(figure, path)


def _draw_curves(axis: Axes, runs: Sequence[Curve], title: str) -> None:
    """Draw every run thin, and each model's mean thick, over the epochs that all its runs have."""
    for model in sorted({run.model for run in runs}):
        of_model = [run.values for run in runs if run.model == model]
        epochs = min(map(len, of_model))
        mean = np.mean([values[:epochs] for values in of_model], axis=0)
        if len(of_model) > 1:
            for values in of_model:
                axis.plot(range(len(values)), values, color=series_colour(model), linewidth=0.7, alpha=0.45)
        marker = "." if epochs < 4 else None
        axis.plot(range(epochs), mean, color=series_colour(model), linewidth=2, marker=marker)
    axis.set(title=title, xlabel="epoch")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    max_epochs = max(len(run.values) for run in runs)
    axis.set_xlim(-0.04 * max_epochs, max_epochs - 1 + 0.04 * max_epochs)
    axis.set_ylim(bottom=0)
    add_grid(axis)


def _draw_intervals(axis: Axes, rows: Sequence[Interval], names: Sequence[str], title: str) -> None:
    """Draw each difference as a dot on its interval, and a line at zero."""
    limit = 1e-3
    for position, row in enumerate(rows):
        colour = series_colour(row.model)
        if math.isfinite(row.low) and math.isfinite(row.high):
            axis.plot([row.low, row.high], [position, position], color=colour, linewidth=3, alpha=0.6)
        axis.plot([row.value], [position], "o", color=colour, markersize=7)
        limit = max([limit, *(abs(value) for value in (row.value, row.low, row.high) if math.isfinite(value))])
    axis.axvline(0, color="#444444", linewidth=1)
    axis.set_xlim(-1.1 * limit, 1.1 * limit)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=MAX_TICKS))
    axis.set_yticks(range(len(rows)), [names[row.model] for row in rows], fontsize=9)
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.set_title(f"{title}, difference from {names[0]}, 95 % interval", fontsize=10)
    add_grid(axis)


def _draw_cost(axis: Axes, costs: Sequence[float], accuracy: Sequence[float], title: str) -> None:
    """Draw accuracy over cost, a dot per model."""
    for model, (cost, value) in enumerate(zip(costs, accuracy, strict=True)):
        axis.plot([cost], [value], "o", color=series_colour(model), markersize=9, clip_on=False)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=MAX_TICKS))
    axis.set_xlim(0, max(costs) * 1.15 or 1)
    axis.set_ylim(0, max(accuracy) * 1.2 or 1)
    axis.set(xlabel=title, ylabel="mAP50-95")
    add_grid(axis)
