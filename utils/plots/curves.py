"""Curves over epochs, over confidence and over recall, and fitness over hyperparameters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from utils.plots.boxes import PALETTE, class_colour_hex
from utils.plots.figure import BLUE, GREY, ORANGE, add_grid, add_legend, save_figure

RESULT_PANELS = (
    ("train/box_loss", "train/obj_loss", "train/cls_loss", "metrics/precision", "metrics/recall"),
    ("val/box_loss", "val/obj_loss", "val/cls_loss", "metrics/mAP_0.5", "metrics/mAP_0.5:0.95"),
)
OFFSET_PANELS = ("akconv/offset_abs_mean", "akconv/oob_fraction")  # one per row, for models with AKConv
EVOLUTION_COLUMNS = 5
MAX_NAMED_CLASSES = 20
MEAN_COLOUR = "black"  # not in the palette of classes


def plot_results(columns: Mapping[str, Sequence[float]], path: Path | str) -> None:
    """Draw the columns of results.csv over epochs; missing values leave gaps.

    Columns of AKConv's offsets get panels if they have any finite value.
    """
    panels: tuple[tuple[str, ...], ...] = RESULT_PANELS
    if any(np.isfinite(columns.get(name, ())).any() for name in OFFSET_PANELS):
        panels = tuple((*names, offset) for names, offset in zip(RESULT_PANELS, OFFSET_PANELS, strict=True))
    figure = Figure(figsize=(3 * len(panels[0]), 6), layout="constrained")
    axes = figure.subplots(len(panels), len(panels[0]))
    epochs = np.asarray(columns["epoch"], float)
    for axis, name in zip(axes.ravel(), (name for row in panels for name in row), strict=True):
        values = np.asarray(columns[name], float)
        axis.plot(epochs, values, color=BLUE, marker="." if len(epochs) <= 30 else None, linewidth=1.4)
        if len(epochs) > 9 and np.isfinite(values).all():
            window = np.hanning(7)[1:-1]
            smoothed = np.convolve(np.pad(values, 2, mode="edge"), window / window.sum(), "valid")
            axis.plot(epochs, smoothed, color=ORANGE, linewidth=1)
        axis.set_title(name, fontsize=10)
        add_grid(axis)
    for axis in axes[-1]:
        axis.set_xlabel("epoch", fontsize=9)
    save_figure(figure, path)


def plot_evolution(searched: Mapping[str, Sequence[float]], fitness: Sequence[float], path: Path | str) -> None:
    """Draw a panel per hyperparameter with a dot per generation; a ring marks the fittest.

    Args:
        searched: values of each hyperparameter, one per generation.
        fitness: of each generation.
        path: output file.
    """
    rows = math.ceil(len(searched) / EVOLUTION_COLUMNS)
    figure = Figure(figsize=(2.6 * EVOLUTION_COLUMNS, 2.3 * rows), layout="constrained")
    best = max(range(len(fitness)), key=lambda i: fitness[i])
    for index, (name, values) in enumerate(searched.items()):
        axis = figure.add_subplot(rows, EVOLUTION_COLUMNS, index + 1)
        axis.scatter(values, fitness, c=range(len(fitness)), cmap="viridis", s=18, alpha=0.8)
        axis.scatter([values[best]], [fitness[best]], s=90, facecolors="none", edgecolors=ORANGE, linewidths=1.6)
        axis.set_title(f"{name} = {values[best]:.3g}", fontsize=9)
        axis.tick_params(labelsize=7)
        if index % EVOLUTION_COLUMNS == 0:
            axis.set_ylabel("fitness", fontsize=8)
    save_figure(figure, path)


def plot_confidence_curve(
    confidences: np.ndarray, curves: np.ndarray, names: Sequence[str], *, label: str, best: float, path: Path | str
) -> None:
    """Draw a metric over the confidence threshold: thin lines for classes, a thick one for their mean.

    Args:
        confidences: (k,).
        curves: (c, k).
        names: of the c classes.
        label: of the metric, such as "F1".
        best: confidence threshold of the best mean F1, which is marked.
        path: output file.
    """
    figure = Figure(figsize=(8, 5.5), layout="constrained")
    axis = figure.subplots()
    entries = _draw_classes(axis, confidences, curves, names)
    mean = curves.mean(0)
    entries += [(axis.plot(confidences, mean, color=MEAN_COLOUR, linewidth=2.6)[0], "all classes")]
    height = float(np.interp(best, confidences, mean))
    axis.axvline(best, color=MEAN_COLOUR, linewidth=1, linestyle="--")
    point = axis.plot([best], [height], "o", color=MEAN_COLOUR)[0]
    entries += [(point, f"{label} {height:.2f} at the\nbest threshold {best:.3f}")]
    _finish(figure, axis, "confidence", label, entries)
    save_figure(figure, path)


def plot_precision_recall(
    curves: np.ndarray,
    ap50: np.ndarray,
    names: Sequence[str],
    path: Path | str,
    *,
    best: tuple[np.ndarray, np.ndarray, float] | None = None,
) -> None:
    """Draw precision over recall at IoU 0.5.

    Args:
        curves: (c, k) precision at k evenly spaced recalls from 0 to 1.
        ap50: (c,) average precision.
        names: of the c classes.
        path: output file.
        best: recall (c,) and precision (c,) at the best confidence threshold, and that threshold, to be marked.
    """
    figure = Figure(figsize=(8, 5.5), layout="constrained")
    axis = figure.subplots()
    recall = np.linspace(0, 1, curves.shape[1])
    labels = [f"{name} {value:.3f}" for name, value in zip(names, ap50, strict=True)]
    entries = _draw_classes(axis, recall, curves, labels)
    mean = axis.plot(recall, curves.mean(0), color=MEAN_COLOUR, linewidth=2.6)[0]
    entries += [(mean, f"all classes {ap50.mean():.3f} mAP@0.5")]
    if best is not None:
        points = axis.plot(best[0], best[1], "o", color=MEAN_COLOUR, markersize=5, clip_on=False)[0]
        entries += [(points, f"each class at the\nbest threshold {best[2]:.3f}")]
    _finish(figure, axis, "recall", "precision", entries)
    save_figure(figure, path)


def _draw_classes(axis: Axes, x: np.ndarray, curves: np.ndarray, names: Sequence[str]) -> list[tuple[Artist, str]]:
    """Draw one thin line per class; return legend entries, or none if the classes are too many.

    If every class has a curve, its colour is that of its boxes. From the eleventh class on colours repeat, dashed.
    """
    if len(names) > MAX_NAMED_CLASSES:
        for curve in curves:
            axis.plot(x, curve, linewidth=1, color=GREY)
        return []
    entries: list[tuple[Artist, str]] = []
    for index, (curve, name) in enumerate(zip(curves, names, strict=True)):
        style = "-" if index < len(PALETTE) else "--"
        entries += [(axis.plot(x, curve, linewidth=1, linestyle=style, color=class_colour_hex(index))[0], name)]
    return entries


def _finish(figure: Figure, axis: Axes, x_label: str, y_label: str, entries: list[tuple[Artist, str]]) -> None:
    axis.set(xlabel=x_label, ylabel=y_label, xlim=(0, 1), ylim=(0, 1.02))
    add_grid(axis)
    add_legend(figure, entries, loc="outside right upper", fontsize=8)
