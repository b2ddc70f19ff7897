"""What utils.explain shows: maps over an image, feature maps as a grid, effective receptive fields and their energy.

The colour map is perceptually uniform and readable in greyscale and with any colour vision.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import BoundaryNorm, ListedColormap, Normalize
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Rectangle

from utils.plots.figure import save_figure
from utils.plots.style import new_figure, series_colour, styled

COLOURS = mpl.colormaps["inferno"]
OPACITY = 0.85  # of a map over the greyscale image, from `OPAQUE_FROM` of its maximum; below it fades
OPAQUE_FROM = 0.4
PREDICTION_COLOUR = "#56b4e9"
REGION_COLOURS = ("#1b0c41", "#a52c60", "#fb9b06", "#f6f6f6")  # of the colour map, for up to three fractions
LINE_STYLES = ("-", "--", ":", "-.")
TITLE_SIZE = 8
STRIP = 0.66  # inches, height of the colour bar with its labels


@dataclass(frozen=True, kw_only=True)
class MapPanel:
    """A map over an image."""

    title: str
    heat: np.ndarray | None  # (H, W) in [0, 1]; None: there is no map
    box: np.ndarray | None = None  # x1, y1, x2, y2 of the prediction that is explained, drawn dashed


def _panels(
    count: int, columns: int, size_hw: Sequence[int], *, side: float, title: str = "", lines: int = 1
) -> tuple[Figure, list[Axes], SubFigure]:
    """Return a figure with panels for images of a size, those beyond `count` hidden, and a strip for a colour bar.

    The longer side of a panel is `side` inches; each has a title of `lines` lines.
    """
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    width, height = (max(length * side / max(size_hw), 1.2) for length in (size_hw[1], size_hw[0]))
    tall = rows * (height + 0.15 + 0.14 * lines) + (0.1 + 0.17 * len(title.splitlines()) if title else 0.0)
    figure = Figure(figsize=(max(columns * width, 4.5), tall + STRIP), layout="constrained")
    upper, strip = np.asarray(figure.subfigures(2, 1, height_ratios=(tall, STRIP)))
    axes = list(np.atleast_1d(upper.subplots(rows, columns)).ravel())
    for index, axis in enumerate(axes):
        axis.set(xticks=[], yticks=[])
        axis.set_visible(index < count)
    if title:
        upper.suptitle(title, fontsize=10)
    return figure, axes, strip


def _colour_bar(strip: SubFigure, colours: ScalarMappable, label: str) -> Colorbar:
    bar = strip.figure.colorbar(colours, cax=strip.add_axes((0.2, 0.62, 0.6, 0.22)), orientation="horizontal")
    bar.set_label(label, fontsize=TITLE_SIZE)
    bar.ax.tick_params(labelsize=TITLE_SIZE)
    return bar


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Return a map (H, W) in [0, 1] over the greyscale version of an (H, W, 3) uint8 image, as RGB in [0, 1]."""
    grey = image.mean(2, keepdims=True) / 255
    opacity = OPACITY * (heat / OPAQUE_FROM).clip(0, 1)[..., None]
    return (1 - opacity) * grey + opacity * COLOURS(heat)[..., :3]


def plot_maps(
    image: np.ndarray,
    panels: Sequence[MapPanel],
    path: Path,
    *,
    columns: int,
    title: str,
    truth_xyxy: np.ndarray,
) -> Path:
    """Draw an image, and maps over its greyscale version.

    Args:
        image: (H, W, 3) uint8 RGB.
        panels: the maps, row by row.
        path: output file.
        columns: maps per row.
        title: of the figure.
        truth_xyxy: (n, 4) boxes of the labelled objects that are meant, drawn solid.
    """
    rows = math.ceil(len(panels) / columns)
    count = rows * (columns + 1)
    figure, axes, strip = _panels(count, columns + 1, image.shape[:2], side=3.4, title=title, lines=2)
    for row in range(rows):
        first, *others = axes[row * (columns + 1) : (row + 1) * (columns + 1)]
        first.set_visible(row == 0)
        first.imshow(image)
        first.set_title("input", fontsize=TITLE_SIZE)
        _draw_boxes(first, truth_xyxy, None)
        for axis, panel in zip(others, panels[row * columns :], strict=False):
            axis.imshow(overlay(image, np.zeros(image.shape[:2]) if panel.heat is None else panel.heat))
            axis.set_title(panel.title + ("  no part in the score" if panel.heat is None else ""), fontsize=TITLE_SIZE)
            _draw_boxes(axis, truth_xyxy, panel.box)
    shown = ListedColormap(overlay(np.full((1, 256, 3), 128, np.uint8), np.linspace(0, 1, 256)[None])[0])
    label = "evidence, 1 = maximum of each map; solid: labelled, dashed: predicted box"
    _colour_bar(strip, ScalarMappable(Normalize(0, 1), shown), label)
    return save_figure(figure, path, dpi=150)


