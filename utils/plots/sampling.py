"""Where AKConv samples: initial and learned sampling points on an image, and histograms of offsets by layer."""

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

from utils.plots.figure import save_figure
from utils.plots.style import BLUE, ORANGE
from utils.plots.translations import translate

HEIGHT = 6.0  # inches, of the image and of the details next to it
MAX_ASPECT = 2.2  # of the image's panel, width over height
MIN_RADIUS = 2.5  # pixels of the map that details show around a position
MAX_GRID_RADIUS = 20  # in larger details the grid would hide the image
BINS = 61
DPI = 120
OUTSIDE_COLOUR = "#e9ebef"


@dataclass(frozen=True, kw_only=True)
class SampledPosition:
    """The points that one output pixel samples.

    Attributes:
        label: a short text, may be "".
        initial_xy: (N, 2) x and y in pixels of the image; points may lie outside it.
        learned_xy: (N, 2), the initial points moved by the offsets.
    """

    label: str
    initial_xy: np.ndarray
    learned_xy: np.ndarray


@dataclass(frozen=True, kw_only=True)
class OffsetSamples:
    """The offsets of one layer.

    Attributes:
        name: of the layer.
        rows: row offsets of any shape, in pixels of the layer's map.
        columns: column offsets of any shape.
        abs_mean: mean absolute offset over all output pixels and both axes.
        oob_fraction: fraction of points outside the map.
        initial_oob_fraction: fraction of initial points outside the map.
    """

    name: str
    rows: np.ndarray
    columns: np.ndarray
    abs_mean: float
    oob_fraction: float
    initial_oob_fraction: float


