"""Where AKConv samples: initial against learned points on an image, and how offsets are spread in each layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.patheffects as effects
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from utils.plots.figure import BLUE, ORANGE, save_figure
from utils.plots.fonts import families

HEIGHT = 6.0  # inches of the image and of the details beside it
WIDEST = 2.2  # width of the image over its height at most
LEAST_REACH = 2.5  # pixels of the map shown around a position at least
BINS = 61
BEYOND = "#e9ebef"
INITIAL, LEARNED = "initial shape", "learned shape"


@dataclass(frozen=True, kw_only=True)
class SampledPosition:
    """The points that one output pixel samples.

    Attributes:
        label: what is there, may be empty.
        initial_xy: (N, 2) x and y in pixels of the image, not cut at its borders.
        learned_xy: (N, 2) likewise, moved by the offsets.
    """

    label: str
    initial_xy: np.ndarray
    learned_xy: np.ndarray


@dataclass(frozen=True, kw_only=True)
class OffsetSpread:
    """The offsets of one layer.

    Attributes:
        name: of the layer.
        rows: row offsets of any shape, in pixels of its map.
        columns: column offsets likewise.
        mean: mean absolute offset over all output pixels, both axes together.
        outside: share of the points outside the map.
        began_outside: share of the initial points there.
    """

    name: str
    rows: np.ndarray
    columns: np.ndarray
    mean: float
    outside: float
    began_outside: float


def plot_sampling(
    image: np.ndarray,
    positions: Sequence[SampledPosition],
    *,
    title: str,
    cell_wh: tuple[float, float],
    map_xyxy: tuple[float, float, float, float],
    path: Path | str,
) -> Path:
    """Draw the points of some positions on an image, and each position large beside it.

    Args:
        image: (H, W, 3) uint8 RGB.
        positions: one or more.
        title: above all.
        cell_wh: width and height of a pixel of the layer's map in pixels of the image.
        map_xyxy: the corners of the map in pixels of the image.
        path: where to write.
    """
    height, width = image.shape[:2]
    columns = math.ceil(math.sqrt(len(positions)))
    rows = math.ceil(len(positions) / columns)
    left = HEIGHT * min(max(width / height, 0.5), WIDEST)
    right = HEIGHT * columns / rows
    figure = Figure(figsize=(left + right, HEIGHT + 1.1), layout="constrained")
    overview, details = np.asarray(figure.subfigures(1, 2, width_ratios=(left, right)))
    axis = overview.subplots()
    axis.imshow(image, extent=(0, width, height, 0))
    for number, position in enumerate(positions, 1):
        _draw_points(axis, position, size=4.5)
        _number(axis, position, number)
    axis.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    reach = _reach(positions, cell_wh, image.shape[:2])
    panels = np.atleast_1d(details.subplots(rows, columns)).ravel()
    for number, (panel, position) in enumerate(zip(panels, positions, strict=False), 1):
        _draw_detail(panel, image, position, cell_wh=cell_wh, map_xyxy=map_xyxy, reach=reach)
        text = f"{number}  {position.label}".rstrip()
        panel.set_title(text, fontsize=9, fontfamily=families([text]))
    for panel in panels[len(positions) :]:
        panel.set_axis_off()
    scale = f"one pixel of the map (white grid) is {cell_wh[0]:.3g} x {cell_wh[1]:.3g} pixels of the image"
    figure.suptitle(f"{title}\n{scale}", fontsize=10.5)
    figure.legend(handles=_legend(), loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    return save_figure(figure, path)


def _number(axis: Axes, position: SampledPosition, number: int) -> None:
    """Write a position's number above its initial points."""
    text = axis.annotate(
        str(number),
        (float(position.initial_xy[:, 0].mean()), float(position.initial_xy[:, 1].min())),
        xytext=(0, 8),
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize=11,
        fontweight="bold",
        color="white",
        annotation_clip=True,
        zorder=10,
    )
    text.set_path_effects([effects.withStroke(linewidth=3, foreground="black")])


def _finite(points: np.ndarray) -> np.ndarray:
    return points[np.isfinite(points).all(-1)]


def _draw_points(axis: Axes, position: SampledPosition, *, size: float) -> None:
    """Draw both shapes, and a line from each initial point to where it was moved."""
    lines = np.stack((position.initial_xy, position.learned_xy), 1)  # (N, 2 ends, 2)
    lines = lines[np.isfinite(lines).all((1, 2))]
    for colour, thickness in (("black", size / 2.2), ("white", size / 5)):
        axis.add_collection(LineCollection(list(lines), colors=colour, linewidths=thickness, zorder=3), autolim=False)
    axis.plot(*position.initial_xy.T, "s", ms=size + 2, mfc="none", mec="white", mew=size / 2.4, zorder=4)
    axis.plot(*position.initial_xy.T, "s", ms=size + 2, mfc="none", mec=BLUE, mew=size / 4.5, zorder=5)
    axis.plot(*position.learned_xy.T, "o", ms=size, mfc=ORANGE, mec="white", mew=size / 7, zorder=6)


