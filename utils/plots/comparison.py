"""Runs side by side: their curves, and what each costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from utils.plots.figure import BLUE, GREEN, GREY, ORANGE, save_figure

COLOURS = (BLUE, ORANGE, GREEN, "#8a4fb0", "#b03a5b", GREY)


def plot_comparison(
    names: Sequence[str],
    curves: Mapping[str, Sequence[Sequence[float]]],
    costs: Mapping[str, Sequence[float]],
    path: Path | str,
) -> None:
    """Draw runs side by side.

    Args:
        names: of the runs.
        curves: per title, one list of numbers over epochs for each run.
        costs: per title, one number for each run.
        path: where to write.
    """
    figure = Figure(figsize=(15, 8), layout="constrained")
    upper, lower = np.asarray(figure.subfigures(2, 1, height_ratios=(3, 2)))
    for axis, (title, runs) in zip(np.atleast_1d(upper.subplots(1, len(curves))), curves.items(), strict=True):
        for number, values in enumerate(runs):
            colour = COLOURS[number % len(COLOURS)]
            axis.plot(range(len(values)), values, color=colour, linewidth=1.6, label=names[number])
        axis.set(title=title, xlabel="epoch")
        axis.set_ylim(bottom=0)
        axis.grid(color="#e4e6ea", linewidth=0.6)
    handles, labels = upper.axes[0].get_legend_handles_labels()
    upper.legend(handles, labels, loc="outside lower center", ncols=min(len(names), 4), fontsize=9)
    for axis, (title, values) in zip(np.atleast_1d(lower.subplots(1, len(costs))), costs.items(), strict=True):
        positions = np.arange(len(names))
        bars = axis.barh(positions, values, color=[COLOURS[number % len(COLOURS)] for number in positions])
        axis.bar_label(bars, [f"{value:,.4g}" for value in values], padding=3, fontsize=9)
        axis.set_yticks([])
        axis.invert_yaxis()
        axis.set_xlim(right=max(values) * 1.3 or 1)
        axis.set_title(title, fontsize=10)
    save_figure(figure, path)