def _draw_boxes(axis: Axes, truth_xyxy: np.ndarray, predicted: np.ndarray | None) -> None:
    """Outline labelled boxes with a solid white line and a predicted one with a dashed line."""
    boxes = [(box, "white", "-") for box in truth_xyxy]
    boxes += [] if predicted is None else [(predicted, PREDICTION_COLOUR, "--")]
    for (x1, y1, x2, y2), colour, style in boxes:
        place = (x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1
        for line, width, form in (("black", 2.6, "-"), (colour, 1.3, style)):
            axis.add_patch(Rectangle(*place, fill=False, ec=line, lw=width, ls=form))


def plot_feature_maps(maps: np.ndarray, titles: Sequence[str], path: Path, *, title: str) -> Path:
    """Draw (n, h, w) maps as a grid, each scaled from its minimum to its maximum."""
    columns = math.ceil(math.sqrt(len(maps)))
    figure, axes, strip = _panels(len(maps), columns, maps.shape[1:], side=2.0, title=title)
    for axis, channel, text in zip(axes, maps, titles, strict=False):
        axis.imshow(channel, cmap="viridis")
        axis.set_title(text, fontsize=7)
    bar = _colour_bar(strip, ScalarMappable(Normalize(0, 1), "viridis"), "value in each channel")
    bar.set_ticks([0, 1], labels=["minimum", "maximum"])
    return save_figure(figure, path, dpi=150)


def plot_receptive_fields(
    levels: Sequence[np.ndarray],
    names: Sequence[tuple[str, str]],
    stem: Path,
    *,
    columns: int,
    fractions: Sequence[float],
    position: tuple[float, float],
) -> Path:
    """Draw the regions that hold given fractions of the energy, as `<stem>.png` and `<stem>.svg`; return the png.

    Args:
        levels: (H, W) each, the smallest fraction held by a region that includes each pixel.
        names: of the model and the layer, the title of each panel.
        stem: path without a suffix.
        columns: panels per row.
        fractions: three, ascending, in (0, 1).
        position: x and y as fractions of the input, marked by a cross.
    """
    height, width = levels[0].shape
    figure, axes, strip = _panels(len(levels), columns, (height, width), side=3.4)
    bounds = [0.0, *fractions, 1.0]
    colours = ListedColormap(REGION_COLOURS)
    norm = BoundaryNorm(bounds, colours.N)
    for axis, level, name in zip(axes, levels, names, strict=False):
        axis.imshow(level, cmap=colours, norm=norm, interpolation="nearest")
        axis.plot(position[0] * width - 0.5, position[1] * height - 0.5, "+", ms=9, mew=1.2, color=PREDICTION_COLOUR)
        axis.set_title("  ".join(name), fontsize=TITLE_SIZE)
    label = "energy of the effective receptive field, from its strongest pixels"
    bar = _colour_bar(strip, ScalarMappable(norm, colours), label)
    bar.set_ticks(bounds, labels=[f"{bound:.0%}" for bound in bounds])
    return _save_both(figure, stem)


def _save_both(figure: Figure, stem: Path) -> Path:
    """Write `<stem>.svg` and `<stem>.png`; return the latter."""
    save_figure(figure, stem.with_name(f"{stem.name}.svg"))
    return save_figure(figure, stem.with_name(f"{stem.name}.png"), dpi=150)


@styled
def plot_field_energy(levels: Sequence[np.ndarray], names: Sequence[tuple[str, str]], stem: Path) -> Path:
    """Draw the energy held by the strongest pixels over their area, as `<stem>.png` and `<stem>.svg`; return the png.

    Args:
        levels: (H, W) each, see `plot_receptive_fields`.
        names: of the model, which chooses the colour, and of the layer, which chooses the line style.
        stem: path without a suffix.
    """
    figure = new_figure(2, 110)
    axis = figure.subplots()
    models, layers = (list(dict.fromkeys(column)) for column in zip(*names, strict=True))
    for level, (model, layer) in zip(levels, names, strict=True):
        held = np.sort(level, axis=None)
        style = LINE_STYLES[layers.index(layer) % len(LINE_STYLES)]
        colour = series_colour(models.index(model))
        axis.plot(np.arange(1, held.size + 1) / held.size, held, style, color=colour, label=f"{model}  {layer}")
    axis.set(xlabel="area, fraction of the input", ylabel="energy held", xscale="log", ylim=(0, 1.02))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.legend(fontsize=TITLE_SIZE)
    return _save_both(figure, stem)
