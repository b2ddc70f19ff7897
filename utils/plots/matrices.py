"""Confusion matrices: counts beside fractions of one evaluation, and the fractions of several models side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from utils.plots.figure import save_figure
from utils.plots.fonts import display_names
from utils.plots.style import DPI, MM_PER_INCH, WIDTH_MM, model_names, new_figure, styled, ticks
from utils.plots.translations import translate
from utils.text_table import display_width

MAX_WITH_VALUES = 30  # classes, up to which the value is written into each cell
MAX_WITH_NAMES = 100
MAX_CELL_MM, MAX_SIDE_MM = 15.5, 180.0
POINTS_PER_VALUE_MM, POINTS_PER_NAME_MM = 1.15, 2.5  # font size by the size of a cell
MIN_VALUE_MM, MIN_NAME_MM = 6 / POINTS_PER_VALUE_MM, 6 / POINTS_PER_NAME_MM  # print needs 6 points
MARGIN_MM = 25.0  # beside the matrices, with the scale, without the names of classes
LETTER_MM = 1.45
ROW_OF_MODELS = 3


@styled
def plot_confusion(
    counts: np.ndarray, normalized: np.ndarray, names: Sequence[str], path: Path | str, *, note: str = ""
) -> None:
    """Draw the (c + 1, c + 1) counts and column fractions: rows predicted, columns true, background last."""
    labels = [*display_names(names), "background"]
    cell_mm = min(MAX_CELL_MM, MAX_SIDE_MM / len(labels))
    names_mm = LETTER_MM * max(map(display_width, labels))
    width_mm = 2 * (max(cell_mm * len(labels), 60) + names_mm + 28)
    height_mm = (
        max(cell_mm * len(labels), 60) + (names_mm if _is_vertical(labels, cell_mm) else 4) + 18 + 6 * bool(note)
    )
    figure = Figure(figsize=(width_mm / MM_PER_INCH, height_mm / MM_PER_INCH), dpi=DPI, layout="compressed")
    shown = labels if len(labels) <= MAX_WITH_NAMES else []
    for axis, matrix, title, form in zip(
        figure.subplots(1, 2),
        (counts, normalized),
        ("counts", "normalized by column"),
        ("{:.0f}", "{:.2f}"),
        strict=True,
    ):
        # Background, often the most frequent by far, must not make all other cells pale.
        top = float(matrix[:-1, :-1].max(initial=0)) or max(float(matrix.max()), 1e-9)
        values = form if len(labels) <= MAX_WITH_VALUES else ""
        image = _draw(axis, matrix, shown, top=top, values=values, cell_mm=cell_mm)
        axis.set(title=title, xlabel="true (background: false positive)")
        axis.set_ylabel("predicted (background: false negative)")
        extend = "max" if matrix.max() > top else "neither"
        figure.colorbar(image, cax=axis.inset_axes((1.03, 0, 0.04, 1)), extend=extend)
    if note:
        figure.suptitle(note)
    save_figure(figure, path)


@styled
def confusions(
    names: Sequence[str], matrices: Sequence[np.ndarray], classes: Sequence[str], *, lang: str = "en"
) -> Figure:
    """Draw the (c + 1, c + 1) column fractions of several models on one scale; zero cells are white.

    Where the names of classes do not fit, their numbers from 0 stand on the axes, background last.
    """
    labels = [*display_names(classes), translate("background", lang)]
    columns = min(len(matrices), ROW_OF_MODELS)
    rows = math.ceil(len(matrices) / columns)
    label_mm = LETTER_MM * max(map(display_width, labels))
    width = 1 if len(matrices) == 1 and WIDTH_MM[1] - MARGIN_MM - label_mm > MIN_VALUE_MM * len(labels) else 2
    panel_mm = (WIDTH_MM[width] - MARGIN_MM - label_mm) / columns
    cell_mm = panel_mm / len(labels)
    shown = labels if cell_mm >= MIN_NAME_MM else []
    below_mm = label_mm if shown and _is_vertical(labels, cell_mm) else 4
    figure = new_figure(width, rows * (panel_mm + 5) + below_mm + 6)
    figure.set_layout_engine("compressed")
    axes = figure.subplots(rows, columns, squeeze=False)
    values = "{:.2f}" if cell_mm >= MIN_VALUE_MM else ""
    titles = model_names(names, max_letters=max(int(panel_mm / LETTER_MM), 12))
    for index, (axis, matrix, title) in enumerate(zip(axes.flat, matrices, titles, strict=False)):
        image = _draw(axis, matrix, shown, top=1, values=values, cell_mm=cell_mm)
        axis.set_title(title)
        is_lowest, is_first = index + columns >= len(matrices), index % columns == 0
        axis.tick_params(labelbottom=is_lowest, labelleft=is_first)
        if is_lowest:
            axis.set_xlabel(translate("true class" if shown else "number of the true class", lang))
        if is_first:
            axis.set_ylabel(translate("predicted class" if shown else "number of the predicted class", lang))
    for axis in axes.flat[len(matrices) :]:
        axis.set_axis_off()
    scale = axes[0, -1].inset_axes((1.05, 0, 0.05, 1))
    figure.colorbar(image, cax=scale, label=translate("share of the true class", lang))
    return figure


def _is_vertical(labels: Sequence[str], cell_mm: float) -> bool:
    return LETTER_MM * max(map(display_width, labels)) > cell_mm


def _draw(
    axis: Axes, matrix: np.ndarray, labels: Sequence[str], *, top: float, values: str, cell_mm: float
) -> AxesImage:
    """Draw one matrix; cells that are 0 stay white."""
    image = axis.imshow(np.where(matrix == 0, np.nan, matrix), cmap="Blues", vmin=0, vmax=top)
    axis.grid(visible=False)
    axis.spines[:].set_visible(True)
    size = min(7.0, POINTS_PER_NAME_MM * cell_mm)
    rotation = 90 if labels and _is_vertical(labels, cell_mm) else 0
    if labels:
        axis.set_xticks(range(len(labels)), labels, rotation=rotation, fontsize=size)
        axis.set_yticks(range(len(labels)), labels, fontsize=size)
    else:
        axis.xaxis.set_major_locator(ticks(6, integer=True))
        axis.yaxis.set_major_locator(ticks(6, integer=True))
    axis.tick_params(length=0)
    if values:
        size = min(7.0, POINTS_PER_VALUE_MM * cell_mm)
        for (row, column), value in np.ndenumerate(matrix):
            if value:
                colour = "white" if value > 0.55 * top else "black"
                axis.text(column, row, values.format(value), ha="center", va="center", fontsize=size, color=colour)
    return image
