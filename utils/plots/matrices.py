"""The confusion matrix: shares of each true class, and raw counts, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from utils.plots.figure import save_figure

MAX_NUMBERED = 30


def plot_confusion(counts: np.ndarray, shares: np.ndarray, names: Sequence[str], path: Path | str) -> None:
    """Draw (c + 1, c + 1) counts and shares, rows predicted, columns true, background last."""
    labels = [*names, "background"]
    side = min(max(0.55 * len(labels) + 3, 6), 26)
    figure = Figure(figsize=(2 * side, side), layout="constrained")
    for axis, matrix, title in zip(
        figure.subplots(1, 2), (shares, counts), ("share of each true class", "counts"), strict=True
    ):
        image = axis.imshow(np.where(matrix == 0, np.nan, matrix), cmap="Blues", vmin=0)
        figure.colorbar(image, ax=axis, shrink=0.8)
        axis.set(title=title, xlabel="true", ylabel="predicted")
        axis.set_xticks(range(len(labels)), labels, rotation=90, fontsize=8)
        axis.set_yticks(range(len(labels)), labels, fontsize=8)
        if len(labels) <= MAX_NUMBERED:
            for (row, column), value in np.ndenumerate(matrix):
                if value:
                    text = f"{value:.2f}" if title.startswith("share") else f"{int(value)}"
                    colour = "white" if value > 0.55 * matrix.max() else "black"
                    axis.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)
    save_figure(figure, path)
