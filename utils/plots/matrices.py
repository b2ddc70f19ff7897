"""The confusion matrix: counts, and each column normalized, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from utils.plots.figure import save_figure
from utils.plots.fonts import display_names

MAX_WITH_VALUES = 30  # classes, up to which the value is written into each cell
MAX_WITH_NAMES = 100


def plot_confusion(
    counts: np.ndarray, normalized: np.ndarray, names: Sequence[str], path: Path | str, *, note: str = ""
) -> None:
    """Draw the (c + 1, c + 1) counts and column fractions: rows predicted, columns true, background last."""
    labels = [*display_names(names), "background"]
    inches = min(max(0.55 * len(labels) + 3, 6), 26)
    figure = Figure(figsize=(2 * inches, inches + 0.4 * bool(note)), layout="constrained")
    axes = figure.subplots(1, 2)
    _draw(figure, axes[0], counts, labels, title="counts", value_format="{:.0f}")
    _draw(figure, axes[1], normalized, labels, title="normalized by column", value_format="{:.2f}")
    if note:
        figure.suptitle(note, fontsize=10)
    save_figure(figure, path)


def _draw(
    figure: Figure, axis: Axes, matrix: np.ndarray, labels: Sequence[str], *, title: str, value_format: str
) -> None:
    """Draw one matrix; cells that are 0 stay white."""
    top = max(float(matrix.max()), 1e-9)
    image = axis.imshow(np.where(matrix == 0, np.nan, matrix), cmap="Blues", vmin=0, vmax=top)
    figure.colorbar(image, ax=axis, shrink=0.8)
    axis.set(title=title, xlabel="true (background: false positive)", ylabel="predicted (background: false negative)")
    if len(labels) <= MAX_WITH_NAMES:
        size = 8 if len(labels) <= MAX_WITH_VALUES else 5
        axis.set_xticks(range(len(labels)), labels, rotation=90, fontsize=size)
        axis.set_yticks(range(len(labels)), labels, fontsize=size)
    if len(labels) <= MAX_WITH_VALUES:
        for (row, column), value in np.ndenumerate(matrix):
            if value:
                colour = "white" if value > 0.55 * top else "black"
                axis.text(column, row, value_format.format(value), ha="center", va="center", fontsize=8, color=colour)
