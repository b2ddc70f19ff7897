"""What the labels of a data set look like: how many of each class, where, and how large."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from utils.plots.boxes import class_colour
from utils.plots.figure import BLUE, save_figure
from utils.plots.fonts import families, printables

MAX_OUTLINES = 1000
MAX_NAMED = 30
MAX_LETTERS = 50  # of all names, side by side


def plot_labels(labels: np.ndarray, names: Sequence[str], path: Path | str) -> None:
    """Draw statistics of (n, 5) rows class, cx, cy, w, h as shares of their image, as `labels.jpg`."""
    figure = Figure(figsize=(11, 10), layout="constrained")
    axes = figure.subplots(2, 2)
    classes = labels[:, 0].astype(int)
    counts = np.bincount(classes, minlength=len(names))
    axes[0][0].bar(range(len(names)), counts, color=[np.array(class_colour(i)) / 255 for i in range(len(names))])
    axes[0][0].set_ylabel("instances")
    if len(names) <= MAX_NAMED:
        shown = printables(names)
        upright = len(names) > 8 or sum(map(len, shown)) > MAX_LETTERS
        axes[0][0].set_xticks(
            range(len(names)), shown, rotation=90 if upright else 0, fontsize=9, fontfamily=families(shown)
        )
    axes[0][1].set(title="boxes around one centre", xlim=(0, 1), ylim=(1, 0), aspect="equal")
    for number, (_, _, width, height) in zip(classes[:MAX_OUTLINES], labels[:MAX_OUTLINES, 1:], strict=True):
        corner = (0.5 - width / 2, 0.5 - height / 2)
        colour = np.array(class_colour(int(number))) / 255
        axes[0][1].add_patch(Rectangle(corner, width, height, fill=False, edgecolor=colour, linewidth=0.6, alpha=0.6))
    for axis, columns, x_label, y_label in (
        (axes[1][0], (1, 2), "centre x", "centre y"),
        (axes[1][1], (3, 4), "width", "height"),
    ):
        x, y = labels[:, columns[0]], labels[:, columns[1]]
        histogram = axis.hist2d(x, y, bins=50, range=((0, 1), (0, 1)), cmap="Blues")
        figure.colorbar(histogram[3], ax=axis, label="instances")
        axis.set(xlabel=f"{x_label} (share of the image)", ylabel=f"{y_label} (share of the image)")
        axis.set_aspect("equal")
    axes[1][0].invert_yaxis()
    axes[0][0].set_title(f"{len(labels)} instances", color=BLUE)
    save_figure(figure, path)
