"""Cost ratios as bars, with a line at 1, the cost of the plain convolution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from utils.plots.figure import save_figure
from utils.plots.style import new_figure, series_colour, styled

ROW_MM = 9.0


@styled
def plot_ratios(parts: Mapping[str, Sequence[tuple[str, Mapping[str, float]]]], path: Path | str) -> None:
    """Draw one panel per part, and in it one group of bars per row (label, {quantity: ratio}), on a log axis."""
    sizes = [max(len(rows), 2) for rows in parts.values()]
    figure = new_figure(2, 24 * len(sizes) + ROW_MM * sum(sizes))
    axes = np.atleast_1d(figure.subplots(len(parts), 1, height_ratios=sizes))
    for axis, (title, rows) in zip(axes, parts.items(), strict=True):
        quantities = list(rows[0][1]) if rows else []
        thickness = 0.8 / max(len(quantities), 1)
        axis.set_xscale("log")
        axis.axvline(1, color="black", linewidth=1, label="plain convolution")
        for index, quantity in enumerate(quantities):
            positions = np.arange(len(rows)) + (index - (len(quantities) - 1) / 2) * thickness
            ratios = np.array([row[quantity] for _, row in rows])
            bars = axis.barh(positions, ratios - 1, thickness, left=1, label=quantity, color=series_colour(index))
            for bar, ratio in zip(bars, ratios, strict=True):
                axis.annotate(
                    f"{ratio:.2f}",
                    (ratio, bar.get_y() + thickness / 2),
                    xytext=(2 if ratio >= 1 else -2, 0),
                    textcoords="offset points",
                    ha="left" if ratio >= 1 else "right",
                    va="center",
                    fontsize=6,
                )
        axis.set_yticks(range(len(rows)), [label for label, _ in rows])
        axis.invert_yaxis()
        axis.margins(x=0.12)
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.grid(visible=False, axis="y")
        axis.set_title(f"{title}: time as a ratio to the plain convolution")
        axis.legend(loc="upper left", bbox_to_anchor=(1, 1))
    save_figure(figure, path)
