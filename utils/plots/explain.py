"""What utils.explain shows: maps over an image, feature maps as a grid, effective receptive fields and their energy.

The colour maps are perceptually uniform and readable in greyscale and with any colour vision.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import BoundaryNorm, ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from utils.plots.fonts import shorten
from utils.plots.style import (
    COLOURS,
    MM_PER_INCH,
    WIDTH_MM,
    entry,
    model_names,
    new_figure,
    series_colour,
    series_line,
    styled,
)
from utils.plots.translations import translate

HEAT = mpl.colormaps["inferno"]
OPACITY = 0.85  # of a map over the greyscale image, from `OPAQUE_FROM` of its maximum; below it fades
OPAQUE_FROM = 0.4
PREDICTED = COLOURS[5]  # sky blue, which the colour map lacks
REGIONS = ("#1b0c41", "#a52c60", "#fb9b06", "#f6f6f6")  # of the colour map, for up to three fractions and the rest
MAX_PANEL_MM = 60.0
LINE_MM, GAP_MM, BAR_MM = 3.3, 3.0, 14.0  # a title's line, between panels, the colour bar with its labels
LETTER_MM = 1.7  # of a title with 8 points

# By model and layer (H, W): the smallest fraction of the energy held by a region that includes each pixel.
Fields = Mapping[str, Mapping[str, np.ndarray]]


@dataclass(frozen=True, kw_only=True)
class ModelMaps:
    """What a model detects in an image, and its maps."""

    model: str
    text: str  # class and score
    box: np.ndarray | None  # x1, y1, x2, y2 of the prediction that is explained
    maps: Sequence[tuple[str, np.ndarray | None]]  # titles, and maps (H, W) in [0, 1]; None: there is no map


def _panels(rows: int, columns: int, size_hw: Sequence[int], *, lines: int) -> tuple[Figure, np.ndarray]:
    """Return a figure of one or two columns, and rows x columns axes for images of a size with titles of some lines."""
    width = 1 if columns * MAX_PANEL_MM <= 1.5 * WIDTH_MM[1] else 2
    panel_mm = min(WIDTH_MM[width] / columns - GAP_MM, MAX_PANEL_MM) * size_hw[0] / size_hw[1]
    figure = new_figure(width, rows * (panel_mm + LINE_MM * lines + GAP_MM) + BAR_MM)
    figure.set_layout_engine("compressed")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.ravel():
        axis.set(xticks=[], yticks=[])
        axis.grid(visible=False)
        axis.spines[:].set_visible(True)
    return figure, axes


def _set_titles(axes: np.ndarray, titles: Sequence[str]) -> None:
    """Set the titles of (rows, columns) panels, row by row, in a size that fits their width."""
    panel_mm = MM_PER_INCH * axes[0, 0].figure.get_figwidth() / axes.shape[1]
    size = min(max(panel_mm / 4, 5.0), 8.0)
    letters = int(panel_mm / (LETTER_MM * size / 8))
    for axis, title in zip(axes.ravel(), titles, strict=False):
        axis.set_title("\n".join(shorten(line, letters) for line in title.split("\n")), fontsize=size)


def _colour_bar(figure: Figure, axes: np.ndarray, colours: ScalarMappable, label: str) -> Colorbar:
    """Add a colour bar below all panels."""
    return figure.colorbar(colours, ax=axes, location="bottom", label=label, shrink=0.7, aspect=45, pad=0.02)


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Return a map (H, W) in [0, 1] over the greyscale version of an (H, W, 3) uint8 image, as RGB in [0, 1]."""
    grey = image.mean(2, keepdims=True) / 255
    opacity = OPACITY * (heat / OPAQUE_FROM).clip(0, 1)[..., None]
    return (1 - opacity) * grey + opacity * HEAT(heat)[..., :3]


@styled
def plot_maps(
    image: np.ndarray, models: Sequence[ModelMaps], *, method: str, truth_xyxy: np.ndarray, lang: str = "en"
) -> Figure:
    """Draw a row per model: the (H, W, 3) uint8 RGB image, and its maps over the greyscale version.

    `truth_xyxy` are (n, 4) boxes of the labelled objects that are meant, drawn solid; the prediction's is dashed.
    """
    figure, axes = _panels(len(models), 1 + len(models[0].maps), image.shape[:2], lines=2)
    titles = []
    for row, model, name in zip(axes, models, model_names([model.model for model in models]), strict=True):
        titles += [f"{name}\n{model.text}", *(title for title, _ in model.maps)]
        row[0].imshow(image)
        for axis, (_, heat) in zip(row[1:], model.maps, strict=True):
            axis.imshow(overlay(image, np.zeros(image.shape[:2]) if heat is None else heat))
        for axis in row:
            _draw_boxes(axis, truth_xyxy, "white", "-")
            _draw_boxes(axis, [] if model.box is None else [model.box], PREDICTED, "--")
    _set_titles(axes, titles)
    shown = ListedColormap(overlay(np.full((1, 256, 3), 128, np.uint8), np.linspace(0, 1, 256)[None])[0])
    boxes = ["solid labelled"] if len(truth_xyxy) else []
    boxes += ["dashed predicted"] if any(model.box is not None for model in models) else []
    label = translate("{}, 1: maximum of each map", lang, method)
    if boxes:
        label += "\n" + translate("boxes: {}", lang, ", ".join(translate(box, lang) for box in boxes))
    _colour_bar(figure, axes, ScalarMappable(Normalize(0, 1), shown), label)
    return figure


