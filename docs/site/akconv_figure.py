"""Draw docs/images/akconv.svg, which has no words: `python docs/site/akconv_figure.py` in the repository's root."""

import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from models.modules.akconv import base_points  # noqa: E402
from utils.plots.figure import save_figure  # noqa: E402
from utils.plots.style import BLUE, GREY, ORANGE, SETTINGS, new_figure  # noqa: E402

SHAPES = (3, 5, 9)  # numbers of points
# Of a layer with five points: (row, column), in pixels.
OFFSETS = np.array(((-0.35, -0.6), (-0.7, 0.75), (0.3, -0.75), (0.15, 0.6), (0.85, 0.4)))
SAMPLE = (1.3, 1.65)  # of the last panel: the position that is read


def _grid(axis: Axes, title: str, size: int) -> None:
    """Set up a panel of size x size pixels of the map, with the pixels as cells."""
    axis.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5), xticks=[], yticks=[], aspect="equal")
    axis.set_title(title)
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)
    for line in np.arange(-0.5, size):
        axis.plot((-0.5, size - 0.5), (line, line), color="#d0d4da", lw=0.6)
        axis.plot((line, line), (-0.5, size - 0.5), color="#d0d4da", lw=0.6)


def draw(path: Path) -> None:
    """Draw initial shapes, the same points moved by offsets, and the four pixels that one of them reads."""
    with mpl.rc_context(SETTINGS):
        figure = new_figure(2, 42)
        *shapes, moved, sampled = figure.subplots(1, len(SHAPES) + 2)
        for axis, count in zip(shapes, SHAPES, strict=True):
            _grid(axis, f"N = {count}", 5)
            rows, columns = np.array(base_points(count)).T + 1
            axis.plot(columns, rows, "s", ms=6, mfc="none", mec=BLUE, mew=1.3)
        _grid(moved, "N = 5, Δ", 5)
        start = np.array(base_points(5)) + 1.0
        for (row, column), (down, right) in zip(start, OFFSETS, strict=True):
            moved.plot((column, column + right), (row, row + down), color=GREY, lw=0.9)
        moved.plot(*start.T[::-1], "s", ms=6, mfc="none", mec=BLUE, mew=1.3)
        moved.plot(*(start + OFFSETS).T[::-1], "o", ms=5, color=ORANGE)
        _grid(sampled, "Σ w X", 4)
        row, column = SAMPLE
        for r in (int(row), int(row) + 1):
            for c in (int(column), int(column) + 1):
                weight = (1 - abs(row - r)) * (1 - abs(column - c))
                sampled.add_patch(Rectangle((c - 0.5, r - 0.5), 1, 1, fc=ORANGE, alpha=0.1 + 0.7 * weight, ec="none"))
                sampled.text(c, r + (0.38 if r == int(row) + 1 else -0.2), f"{weight:.2f}", ha="center", fontsize=6)
        sampled.plot(column, row, "o", ms=5, color=ORANGE, mec="white", mew=0.8)
        save_figure(figure, path)


if __name__ == "__main__":
    draw(ROOT / "docs/images/akconv.svg")
