"""Curves over epochs, over confidence and over recall, and fitness over hyperparameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from utils.plots.boxes import class_colour_hex
from utils.plots.figure import save_figure
from utils.plots.style import BLUE, GREY, ORANGE, add_legend, new_figure, series_line, styled, ticks

# Columns of results.csv that share a panel, such as a loss on both splits.
RESULT_PANELS = (
    ("train/box_loss", "val/box_loss"),
    ("train/obj_loss", "val/obj_loss"),
    ("train/cls_loss", "val/cls_loss"),
    ("metrics/precision", "metrics/recall"),
    ("metrics/mAP_0.5",),
    ("metrics/mAP_0.5:0.95",),
)
OFFSET_PANELS = ("akconv/offset_abs_mean", "akconv/oob_fraction")  # one per row, for models with AKConv
OFFSET_UNITS = {"akconv/offset_abs_mean": "px", "akconv/oob_fraction": "fraction"}
EVOLUTION_COLUMNS = 4
MAX_NAMED_CLASSES = 20
MEAN_COLOUR = "black"  # not in the palette of classes
CURVE_MM = 100.0


@styled
def plot_results(columns: Mapping[str, Sequence[float]], path: Path | str) -> None:
    """Draw the columns of results.csv over epochs; missing values leave gaps.

    Columns of AKConv's offsets get panels if they have any finite value.
    """
    rows: list[list[tuple[str, ...]]] = [list(RESULT_PANELS[:3]), list(RESULT_PANELS[3:])]
    if any(np.isfinite(columns.get(name, ())).any() for name in OFFSET_PANELS):
        for row, name in zip(rows, OFFSET_PANELS, strict=True):
            row.append((name,))
    figure = new_figure(2, 95)
    epochs = np.asarray(columns["epoch"], float)
    marker = "." if len(epochs) <= 30 else None
    for axis, names in zip(figure.subplots(2, len(rows[0])).ravel(), (n for row in rows for n in row), strict=True):
        for name, colour, style in zip(names, (BLUE, ORANGE), ("-", "--"), strict=False):
            axis.plot(
                epochs, np.asarray(columns[name], float), color=colour, linestyle=style, marker=marker, label=name
            )
        if len(names) > 1:
            axis.legend(fontsize=6, frameon=True, framealpha=0.8, edgecolor="none")
        shared = dict.fromkeys(name.split("/")[1] for name in names)
        axis.set_title(names[0] if len(names) == 1 else ", ".join(shared), fontsize=7)
        axis.set_ylabel(OFFSET_UNITS.get(names[0], ""))
        axis.xaxis.set_major_locator(ticks(5, integer=True))
    for axis in figure.axes[-len(rows[1]) :]:
        axis.set_xlabel("epoch")
    save_figure(figure, path)


@styled
def plot_evolution(searched: Mapping[str, Sequence[float]], fitness: Sequence[float], path: Path | str) -> None:
    """Draw a panel per hyperparameter that varies, with a dot per generation; a ring marks the fittest, if any.

    Args:
        searched: values of each hyperparameter, one per generation.
        fitness: of each generation.
        path: output file.
    """
    varied = {name: values for name, values in searched.items() if len(set(values)) > 1} or searched
    columns = min(len(varied), EVOLUTION_COLUMNS)
    rows = -(-len(varied) // columns)
    figure = new_figure(2, 12 + 32 * rows)
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True)
    best = max(range(len(fitness)), key=lambda i: fitness[i])
    for axis, (name, values) in zip(axes.ravel(), varied.items(), strict=False):
        dots = axis.scatter(values, fitness, c=range(1, len(fitness) + 1), cmap="viridis", s=9, alpha=0.8)
        if min(fitness) < max(fitness):
            axis.scatter([values[best]], [fitness[best]], s=60, facecolors="none", edgecolors=ORANGE, linewidths=1.4)
        axis.set_title(f"{name}\n{values[best]:.3g}", fontsize=7)
        axis.margins(0.15)
        axis.xaxis.set_major_locator(ticks(2))
        axis.xaxis.set_major_formatter(StrMethodFormatter("{x:.3g}"))
    for axis in axes.ravel()[len(varied) :]:
        axis.set_axis_off()
    for axis in axes[:, 0]:
        axis.set_ylabel("fitness")
    figure.colorbar(dots, ax=axes, label="generation", aspect=40, ticks=ticks(6, integer=True))
    save_figure(figure, path)


@styled
def plot_confidence_curve(
    confidences: np.ndarray, curves: np.ndarray, names: Sequence[str], *, label: str, best: float, path: Path | str
) -> None:
    """Draw a metric over the confidence threshold: thin lines for classes, a thick one for their mean.

    Args:
        confidences: (k,).
        curves: (c, k), nan where a precision is undefined, because a class has no detection left; it counts as 1.
        names: of the c classes.
        label: of the metric, such as "F1".
        best: confidence threshold of the best mean F1, which is marked.
        path: output file.
    """
    figure = new_figure(2, CURVE_MM)
    axis = figure.subplots()
    entries = _draw_classes(axis, confidences, curves, names)
    entries += [(axis.plot(confidences, curves.mean(0), color=MEAN_COLOUR, linewidth=2.2)[0], "all classes")]
    height = float(np.interp(best, confidences, np.nan_to_num(curves, nan=1.0).mean(0)))
    axis.axvline(best, color=MEAN_COLOUR, linewidth=0.8, linestyle="--")
    point = axis.plot([best], [height], "o", color=MEAN_COLOUR)[0]
    entries += [(point, f"{label} {height:.2f} at the\nbest threshold {best:.3f}")]
    _finish(figure, axis, "confidence", label, entries)
    save_figure(figure, path)


@styled
def plot_precision_recall(curves: np.ndarray, ap50: np.ndarray, names: Sequence[str], path: Path | str) -> None:
    """Draw precision over recall at IoU 0.5.

    Args:
        curves: (c, k) precision at k evenly spaced recalls from 0 to 1.
        ap50: (c,) average precision.
        names: of the c classes.
        path: output file.
    """
    figure = new_figure(2, CURVE_MM)
    axis = figure.subplots()
    recall = np.linspace(0, 1, curves.shape[1])
    labels = [f"{name} {value:.3f}" for name, value in zip(names, ap50, strict=True)]
    entries = _draw_classes(axis, recall, curves, labels)
    mean = axis.plot(recall, curves.mean(0), color=MEAN_COLOUR, linewidth=2.2)[0]
    entries += [(mean, f"all classes {ap50.mean():.3f} mAP@0.5")]
    if not ap50.any():
        axis.text(0.5, 0.5, "no true positive", ha="center", color=GREY)
    _finish(figure, axis, "recall", "precision", entries)
    save_figure(figure, path)


def _draw_classes(axis: Axes, x: np.ndarray, curves: np.ndarray, names: Sequence[str]) -> list[tuple[Artist, str]]:
    """Draw one thin line per class; return legend entries, or none if the classes are too many.

    If every class has a curve, its colour is that of its boxes; with the line style it is the class's alone.
    """
    if len(names) > MAX_NAMED_CLASSES:
        for curve in curves:
            axis.plot(x, curve, linewidth=1, color=GREY)
        return []
    entries: list[tuple[Artist, str]] = []
    for index, (curve, name) in enumerate(zip(curves, names, strict=True)):
        line = axis.plot(x, curve, linewidth=1, linestyle=series_line(index), color=class_colour_hex(index))[0]
        entries += [(line, name)]
    return entries


def _finish(figure: Figure, axis: Axes, x_label: str, y_label: str, entries: list[tuple[Artist, str]]) -> None:
    axis.set(xlabel=x_label, ylabel=y_label, xlim=(0, 1), ylim=(0, 1.02))
    axis.set_title(f"{y_label[:1].upper()}{y_label[1:]} over {x_label} at IoU 0.5")
    add_legend(figure, entries, loc="outside right upper")
