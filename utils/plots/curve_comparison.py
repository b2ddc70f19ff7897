"""Curves of several models in one plot: the mean over each model's runs, in a band from the lowest to the highest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from utils.plots.style import (
    GREY,
    add_legend,
    add_legend_below,
    legend_shape,
    mark_every,
    model_entries,
    model_names,
    new_figure,
    series_colour,
    series_line,
    series_marker,
    styled,
    ticks,
)
from utils.plots.translations import translate

BAND_OPACITY = 0.2
PANEL_MM = 58.0  # height of a panel
FEW_EPOCHS = 30  # up to which each one has a marker
DASHED = (0, (3, 1.2))


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One run over epochs: the index of its model, and a value per epoch, nan where it is missing."""

    model: int
    values: np.ndarray
    validation: bool = False  # a loss on the validation split


@dataclass(frozen=True, kw_only=True)
class MetricPanel:
    """A metric over confidence or recall."""

    x_label: str  # as `y_label` a word of `translations`
    y_label: str
    x: np.ndarray  # (k,) from 0 to 1
    runs: Sequence[np.ndarray]  # of each model (runs, k), nan where undefined


def band(runs: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean, lowest and highest of runs over the points that all have; nan where one is missing."""
    points = min(map(len, runs))
    stacked = np.stack([run[:points] for run in runs])
    return stacked.mean(0), stacked.min(0), stacked.max(0)


@styled
def metric_curves(names: Sequence[str], panels: Sequence[MetricPanel], *, lang: str = "en") -> Figure:
    """Draw one panel a column wide, or several in rows of two; a legend below names the models."""
    names, columns = model_names(names), min(len(panels), 2)
    rows = -(-len(panels) // columns)
    figure = new_figure(columns, PANEL_MM * rows + legend_shape(names, columns)[1])
    for axis, panel in zip(figure.subplots(rows, columns, squeeze=False).ravel(), panels, strict=True):
        for model, runs in enumerate(panel.runs):
            draw_band(
                axis, panel.x, list(runs), model, every=mark_every(model, len(panel.x)), linestyle=series_line(model)
            )
        if not any(np.nanmax(run, initial=0) > 0 for runs in panel.runs for run in runs):
            axis.text(0.5, 0.5, translate("no true positive", lang), ha="center", color=GREY)
        axis.set(xlim=(0, 1), ylim=(0, 1.02), xlabel=translate(panel.x_label, lang))
        axis.set_ylabel(translate(panel.y_label, lang))
    add_legend_below(figure, model_entries(names), columns)
    return figure


@styled
def training_curves(names: Sequence[str], panels: Mapping[str, Sequence[Curve]], *, lang: str = "en") -> Figure:
    """Draw panels over epochs in rows of three; in those of losses the validation split is dashed."""
    names = model_names(names)
    rows = -(-len(panels) // 3)
    figure = new_figure(2, (PANEL_MM - 8) * rows + legend_shape(names, 2)[1])
    axes = figure.subplots(rows, 3, squeeze=False).ravel()
    for axis, (title, curves) in zip(axes, panels.items(), strict=False):
        draw_training(axis, curves, title, lang=lang)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    if any(curve.validation for curves in panels.values() for curve in curves):
        styles: tuple[tuple[Any, str], ...] = (("-", "training"), (DASHED, "validation"))
        entries = [(Line2D([], [], color="#444444", linestyle=s), translate(word, lang)) for s, word in styles]
        free = next((axis for axis in axes[len(panels) :]), None)
        add_legend(free or axes[len(panels) - 1], entries, loc="upper right" if free is None else "center")
    add_legend_below(figure, model_entries(names, lines=False), 2)
    return figure


def draw_training(axis: Axes, curves: Sequence[Curve], title: str, *, lang: str = "en") -> None:
    """Draw the runs of each model and split as one curve over epochs."""
    key = attrgetter("model", "validation")
    for (model, validation), group in groupby(sorted(curves, key=key), key=key):
        runs = [curve.values for curve in group]
        points = min(map(len, runs))
        every = (0, 1) if points <= FEW_EPOCHS else mark_every(model, points)
        style = DASHED if validation else "-"
        draw_band(axis, np.arange(max(map(len, runs))), runs, model, every=every, linestyle=style)
    axis.set(title=translate(title, lang), xlabel=translate("epoch", lang))
    axis.xaxis.set_major_locator(ticks(6, integer=True))
    axis.yaxis.set_major_locator(ticks(6))
    axis.margins(x=0.03)


def draw_band(
    axis: Axes,
    x: np.ndarray,
    runs: Sequence[np.ndarray],
    model: int,
    *,
    every: tuple[int, int],
    linestyle: Any,  # noqa: ANN401 - as matplotlib takes it
) -> None:
    """Draw the mean and the band of runs; where the shortest has ended, the others go on as thin lines."""
    mean, low, high = band(runs)
    colour = series_colour(model)
    if len(runs) > 1:
        axis.fill_between(x[: len(mean)], low, high, color=colour, alpha=BAND_OPACITY, linewidth=0)
    marker = series_marker(model)
    axis.plot(x[: len(mean)], mean, color=colour, linestyle=linestyle, marker=marker, markevery=every, markersize=3.2)
    for run in runs:
        if len(run) > len(mean):
            axis.plot(x[len(mean) - 1 : len(run)], run[len(mean) - 1 :], color=colour, linewidth=0.6)
