"""mAP50-95 of each class: a bar for every model, and beside it its difference from the baseline, with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from utils.plots import style
from utils.plots.fonts import display_names
from utils.plots.translations import translate

BAR_MM, MIN_ROW_MM = 1.9, 4.6
MAX_BASELINE_LETTERS = 20  # in the label of an axis
HATCHES = ("", "////", "....", "\\\\\\\\", "xxxx")  # distinguish bars in grey


def max_classes(models: int) -> int:
    """Return how many classes fit on a page."""
    return int((style.MAX_HEIGHT_MM - 35) / _row_mm(models))


def _row_mm(models: int) -> float:
    return max(BAR_MM * models + 1.5, MIN_ROW_MM)


@style.styled
def class_bars(
    names: Sequence[str],
    classes: Sequence[str],
    values: np.ndarray,
    differences: np.ndarray,
    *,
    lang: str = "en",
) -> Figure:
    """Draw a row per class.

    Args:
        names: of the models, the baseline first.
        classes: names of c classes, at most `max_classes`.
        values: (models, c, 3) mean, lowest and highest mAP50-95 of the runs.
        differences: (further models or 0, c, 3) difference from the baseline, and its interval, nan if unknown.
        lang: language of the labels.
    """
    appearances: list[dict[str, Any]] = [
        {"facecolor": style.series_colour(i), "hatch": HATCHES[i % len(HATCHES)], "edgecolor": "white"}
        for i in range(len(names))
    ]
    entries = [
        (Patch(**appearance), name) for appearance, name in zip(appearances, style.model_names(names), strict=True)
    ]
    figure = style.new_figure(2, 18 + _row_mm(len(names)) * len(classes), entries)
    bars, *others = figure.subplots(1, 2 if len(differences) else 1, sharey=True, squeeze=False)[0]
    thickness = 0.82 / len(names)
    rows = np.arange(len(classes))
    offsets = thickness * (np.arange(len(names)) - (len(names) - 1) / 2)
    for (mean, lowest, highest), appearance, offset in zip(
        values.transpose(0, 2, 1), appearances, offsets, strict=True
    ):
        bars.barh(rows + offset, mean, thickness, linewidth=0.3, **appearance)
        if (lowest < highest).any():
            outline = [withStroke(linewidth=1.8, foreground="white")]  # on dark bars
            bars.hlines(rows + offset, lowest, highest, color=style.DARK, linewidth=0.8, path_effects=outline)
    bars.set(xlabel="mAP50-95", xlim=(0, 1), ylim=(len(classes) - 0.45, -0.55))
    bars.set_yticks(rows, display_names(classes))
    bars.set_yticks(rows[1:] - 0.5, minor=True)
    for axis in others:
        for model, (value, low, high) in enumerate(differences.transpose(0, 2, 1), 1):
            y, colour = rows + (offsets[model] if len(names) > 2 else 0), style.series_colour(model)
            known = np.isfinite(low)
            axis.hlines(y[known], low[known], high[known], color=colour, linewidth=1.2)
            axis.plot(value, y, style.series_marker(model), color=colour, markersize=3.2)
        left, right = axis.get_xlim()
        axis.set_xlim(max(left, -1), min(right, 1))  # no difference is larger, intervals of two runs may be
        axis.axvline(0, color=style.DARK, linewidth=0.8)
        baseline = style.model_names(names, max_letters=MAX_BASELINE_LETTERS)[0]
        axis.set_xlabel(translate("difference from {}", lang, baseline))
        axis.xaxis.set_major_locator(style.ticks(5))
        axis.tick_params(axis="y", length=0)
    for axis in (bars, *others):
        axis.grid(visible=False, axis="y")
        axis.grid(visible=True, axis="y", which="minor")
        axis.tick_params(axis="y", which="minor", length=0)
    return figure
