"""The confusion matrix: raw counts, and shares of each true class, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from utils.plots.figure import save_figure
from utils.plots.fonts import families, printables

MAX_NUMBERED = 30
MAX_LABELLED = 100


def plot_confusion(
    counts: np.ndarray, shares: np.ndarray, names: Sequence[str], path: Path | str, *, note: str = ""
) -> None:
    """Draw (c + 1, c + 1) counts and shares, rows predicted, columns true, background last, with a note above."""
    labels = [*printables(names), "background"]
    side = min(max(0.55 * len(labels) + 3, 6), 26)
    figure = Figure(figsize=(2 * side, side + 0.4 * bool(note)), layout="constrained")
    axes = figure.subplots(1, 2)
    _draw(figure, axes[0], counts, labels, title="counts", number="{:.0f}")
    _draw(figure, axes[1], shares, labels, title="share of each column", number="{:.2f}")
    if note:
        figure.suptitle(note, fontsize=10)
    save_figure(figure, path)


def _draw(figure: Figure, axis: Axes, matrix: np.ndarray, labels: Sequence[str], *, title: str, number: str) -> None:
    """Draw one matrix with its numbers while they are few; empty cells stay white."""
    top = max(float(matrix.max()), 1e-9)
    image = axis.imshow(np.where(matrix == 0, np.nan, matrix), cmap="Blues", vmin=0, vmax=top)
    figure.colorbar(image, ax=axis, shrink=0.8)
    axis.set(title=title, xlabel="true (background: nothing is there)", ylabel="predicted (background: missed)")
    if len(labels) <= MAX_LABELLED:
        size, known = (8 if len(labels) <= MAX_NUMBERED else 5), families(labels)
        axis.set_xticks(range(len(labels)), labels, rotation=90, fontsize=size, fontfamily=known)
        axis.set_yticks(range(len(labels)), labels, fontsize=size, fontfamily=known)
    if len(labels) <= MAX_NUMBERED:
        for (row, column), value in np.ndenumerate(matrix):
            if value:
                colour = "white" if value > 0.55 * top else "black"
                axis.text(column, row, number.format(value), ha="center", va="center", fontsize=8, color=colour)