def _draw_boxes(axis: Axes, boxes_xyxy: Sequence[np.ndarray] | np.ndarray, colour: str, style: str) -> None:
    """Outline boxes with a line that is visible on any ground."""
    for x1, y1, x2, y2 in boxes_xyxy:
        for line, width, form in (("black", 1.8, "-"), (colour, 0.9, style)):
            place = (x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1
            axis.add_patch(Rectangle(*place, fill=False, ec=line, lw=width, ls=form))


@styled
def plot_feature_maps(maps: np.ndarray, channels: Sequence[int], *, title: str) -> Figure:
    """Draw (n, h, w) maps of channels as a grid, each scaled from its minimum to its maximum."""
    columns = math.ceil(math.sqrt(len(maps)))
    figure, axes = _panels(math.ceil(len(maps) / columns), columns, maps.shape[1:], lines=1)
    for axis in axes.ravel()[len(maps) :]:
        axis.set_axis_off()
    for axis, values in zip(axes.ravel(), maps, strict=False):
        axis.imshow(values, cmap="viridis")
    _set_titles(axes, [f"channel {channel}" for channel in channels])
    bar = _colour_bar(figure, axes, ScalarMappable(Normalize(0, 1), "viridis"), title)
    bar.set_ticks([0, 1], labels=["minimum", "maximum"])
    return figure


@styled
def plot_receptive_fields(
    fields: Fields, *, fractions: Sequence[float], position: tuple[float, float], lang: str = "en"
) -> Figure:
    """Draw the regions that hold given fractions of the energy, a row per model and a column per layer.

    `fractions` are three, ascending, in (0, 1); `position`, x and y as fractions of the input, is marked by a cross.
    """
    of_models = [list(of_model.items()) for of_model in fields.values()]
    height, width = of_models[0][0][1].shape
    figure, axes = _panels(len(of_models), len(of_models[0]), (height, width), lines=2)
    bounds = [0.0, *fractions, 1.0]
    colours = ListedColormap(REGIONS)
    norm = BoundaryNorm(bounds, colours.N)
    titles = []
    for row, model, of_model in zip(axes, model_names(list(fields)), of_models, strict=True):
        for axis, (layer, levels) in zip(row, of_model, strict=True):
            axis.imshow(levels, cmap=colours, norm=norm, interpolation="nearest")
            axis.plot(position[0] * width - 0.5, position[1] * height - 0.5, "+", ms=7, mew=1, color=PREDICTED)
            titles.append(f"{model}\n{layer}")
    _set_titles(axes, titles)
    label = translate("energy held by the strongest pixels", lang)
    bar = _colour_bar(figure, axes, ScalarMappable(norm, colours), label)
    bar.set_ticks(bounds, labels=[f"{bound:.0%}" for bound in bounds])
    return figure


@styled
def plot_field_energy(fields: Fields) -> Figure:
    """Draw the energy held by the strongest pixels over their area; a model has a colour, a layer a line style."""
    appearances: dict[tuple[str, str], dict[str, Any]] = {
        (model, layer): {"color": series_colour(number), "linestyle": series_line(column)}
        for number, (model, of_model) in enumerate(fields.items())
        for column, layer in enumerate(of_model)
    }
    shown = dict(zip(fields, model_names(list(fields)), strict=True))
    entries = [entry(f"{shown[model]}  {layer}", **appearance) for (model, layer), appearance in appearances.items()]
    figure = new_figure(2, 75, entries)
    axis = figure.subplots()
    for (model, layer), appearance in appearances.items():
        held = np.sort(fields[model][layer], axis=None)
        axis.plot(np.arange(1, held.size + 1) / held.size, held, **appearance)
    axis.set(xlabel="area, fraction of the input", ylabel="energy held", xscale="log", ylim=(0, 1.02))
    axis.xaxis.set_major_formatter("{x:g}")
    return figure
