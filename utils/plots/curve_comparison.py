"""Curves of several models in one plot: the mean over each model's runs, in a band from the lowest to the highest."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from utils.plots import style
from utils.plots.translations import translate

METRIC_AXES = {
    "PR_curve": ("recall", "precision"),
    "F1_curve": ("confidence threshold", "F1"),
    "P_curve": ("confidence threshold", "precision"),
    "R_curve": ("confidence threshold", "recall"),
}
BAND_OPACITY = 0.18
PANEL_MM, TRAINING_PANEL_MM = 58.0, 50.0  # heights of a panel
FEW_EPOCHS = 30  # up to which each one has a marker
LOGARITHMIC_FROM = 10  # highest loss by lowest; early in training, losses may be many times as high for an epoch or two
SPLIT_LINES: dict[str, style.Line] = {"validation": "-", "training": (0, (3, 1.2))}


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A run over epochs."""

    model: int  # index
    run: int  # index among those of the model
    split: str  # "training" or "validation"
    values: np.ndarray  # one per epoch, nan where it is missing


def band(runs: Sequence[np.ndarray] | np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean, lowest and highest of runs over the points that all have; nan where one is missing."""
    points = min(map(len, runs))
    stacked = np.stack([run[:points] for run in runs])
    return stacked.mean(0), stacked.min(0), stacked.max(0)


@style.styled
def metric_curves(names: Sequence[str], curves: Mapping[str, Sequence[np.ndarray]], *, lang: str = "en") -> Figure:
    """Draw one panel a column wide, or several in rows of two; a legend below names the models.

    Args:
        names: of the models.
        curves: by key of `METRIC_AXES`, of each model (runs, k) over k even steps from 0 to 1, nan where undefined.
        lang: language of the labels.
    """
    columns = min(len(curves), 2)
    rows = math.ceil(len(curves) / columns)
    figure = style.new_figure(columns, PANEL_MM * rows, style.model_entries(names))
    for axis, (name, of_models) in zip(figure.subplots(rows, columns, squeeze=False).flat, curves.items(), strict=True):
        for model, runs in enumerate(of_models):
            draw_band(axis, np.linspace(0, 1, runs.shape[1]), runs, model, linestyle=style.series_line(model))
        if not any(np.nanmax(runs, initial=0) > 0 for runs in of_models):
            axis.text(0.5, 0.5, translate("no true positive", lang), ha="center", color=style.GREY)
        x_label, y_label = (translate(label, lang) for label in METRIC_AXES[name])
        axis.set(xlim=(0, 1), ylim=(0, 1.02), xlabel=x_label, ylabel=y_label)
    return figure


@style.styled
def training_curves(names: Sequence[str], panels: Mapping[str, Sequence[Curve]], *, lang: str = "en") -> Figure:
    """Draw panels over epochs in rows of three; values of the training split are dashed."""
    rows = math.ceil(len(panels) / 3)
    entries = [*style.model_entries(names, lines=False), *split_entries(panels, lang)]
    figure = style.new_figure(2, TRAINING_PANEL_MM * rows, entries)
    axes = figure.subplots(rows, 3, squeeze=False).ravel()
    for axis, (title, curves) in zip(axes, panels.items(), strict=False):
        draw_training(axis, curves, title, lang=lang)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    return figure


def split_entries(panels: Mapping[str, Sequence[Curve]], lang: str) -> list[style.Entry]:
    """Return the legend entries of the splits that the curves are of."""
    found = {curve.split for curves in panels.values() for curve in curves}
    shown = {split: line for split, line in SPLIT_LINES.items() if split in found}
    return [style.entry(translate(split, lang), color=style.DARK, linestyle=line) for split, line in shown.items()]


def draw_training(axis: Axes, curves: Sequence[Curve], title: str, *, lang: str = "en") -> None:
    """Draw the runs of each model and split as one curve over epochs."""
    key = attrgetter("model", "split")
    for (model, split), group in groupby(sorted(curves, key=key), key=key):
        runs = [curve.values for curve in group]
        draw_band(axis, np.arange(max(map(len, runs))), runs, model, linestyle=SPLIT_LINES[split])
    axis.set(title=translate(title, lang), xlabel=translate("epoch", lang))
    axis.xaxis.set_major_locator(style.ticks(6, integer=True))
    axis.margins(x=0.03)
    axis.yaxis.set_major_locator(style.ticks(6))
    lowest, highest = min(np.nanmin(of.values) for of in curves), max(np.nanmax(of.values) for of in curves)
    if "loss" in title and 0 < LOGARITHMIC_FROM * lowest < highest:
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.yaxis.set_minor_formatter(NullFormatter())


def draw_band(
    axis: Axes, x: np.ndarray, runs: Sequence[np.ndarray] | np.ndarray, model: int, *, linestyle: style.Line
) -> None:
    """Draw the mean and the band of runs; where the shortest has ended, the others go on as thin lines."""
    mean, low, high = band(runs)
    points, colour = len(mean), style.series_colour(model)
    if len(runs) > 1:
        axis.fill_between(x[:points], low, high, color=colour, alpha=BAND_OPACITY, linewidth=0)
    every = (0, 1) if points <= FEW_EPOCHS else style.mark_every(model, points)
    look: dict[str, Any] = {"marker": style.series_marker(model), "markevery": every, "markersize": 3.2}
    axis.plot(x[:points], mean, color=colour, linestyle=linestyle, **look)
    for run in runs:
        if len(run) > points:
            axis.plot(x[points - 1 : len(run)], run[points - 1 :], color=colour, linewidth=0.6)
