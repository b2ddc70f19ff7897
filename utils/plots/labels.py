"""Statistics of a data set's labels: instances per class, and where and how large the boxes are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.collections import PolyCollection

from utils.plots.boxes import class_colour_hex
from utils.plots.figure import save_figure
from utils.plots.fonts import display_names
from utils.plots.style import WIDTH_MM, new_figure, styled, ticks

MAX_BOXES = 1000
MAX_NAMES = 30
MAX_LETTERS = 30  # of all names together, for horizontal tick labels


@styled
def plot_labels(labels: np.ndarray, names: Sequence[str], path: Path | str) -> None:
    """Draw the statistics of (n, 5) labels class, cx, cy, w, h, normalized by the image's size."""
    figure = new_figure(2, WIDTH_MM[2])
    figure.set_layout_engine("compressed")
    (classes_axis, boxes_axis), (centres_axis, sizes_axis) = figure.subplots(2, 2, subplot_kw={"box_aspect": 1})
    classes = labels[:, 0].astype(int)
    counts = np.bincount(classes, minlength=len(names))
    classes_axis.bar(range(len(names)), counts, color=[class_colour_hex(i) for i in range(len(names))])
    classes_axis.set(ylabel="instances", title=f"{len(labels)} instances")
    classes_axis.grid(visible=False, axis="x")
    if len(names) <= MAX_NAMES:
        shown = display_names(names)
        vertical = len(names) > 8 or sum(map(len, shown)) > MAX_LETTERS
        classes_axis.set_xticks(range(len(names)), shown, rotation=90 if vertical else 0)
    boxes_axis.set(title="boxes, centred", xlim=(0, 1), ylim=(1, 0), xlabel="x (normalized)", ylabel="y (normalized)")
    corners = 0.5 + labels[:MAX_BOXES, None, 3:] * (np.array(((-1, -1), (1, -1), (1, 1), (-1, 1))) / 2)  # (n, 4, 2)
    colours = [class_colour_hex(i) for i in classes[:MAX_BOXES].tolist()]
    # One artist: a thousand rectangles take longer than the rest of the figure.
    outlines = PolyCollection(list(corners), facecolors="none", edgecolors=colours, linewidths=0.4, alpha=0.6)
    boxes_axis.add_collection(outlines, autolim=False)
    for axis, x, y in ((centres_axis, "centre x", "centre y"), (sizes_axis, "width", "height")):
        first = 1 if axis is centres_axis else 3
        histogram = axis.hist2d(*labels[:, first : first + 2].T, bins=50, range=((0, 1), (0, 1)), cmap="Blues")
        figure.colorbar(
            histogram[3], cax=axis.inset_axes((1.03, 0, 0.04, 1)), label="instances", ticks=ticks(5, integer=True)
        )
        axis.set(xlabel=f"{x} (normalized)", ylabel=f"{y} (normalized)")
    centres_axis.invert_yaxis()
    save_figure(figure, path)
