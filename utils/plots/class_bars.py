"""AP of each class: a bar for every model, and beside it the differences from the baseline with their intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from utils.plots.fonts import display_names
from utils.plots.style import (
    MAX_HEIGHT_MM,
    add_legend_below,
    legend_shape,
    model_names,
    new_figure,
    series_colour,
    series_marker,
    styled,
    ticks,
)
from utils.plots.translations import translate

BAR_MM, MIN_ROW_MM = 1.9, 4.6
MAX_BASELINE_LETTERS = 20  # in the label of an axis
HATCHES = ("", "////", "....", "\\\\\\\\", "xxxx")  # distinguish bars in grey


def max_classes(models: int) -> int:
    """Return how many classes fit on a page."""
    return int((MAX_HEIGHT_MM - 35) / max(BAR_MM * models + 1.5, MIN_ROW_MM))


@styled
def class_bars(
    names: Sequence[str],
    classes: Sequence[str],
    values: Sequence[Sequence[np.ndarray]],
    differences: Sequence[np.ndarray],
    *,
    metric: str,
    lang: str = "en",
) -> Figure:
    """Draw a row per class.

    Args:
        names: of the models, the baseline first.
        classes: names of c classes, at most `max_classes`.
        values: of each model, for each class the values of its runs.
        differences: of each further model (c, 3): the difference from the baseline, and its interval, nan if unknown.
        metric: its name.
        lang: language of the labels.
    """
    baseline = model_names(names[:1], max_letters=MAX_BASELINE_LETTERS)[0]
    names = model_names(names)
    row_mm = max(BAR_MM * len(names) + 1.5, MIN_ROW_MM)
    entries = [
        (Patch(facecolor=series_colour(i), hatch=HATCHES[i % len(HATCHES)], edgecolor="white"), name)
        for i, name in enumerate(names)
    ]
    figure = new_figure(2, 18 + row_mm * len(classes) + legend_shape(names, 2)[1])
    axes = figure.subplots(1, 2 if differences else 1, sharey=True, squeeze=False)[0]
    thickness = 0.82 / len(names)
    offsets = [(i - (len(names) - 1) / 2) * thickness for i in range(len(names))]
    rows = np.arange(len(classes))
    for model, runs in enumerate(values):
        means = np.array([of_class.mean() for of_class in runs])
        errors = [[m - r.min(), r.max() - m] for m, r in zip(means, runs, strict=True)]
        axes[0].barh(
            rows + offsets[model],
            means,
            thickness,
            color=series_colour(model),
            hatch=HATCHES[model % len(HATCHES)],
            edgecolor="white",
            linewidth=0.3,
            xerr=np.transpose(errors) if max(map(len, runs)) > 1 else None,
            error_kw={"elinewidth": 0.7, "ecolor": "#444444"},
        )
    axes[0].set(xlabel=metric, xlim=(0, 1), ylim=(len(classes) - 0.45, -0.55))
    axes[0].set_yticks(rows, display_names(classes))
    axes[0].grid(visible=False, axis="y")
    for model, of_model in enumerate(differences, 1):
        colour = series_colour(model)
        for row, (value, low, high) in enumerate(of_model.tolist()):
            y = row + (offsets[model] if len(names) > 2 else 0)
            if math.isfinite(low):
                axes[1].plot([low, high], [y, y], color=colour, linewidth=1.2)
            axes[1].plot([value], [y], color=colour, marker=series_marker(model), markersize=3.2)
    if differences:
        axes[1].axvline(0, color="#444444", linewidth=0.8)
        axes[1].set_xlabel(f"{metric}: {translate('difference from {}', lang, baseline)}")
        axes[1].xaxis.set_major_locator(ticks(5))
        axes[1].grid(visible=False, axis="y")
        for axis in axes:
            for border in rows[1:] - 0.5:
                axis.axhline(border, color="#e4e6ea", linewidth=0.5)
    add_legend_below(figure, entries, 2)
    return figure
