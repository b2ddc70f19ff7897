"""Models side by side on one page: curves of their runs, differences with intervals, and accuracy over cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from utils.plots import style
from utils.plots.curve_comparison import Curve, draw_training, split_entries
from utils.plots.forest import MAX_LETTERS, ROW_MM, ForestRow, draw_forest
from utils.plots.trade_off import draw_trade_offs, front_entry
from utils.plots.translations import translate

ROW_OF_PANELS_MM = 52.0


@style.styled
def overview(
    names: Sequence[str],
    *,
    curves: Mapping[str, Sequence[Curve]],
    differences: Mapping[str, Sequence[ForestRow]],
    accuracy: np.ndarray,
    costs: Mapping[str, Sequence[float]],
    note: str = "",
    lang: str = "en",
) -> Figure:
    """Draw a row of panels each for curves, for intervals and for accuracy over cost.

    Args:
        names: of the models, the baseline first; a name that no font supports is shown as its position, from 1.
        curves: by title, all runs; may be empty.
        differences: by title, one per further model; may be empty.
        accuracy: (models, 3) mean, lowest and highest mAP50-95 of the runs.
        costs: by title, one value per model, nan where unknown.
        note: what was compared, above the panels.
        lang: language of the labels.
    """
    differences = {title: rows for title, rows in differences.items() if rows}
    forest_mm = 22 + ROW_MM * (len(names) - 1)
    heights = [ROW_OF_PANELS_MM] * bool(curves) + [forest_mm] * bool(differences) + [ROW_OF_PANELS_MM]
    entries = [*style.model_entries(names, lines=False), *split_entries(curves, lang), front_entry(lang)]
    figure = style.new_figure(2, sum(heights) + 8 * bool(note), entries)
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
        baseline = style.model_names(names, max_letters=MAX_LETTERS)[0]
        part.supxlabel(translate("difference from {}, 95 % interval", lang, baseline), fontsize=8)
    draw_trade_offs(next(parts), accuracy, costs, lang=lang)
    if note:
        figure.suptitle(note)
    return figure