def plot_sampling(
    image: np.ndarray,
    positions: Sequence[SampledPosition],
    *,
    title: str,
    cell_wh: tuple[float, float],
    map_xyxy: tuple[float, float, float, float],
    path: Path | str,
    lang: str = "en",
) -> Path:
    """Draw the points of one or more positions on an image, and each position enlarged next to it.

    Args:
        image: (H, W, 3) uint8 RGB.
        positions: at least one.
        title: of the figure.
        cell_wh: width and height of a pixel of the layer's map, in pixels of the image.
        map_xyxy: corners of the map, in pixels of the image.
        path: output file.
        lang: language of the words.
    """
    height, width = image.shape[:2]
    columns = math.ceil(math.sqrt(len(positions)))
    rows = math.ceil(len(positions) / columns)
    left = HEIGHT * min(max(width / height, 0.5), MAX_ASPECT)
    right = HEIGHT * columns / rows
    figure = Figure(figsize=(left + right, HEIGHT + 1.1), dpi=DPI, layout="constrained")
    overview, details = np.asarray(figure.subfigures(1, 2, width_ratios=(left, right)))
    axis = overview.subplots()
    axis.imshow(image, extent=(0, width, height, 0))
    for index, position in enumerate(positions, 1):
        _draw_points(axis, position, size=4.5)
        _draw_index(axis, position, index)
    axis.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    radius = _detail_radius(positions, cell_wh, image.shape[:2])
    panels = np.atleast_1d(details.subplots(rows, columns)).ravel()
    for index, (panel, position) in enumerate(zip(panels, positions, strict=False), 1):
        _draw_detail(panel, image, position, cell_wh=cell_wh, map_xyxy=map_xyxy, radius=radius)
        panel.set_title(f"{index}  {position.label}".rstrip(), fontsize=9)
    for panel in panels[len(positions) :]:
        panel.set_axis_off()
    sides = (f"{side:.3g}" for side in cell_wh)
    scale = translate("one pixel of the map (white grid) is {} x {} pixels of the image", lang, *sides)
    figure.suptitle(f"{title}\n{scale}", fontsize=10.5)
    figure.legend(handles=_legend(lang), loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    return save_figure(figure, path)


def _draw_index(axis: Axes, position: SampledPosition, index: int) -> None:
    """Write a position's index above its initial points."""
    xy = (float(position.initial_xy[:, 0].mean()), float(position.initial_xy[:, 1].min()))
    text = axis.annotate(
        str(index), xy, xytext=(0, 8), textcoords="offset points", ha="center", va="bottom", annotation_clip=True
    )
    text.set(fontsize=11, fontweight="bold", color="white", zorder=10)
    text.set_path_effects([effects.withStroke(linewidth=3, foreground="black")])


def _draw_points(axis: Axes, position: SampledPosition, *, size: float) -> None:
    """Draw initial points as squares, learned points as circles, and a line between each two that are finite."""
    lines = np.stack((position.initial_xy, position.learned_xy), 1)  # (N, 2 ends, 2)
    lines = lines[np.isfinite(lines).all((1, 2))]
    for colour, thickness in (("black", size / 2.2), ("white", size / 5)):
        axis.add_collection(LineCollection(list(lines), colors=colour, linewidths=thickness, zorder=3), autolim=False)
    axis.plot(*position.initial_xy.T, "s", ms=size + 2, mfc="none", mec="white", mew=size / 2.4, zorder=4)
    axis.plot(*position.initial_xy.T, "s", ms=size + 2, mfc="none", mec=BLUE, mew=size / 4.5, zorder=5)
    axis.plot(*position.learned_xy.T, "o", ms=size, mfc=ORANGE, mec="white", mew=size / 7, zorder=6)


def _detail_radius(positions: Sequence[SampledPosition], cell_wh: tuple[float, float], size_hw: Sequence[int]) -> float:
    """Return how far details show the map around a position, in pixels of the map: equal for all positions."""
    farthest = 0.0
    for position in positions:
        learned = position.learned_xy[np.isfinite(position.learned_xy).all(-1)]
        points = np.concatenate((learned, position.initial_xy))
        distances = np.abs(points - position.initial_xy.mean(0)) / cell_wh
        farthest = max(farthest, float(distances.max()) + 0.75)
    return min(max(farthest, MIN_RADIUS), max(size_hw) / min(cell_wh))


def _draw_detail(
    axis: Axes,
    image: np.ndarray,
    position: SampledPosition,
    *,
    cell_wh: tuple[float, float],
    map_xyxy: tuple[float, float, float, float],
    radius: float,
) -> None:
    """Draw the surroundings of one position, with the grid of the map's pixels and the map's border."""
    height, width = image.shape[:2]
    x, y = position.initial_xy.mean(0)
    half_w, half_h = radius * cell_wh[0], radius * cell_wh[1]
    left, right = max(math.floor(x - half_w), 0), min(math.ceil(x + half_w), width)
    top, bottom = max(math.floor(y - half_h), 0), min(math.ceil(y + half_h), height)
    axis.set_facecolor(OUTSIDE_COLOUR)
    if right > left and bottom > top:
        axis.imshow(image[top:bottom, left:right], extent=(left, right, bottom, top))
    x1, y1, x2, y2 = map_xyxy
    if radius < MAX_GRID_RADIUS:
        axis.vlines(_grid_lines(x1, x2, cell_wh[0]), y1, y2, color="white", linewidth=0.6, alpha=0.45)
        axis.hlines(_grid_lines(y1, y2, cell_wh[1]), x1, x2, color="white", linewidth=0.6, alpha=0.45)
    border = Rectangle(
        (x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor="black", linewidth=1.6, linestyle="--", zorder=2
    )
    axis.add_patch(border)
    _draw_points(axis, position, size=min(max(30 / radius, 4.0), 7.5))
    axis.set(xlim=(x - half_w, x + half_w), ylim=(y + half_h, y - half_h), xticks=[], yticks=[])


def _grid_lines(start: float, end: float, cell: float) -> np.ndarray:
    return np.arange(start, end + cell / 2, cell)


def _legend(lang: str) -> list[Line2D]:
    outlined = [effects.withStroke(linewidth=3.4, foreground="black")]
    lines = {
        "initial shape": Line2D([], [], linestyle="", marker="s", ms=8, mfc="none", mec=BLUE, mew=1.8),
        "learned shape": Line2D([], [], linestyle="", marker="o", ms=7, mfc=ORANGE, mec="white"),
        "offset": Line2D([], [], color="white", linewidth=1.5, path_effects=outlined),
        "border of the map": Line2D([], [], color="black", linewidth=1.6, linestyle="--"),
    }
    for name, line in lines.items():
        line.set_label(translate(name, lang))
    return list(lines.values())


def plot_offsets(layers: Sequence[OffsetSamples], path: Path | str, *, note: str = "", lang: str = "en") -> Path:
    """Draw a histogram of row and of column offsets per layer; the outermost bars include all larger offsets."""
    columns = min(4, len(layers))
    rows = math.ceil(len(layers) / columns)
    figure = Figure(figsize=(3.7 * max(columns, 2), 2.85 * rows + 0.9), dpi=DPI, layout="constrained")
    axes = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    for axis, layer in zip(axes, layers, strict=False):
        limit = _histogram_limit(layer)
        edges = np.linspace(-limit, limit, BINS + 1)
        for offsets, colour, label in ((layer.rows, BLUE, "rows"), (layer.columns, ORANGE, "columns")):
            finite = offsets[np.isfinite(offsets)]
            counts, _ = np.histogram(np.clip(finite, -limit, limit), edges)
            fractions = counts / max(finite.size, 1)
            axis.stairs(fractions, edges, fill=True, color=colour, alpha=0.30)
            axis.stairs(fractions, edges, color=colour, linewidth=1.3, label=translate(label, lang))
        axis.axvline(0, color="#444444", linewidth=0.8)
        mean = translate("mean |offset| {} px", lang, f"{layer.abs_mean:.3g}")
        fractions_outside = (f"{fraction:.1%}" for fraction in (layer.oob_fraction, layer.initial_oob_fraction))
        outside = translate("outside {}, initially {}", lang, *fractions_outside)
        axis.set_title(f"{layer.name}\n{mean}\n{outside}", fontsize=9)
        axis.set_xlim(-limit, limit)
        axis.set_ylim(bottom=0)
        axis.locator_params(nbins=5)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[len(layers) :]:
        axis.set_axis_off()
    x_label = "offset in pixels of the layer's map (outermost bars include larger offsets)"
    figure.supxlabel(translate(x_label, lang), fontsize=9)
    figure.supylabel(translate("fraction of points", lang), fontsize=9)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=2, fontsize=9, frameon=False)
    if note:
        figure.suptitle(note, fontsize=10, x=0.01, ha="left")
    return save_figure(figure, path)


def _histogram_limit(layer: OffsetSamples) -> float:
    """Return the 98th percentile of a layer's absolute offsets, at least 0.1 pixels of its map."""
    magnitudes = np.abs(np.concatenate((layer.rows.ravel(), layer.columns.ravel())))
    magnitudes = magnitudes[np.isfinite(magnitudes)]
    return max(float(np.quantile(magnitudes, 0.98)) if magnitudes.size else 0.0, 0.1)
