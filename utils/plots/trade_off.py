"""Accuracy against cost: a point per model with the range over its runs, and the Pareto front."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from utils.plots.style import (
    GREY,
    add_legend_below,
    legend_shape,
    model_entries,
    model_names,
    new_figure,
    series_colour,
    series_marker,
    styled,
    ticks,
)
from utils.plots.translations import translate


def pareto_front(costs: Sequence[float], accuracy: Sequence[float]) -> list[int]:
    """Return the models, by rising cost, than which no other is cheaper and at least as accurate, or the reverse."""
    order = sorted((i for i, cost in enumerate(costs) if math.isfinite(cost)), key=lambda i: (costs[i], -accuracy[i]))
    front: list[int] = []
    for index in order:
        if not front or accuracy[index] > accuracy[front[-1]]:
            front.append(index)
    return front


@styled
def trade_off(
    names: Sequence[str], accuracy: Sequence[np.ndarray], costs: Mapping[str, Sequence[float]], *, lang: str = "en"
) -> Figure:
    """Draw a panel per kind of cost, nan where unknown; `accuracy` is mAP50-95 of the runs of each model."""
    names = model_names(names)
    front = (Line2D([], [], color=GREY, linestyle="--"), translate("Pareto front", lang))
    entries = [*model_entries(names, lines=False), front]
    figure = new_figure(2, 58 + legend_shape([name for _, name in entries], 2)[1])
    axes = figure.subplots(1, len(costs), sharey=True, squeeze=False)[0]
    for axis, (title, values) in zip(axes, costs.items(), strict=True):
        draw_trade_off(axis, values, accuracy, title, lang=lang)
    axes[0].set_ylabel("mAP50-95")
    add_legend_below(figure, entries, 2)
    return figure


def draw_trade_off(
    axis: Axes, costs: Sequence[float], accuracy: Sequence[np.ndarray], title: str, *, lang: str = "en"
) -> None:
    """Draw one panel: models on the front are filled, others hollow; bars go from the lowest run to the highest."""
    means = [float(runs.mean()) for runs in accuracy]
    front = pareto_front(costs, means)
    axis.plot([costs[i] for i in front], [means[i] for i in front], color=GREY, linestyle="--", linewidth=0.9, zorder=1)
    for model, (cost, runs) in enumerate(zip(costs, accuracy, strict=True)):
        colour = series_colour(model)
        errors = [[means[model] - runs.min()], [runs.max() - means[model]]]
        axis.errorbar(
            [cost],
            [means[model]],
            yerr=errors if len(runs) > 1 else None,
            color=colour,
            marker=series_marker(model),
            markersize=6,
            markerfacecolor=colour if model in front else "white",
            capsize=2.5,
            elinewidth=0.9,
        )
    axis.set_xlabel(translate(title, lang))
    axis.xaxis.set_major_locator(ticks(5, prune="both"))
    axis.yaxis.set_major_locator(ticks(6))
    axis.margins(0.12)