def _reach(positions: Sequence[SampledPosition], cell_wh: tuple[float, float], size_hw: Sequence[int]) -> float:
    """Return how far details show the map around a position, in its pixels: alike for all, so that they compare."""
    farthest = 0.0
    for position in positions:
        moved = np.abs(_finite(position.learned_xy) - position.initial_xy.mean(0)) / cell_wh
        began = np.abs(position.initial_xy - position.initial_xy.mean(0)) / cell_wh
        farthest = max(farthest, float(np.concatenate((moved, began)).max()) + 0.75)
    return min(max(farthest, LEAST_REACH), max(size_hw) / min(cell_wh))


def _draw_detail(
    axis: Axes,
    image: np.ndarray,
    position: SampledPosition,
    *,
    cell_wh: tuple[float, float],
    map_xyxy: tuple[float, float, float, float],
    reach: float,
) -> None:
    """Draw what lies around one position, with the borders of the map's pixels, and of the map itself."""
    height, width = image.shape[:2]
    x, y = position.initial_xy.mean(0)
    half_w, half_h = reach * cell_wh[0], reach * cell_wh[1]
    low_x, high_x = max(math.floor(x - half_w), 0), min(math.ceil(x + half_w), width)
    low_y, high_y = max(math.floor(y - half_h), 0), min(math.ceil(y + half_h), height)
    axis.set_facecolor(BEYOND)
    if high_x > low_x and high_y > low_y:
        axis.imshow(image[low_y:high_y, low_x:high_x], extent=(low_x, high_x, high_y, low_y))
    for start, end, cell, line, low, high in (
        (map_xyxy[0], map_xyxy[2], cell_wh[0], axis.vlines, map_xyxy[1], map_xyxy[3]),
        (map_xyxy[1], map_xyxy[3], cell_wh[1], axis.hlines, map_xyxy[0], map_xyxy[2]),
    ):
        if reach < 20:  # beyond, they would hide the image
            line(np.arange(start, end + cell / 2, cell), low, high, color="white", linewidth=0.6, alpha=0.45)
    corner, size = map_xyxy[:2], (map_xyxy[2] - map_xyxy[0], map_xyxy[3] - map_xyxy[1])
    axis.add_patch(Rectangle(corner, *size, fill=False, edgecolor="black", linewidth=1.6, linestyle="--", zorder=2))
    _draw_points(axis, position, size=min(max(30 / reach, 4.0), 7.5))
    axis.set(xlim=(x - half_w, x + half_w), ylim=(y + half_h, y - half_h), xticks=[], yticks=[])


def _legend() -> list[Line2D]:
    outlined = [effects.withStroke(linewidth=3.4, foreground="black")]
    return [
        Line2D([], [], linestyle="", marker="s", ms=8, mfc="none", mec=BLUE, mew=1.8, label=INITIAL),
        Line2D([], [], linestyle="", marker="o", ms=7, mfc=ORANGE, mec="white", label=LEARNED),
        Line2D([], [], color="white", linewidth=1.5, path_effects=outlined, label="offset"),
        Line2D([], [], color="black", linewidth=1.6, linestyle="--", label="border of the map"),
    ]


def plot_offsets(layers: Sequence[OffsetSpread], path: Path | str, *, note: str = "") -> Path:
    """Draw a histogram for each layer, row and column offsets apart; the outermost bars hold all that lies beyond."""
    columns = min(4, len(layers))
    rows = math.ceil(len(layers) / columns)
    figure = Figure(figsize=(3.7 * max(columns, 2), 2.85 * rows + 0.9), layout="constrained")
    axes = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    for axis, layer in zip(axes, layers, strict=False):
        reach = _spread(layer)
        edges = np.linspace(-reach, reach, BINS + 1)
        for values, colour, label in ((layer.rows, BLUE, "rows"), (layer.columns, ORANGE, "columns")):
            numbers = values[np.isfinite(values)]
            counts, _ = np.histogram(np.clip(numbers, -reach, reach), edges)
            shares = counts / max(numbers.size, 1)
            axis.stairs(shares, edges, fill=True, color=colour, alpha=0.30)
            axis.stairs(shares, edges, color=colour, linewidth=1.3, label=label)
        axis.axvline(0, color="#444444", linewidth=0.8)
        moved = f"mean |offset| {layer.mean:.3g} px\noutside {layer.outside:.1%}, initially {layer.began_outside:.1%}"
        axis.set_title(f"{layer.name}\n{moved}", fontsize=9)
        axis.set_xlim(-reach, reach)
        axis.set_ylim(bottom=0)
        axis.locator_params(nbins=5)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[len(layers) :]:
        axis.set_axis_off()
    figure.supxlabel("offset in pixels of the layer's map (outermost bars: all beyond)", fontsize=9)
    figure.supylabel("share of points", fontsize=9)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=2, fontsize=9, frameon=False)
    if note:
        figure.suptitle(note, fontsize=10, x=0.01, ha="left", fontfamily=families([note]))
    return save_figure(figure, path)


def _spread(layer: OffsetSpread) -> float:
    """Return how far a layer's histogram reaches to both sides, in pixels: 98 of 100 offsets, a tenth at least."""
    both = np.abs(np.concatenate((layer.rows.ravel(), layer.columns.ravel())))
    both = both[np.isfinite(both)]
    return max(float(np.quantile(both, 0.98)) if both.size else 0.0, 0.1)
