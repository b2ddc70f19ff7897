"""Accuracy against cost: a point per model with the range over its runs, and the Pareto front."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure, SubFigure

from utils.plots import style
from utils.plots.translations import translate

FRONT: dict[str, Any] = {"color": style.GREY, "linestyle": "--", "linewidth": 0.9}


def pareto_front(costs: Sequence[float], accuracy: Sequence[float]) -> list[int]:
    """Return the models, by rising cost, than which no other is cheaper and at least as accurate, or the reverse."""
    order = sorted((i for i, cost in enumerate(costs) if math.isfinite(cost)), key=lambda i: (costs[i], -accuracy[i]))
    front: list[int] = []
    for index in order:
        if not front or accuracy[index] > accuracy[front[-1]]:
            front.append(index)
    return front


@style.styled
def trade_off(
    names: Sequence[str], accuracy: np.ndarray, costs: Mapping[str, Sequence[float]], *, lang: str = "en"
) -> Figure:
    """Draw a panel per kind of cost, nan where unknown; `accuracy` is (models, 3): mean, lowest and highest."""
    figure = style.new_figure(2, 58, [*style.model_entries(names, lines=False), front_entry(lang)])
    draw_trade_offs(figure, accuracy, costs, lang=lang)
    return figure


def front_entry(lang: str) -> style.Entry:
    """Return the legend entry of the Pareto front."""
    return style.entry(translate("Pareto front", lang), **FRONT)


def draw_trade_offs(
    figure: Figure | SubFigure, accuracy: np.ndarray, costs: Mapping[str, Sequence[float]], *, lang: str
) -> None:
    """Draw the panels: models on the front are filled, others hollow; bars go from the lowest run to the highest."""
    axes = figure.subplots(1, len(costs), sharey=True, squeeze=False)[0]
    means = accuracy[:, 0].tolist()
    for axis, (title, values) in zip(axes, costs.items(), strict=True):
        front = pareto_front(values, means)
        axis.plot([values[i] for i in front], [means[i] for i in front], zorder=1, **FRONT)
        for model, (cost, (mean, lowest, highest)) in enumerate(zip(values, accuracy, strict=True)):
            colour = style.series_colour(model)
            axis.errorbar(
                [cost],
                [mean],
                yerr=[[mean - lowest], [highest - mean]] if lowest < highest else None,
                color=colour,
                marker=style.series_marker(model),
                markersize=6,
                markerfacecolor=colour if model in front else "white",
                capsize=2.5,
                elinewidth=0.9,
            )
        axis.set_xlabel(translate(title, lang))
        axis.xaxis.set_major_locator(style.ticks(5, prune="both"))
        axis.yaxis.set_major_locator(style.ticks(6))
        axis.margins(0.12)
    axes[0].set_ylabel("mAP50-95")
