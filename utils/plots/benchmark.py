"""Cost ratios as bars, with a line at 1, the cost of the plain convolution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from utils.plots.figure import save_figure, series_colour


def plot_ratios(parts: Mapping[str, Sequence[tuple[str, Mapping[str, float]]]], path: Path | str) -> None:
    """Draw one panel per part, and in it one group of bars per row (label, {quantity: ratio})."""
    sizes = [max(len(rows), 2) for rows in parts.values()]
    figure = Figure(figsize=(11, 1.6 + 0.5 * sum(sizes)), layout="constrained")
    axes = np.atleast_1d(figure.subplots(len(parts), 1, height_ratios=sizes))
    for axis, (title, rows) in zip(axes, parts.items(), strict=True):
        quantities = list(rows[0][1]) if rows else []
        thickness = 0.8 / max(len(quantities), 1)
        for index, quantity in enumerate(quantities):
            positions = np.arange(len(rows)) + (index - (len(quantities) - 1) / 2) * thickness
            widths = [ratios[quantity] for _, ratios in rows]
            bars = axis.barh(positions, widths, thickness, label=quantity, color=series_colour(index))
            background = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
            axis.bar_label(bars, fmt="%.2f", padding=2, fontsize=7, bbox=background)
        axis.axvline(1, color="black", linewidth=1)
        axis.set_yticks(range(len(rows)), [label for label, _ in rows], fontsize=8)
        axis.invert_yaxis()
        axis.margins(x=0.08)
        axis.set_title(f"{title}: time as a ratio to the plain convolution", fontsize=10)
        axis.legend(fontsize=8, loc="upper right")
    save_figure(figure, path)
