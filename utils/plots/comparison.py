"""Models side by side on one page: curves of their runs, differences with intervals, and accuracy over cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from utils.plots.curve_comparison import Curve, draw_training
from utils.plots.forest import MAX_LETTERS, ROW_MM, ForestRow, draw_forest
from utils.plots.style import add_legend_below, legend_shape, model_entries, model_names, new_figure, styled
from utils.plots.trade_off import draw_trade_off
from utils.plots.translations import translate

ROW_OF_PANELS_MM = 52.0


@styled
def overview(
    names: Sequence[str],
    *,
    curves: Mapping[str, Sequence[Curve]],
    differences: Mapping[str, Sequence[ForestRow]],
    accuracy: Sequence[np.ndarray],
    costs: Mapping[str, Sequence[float]],
    note: str = "",
    lang: str = "en",
) -> Figure:
    """Draw a row of panels each for curves, for intervals and for accuracy over cost.

    Args:
        names: of the models, the baseline first; a name that no font supports is shown as its position, from 1.
        curves: by title, all runs; may be empty.
        differences: by title, one per further model; may be empty.
        accuracy: mAP50-95 of the runs of each model.
        costs: by title, one value per model, nan where unknown.
        note: what was compared, above the panels.
        lang: language of the labels.
    """
    baseline = model_names(names, max_letters=MAX_LETTERS)[0]
    names = model_names(names)
    differences = {title: rows for title, rows in differences.items() if rows}
    forest_mm = 22 + ROW_MM * (len(names) - 1)
    heights = [ROW_OF_PANELS_MM] * bool(curves) + [forest_mm] * bool(differences) + [ROW_OF_PANELS_MM]
    figure = new_figure(2, sum(heights) + 8 * bool(note) + legend_shape(names, 2)[1])
    parts = iter(np.atleast_1d(np.asarray(figure.subfigures(len(heights), 1, height_ratios=heights))))
    if curves:
        axes = np.atleast_1d(next(parts).subplots(1, len(curves)))
        for axis, (title, runs) in zip(axes, curves.items(), strict=True):
            draw_training(axis, runs, title, lang=lang)
    if differences:
        part = next(parts)
        axes = np.atleast_1d(part.subplots(1, len(differences)))
        for index, (axis, (title, rows)) in enumerate(zip(axes, differences.items(), strict=True)):
            draw_forest(axis, rows, title, lang=lang, labels=index == 0)
        part.supxlabel(translate("difference from {}, 95 % interval", lang, baseline), fontsize=8)
    axes = np.atleast_1d(next(parts).subplots(1, len(costs), sharey=True))
    for axis, (title, values) in zip(axes, costs.items(), strict=True):
        draw_trade_off(axis, values, accuracy, title, lang=lang)
    axes[0].set_ylabel("mAP50-95")
    if note:
        figure.suptitle(note)
    add_legend_below(figure, model_entries(names, lines=False), 2)
    return figure
