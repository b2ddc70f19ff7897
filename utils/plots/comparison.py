"""Runs side by side: their curves, their differences with intervals, and accuracy against cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from utils.plots.figure import BLUE, GREEN, GREY, ORANGE, add_legend, save_figure
from utils.plots.fonts import families, printable

COLOURS = (BLUE, ORANGE, GREEN, "#8a4fb0", "#b03a5b", "#4d7f86", "#a08a2c", GREY)
GRID = "#e4e6ea"
ROW_HEIGHT = 0.28
LONGEST_MODEL = 44  # letters of a name
MOST_TICKS = 6  # that fit side by side with four decimals each


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One run over epochs: the number of its model, and a value for each epoch, nan where there was none."""

    model: int
    values: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A model's difference from the first, and the ends of its interval, nan if unknown."""

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
    """Draw models side by side.

    Args:
        names: of the models, the baseline first; their places, from 1, stand for those that no font here shows.
        curves: per title those of all runs: thin lines, and a thick one for the mean over a model's runs.
        intervals: per title one for each further model; may be empty.
        accuracy: mAP50-95 of each model.
        costs: per title one number for each model.
        path: where to write.
    """
    names = [printable(name, place, longest=LONGEST_MODEL) for place, name in enumerate(names, 1)]
    shown = {title: rows for title, rows in intervals.items() if rows}
    heights = [3.4] * bool(curves) + [1.0 + ROW_HEIGHT * len(names)] * bool(shown) + [3.0]
    legend_rows = math.ceil(len(names) / 4)
    figure = Figure(figsize=(14, sum(heights) + 0.4 + 0.25 * legend_rows), layout="constrained")
    parts = iter(np.atleast_1d(np.asarray(figure.subfigures(len(heights), 1, height_ratios=heights))))
    if curves:
        for axis, (title, runs) in zip(
            np.atleast_1d(next(parts).subplots(1, len(curves))), curves.items(), strict=True
        ):
            _draw_curves(axis, runs, title)
    if shown:
        axes = np.atleast_1d(next(parts).subplots(1, len(shown), sharey=True))
        for axis, (title, rows) in zip(axes, shown.items(), strict=True):
            _draw_intervals(axis, rows, names, title)
    for axis, (title, values) in zip(np.atleast_1d(next(parts).subplots(1, len(costs))), costs.items(), strict=True):
        _draw_cost(axis, values, accuracy, title)
    entries = [(Line2D([], [], color=colour_of(number), linewidth=3), name) for number, name in enumerate(names)]
    letters = FontProperties(family=families(names), size=9)
    add_legend(figure, entries, loc="outside lower center", ncols=min(len(names), 4), prop=letters)
    save_figure(figure, path)


def colour_of(model: int) -> str:
    """Return the colour of a model by its number."""
    return COLOURS[model % len(COLOURS)]


def _draw_curves(axis: Axes, runs: Sequence[Curve], title: str) -> None:
    """Draw every run thinly and each model's mean thickly, over the epochs that all its runs have."""
    for model in sorted({run.model for run in runs}):
        own = [run.values for run in runs if run.model == model]
        length = min(map(len, own))
        mean = np.mean([values[:length] for values in own], axis=0)
        marker = "." if length < 4 else None
        if len(own) > 1:
            for values in own:
                axis.plot(range(len(values)), values, color=colour_of(model), linewidth=0.7, alpha=0.45)
        axis.plot(range(length), mean, color=colour_of(model), linewidth=2, marker=marker)
    axis.set(title=title, xlabel="epoch")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    longest = max(len(run.values) for run in runs)
    axis.set_xlim(-0.04 * longest, longest - 1 + 0.04 * longest)
    axis.set_ylim(bottom=0)
    axis.grid(color=GRID, linewidth=0.6)


def _draw_intervals(axis: Axes, rows: Sequence[Interval], names: Sequence[str], title: str) -> None:
    """Draw each difference as a dot on its interval, with the line of no difference."""
    for position, row in enumerate(rows):
        if math.isfinite(row.low) and math.isfinite(row.high):
            axis.plot([row.low, row.high], [position, position], color=colour_of(row.model), linewidth=3, alpha=0.6)
        axis.plot([row.value], [position], "o", color=colour_of(row.model), markersize=7)
    axis.axvline(0, color="#444444", linewidth=1)
    widest = max(
        [abs(value) for row in rows for value in (row.value, row.low, row.high) if math.isfinite(value)] + [1e-3]
    )
    axis.set_xlim(-1.1 * widest, 1.1 * widest)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=MOST_TICKS))
    labels, known = [names[row.model] for row in rows], families(names)
    axis.set_yticks(range(len(rows)), labels, fontsize=9, fontfamily=known)
    axis.set_ylim(len(rows) - 0.4, -0.6)
    heading = f"{title}, difference from {names[0]} with 95 % interval"
    axis.set_title(heading, fontsize=10, fontfamily=known)
    axis.grid(color=GRID, linewidth=0.6, axis="x")


def _draw_cost(axis: Axes, costs: Sequence[float], accuracy: Sequence[float], title: str) -> None:
    """Draw accuracy over cost, a dot for each model."""
    for number, (cost, value) in enumerate(zip(costs, accuracy, strict=True)):
        axis.plot([cost], [value], "o", color=colour_of(number), markersize=9, clip_on=False)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=MOST_TICKS))
    axis.set_xlim(0, max(costs) * 1.15 or 1)
    axis.set_ylim(0, max(accuracy) * 1.2 or 1)
    axis.set(xlabel=title, ylabel="mAP50-95")
    axis.grid(color=GRID, linewidth=0.6)
