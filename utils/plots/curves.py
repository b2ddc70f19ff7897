"""Curves: training over epochs, and precision and recall over confidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties

from utils.plots.boxes import PALETTE, class_colour
from utils.plots.figure import BLUE, GREY, ORANGE, add_legend, save_figure
from utils.plots.fonts import families

RESULT_PANELS = (
    ("train/box_loss", "train/obj_loss", "train/cls_loss", "metrics/precision", "metrics/recall"),
    ("val/box_loss", "val/obj_loss", "val/cls_loss", "metrics/mAP_0.5", "metrics/mAP_0.5:0.95"),
)
OFFSET_PANELS = ("akconv/offset_abs_mean", "akconv/oob_fraction")  # one in each row, for models that have AKConv
MAX_NAMED_CLASSES = 20
MEAN = "black"  # of all classes, which no class has


def plot_results(columns: Mapping[str, Sequence[float]], path: Path | str) -> None:
    """Draw losses and metrics over epochs, as `results.png`, and the offsets of AKConv if there are any.

    A missing number leaves a gap.
    """
    panels: tuple[tuple[str, ...], ...] = RESULT_PANELS
    if any(np.isfinite(columns.get(name, ())).any() for name in OFFSET_PANELS):
        panels = tuple((*names, offset) for names, offset in zip(RESULT_PANELS, OFFSET_PANELS, strict=True))
    figure = Figure(figsize=(3 * len(panels[0]), 6), layout="constrained")
    axes = figure.subplots(len(panels), len(panels[0]))
    epochs = np.asarray(columns["epoch"], float)
    for row, names in enumerate(panels):
        for column, name in enumerate(names):
            axis = axes[row][column]
            values = np.asarray(columns[name], float)
            axis.plot(epochs, values, color=BLUE, marker="." if len(epochs) <= 30 else None, linewidth=1.4)
            if len(epochs) > 9 and np.isfinite(values).all():
                window = np.hanning(7)[1:-1]
                padded = np.pad(values, 2, mode="edge")
                axis.plot(epochs, np.convolve(padded, window / window.sum(), "valid"), color=ORANGE, linewidth=1)
            axis.set_title(name, fontsize=10)
            axis.grid(color="#e4e6ea", linewidth=0.6)
            if row == 1:
                axis.set_xlabel("epoch", fontsize=9)
    save_figure(figure, path)


def plot_confidence_curve(
    confidences: np.ndarray, curves: np.ndarray, names: Sequence[str], *, label: str, best: float, path: Path | str
) -> None:
    """Draw a number over confidence, thinly for each class and thickly for their mean, the best threshold marked.

    Args:
        confidences: (k,).
        curves: (c, k).
        names: of the c classes.
        label: what is drawn, as "F1".
        best: confidence where the mean F1 is best.
        path: where to write.
    """
    figure = Figure(figsize=(8, 5.5), layout="constrained")
    axis = figure.subplots()
    entries = _class_lines(axis, confidences, curves, names)
    mean = curves.mean(0)
    entries += [(axis.plot(confidences, mean, color=MEAN, linewidth=2.6)[0], "all classes")]
    height = float(np.interp(best, confidences, mean))
    axis.axvline(best, color=MEAN, linewidth=1, linestyle="--")
    point = axis.plot([best], [height], "o", color=MEAN)[0]
    entries += [(point, f"{label} {height:.2f} at the\nbest threshold {best:.3f}")]
    _finish(figure, axis, "confidence", label, entries, families(names))
    save_figure(figure, path)


def plot_precision_recall(
    curves: np.ndarray,
    ap50: np.ndarray,
    names: Sequence[str],
    path: Path | str,
    *,
    best: tuple[np.ndarray, np.ndarray, float] | None = None,
) -> None:
    """Draw precision over recall at overlap 0.5.

    Args:
        curves: (c, k), the abscissa being recall from 0 to 1.
        ap50: (c,) average precisions.
        names: of the c classes.
        path: where to write.
        best: recall (c,) and precision (c,) at the best threshold, and that threshold, to mark.
    """
    figure = Figure(figsize=(8, 5.5), layout="constrained")
    axis = figure.subplots()
    recall = np.linspace(0, 1, curves.shape[1])
    labelled = [f"{name} {value:.3f}" for name, value in zip(names, ap50, strict=True)]
    entries = _class_lines(axis, recall, curves, labelled)
    mean = axis.plot(recall, curves.mean(0), color=MEAN, linewidth=2.6)[0]
    entries += [(mean, f"all classes {ap50.mean():.3f} mAP@0.5")]
    if best is not None:
        points = axis.plot(best[0], best[1], "o", color=MEAN, markersize=5, clip_on=False)[0]
        entries += [(points, f"each class at the\nbest threshold {best[2]:.3f}")]
    _finish(figure, axis, "recall", "precision", entries, families(names))
    save_figure(figure, path)


def _class_lines(axis: Axes, x: np.ndarray, curves: np.ndarray, names: Sequence[str]) -> list[tuple[Artist, str]]:
    """Draw one thin line for each class; return them with their names while they are few.

    They have the colours that boxes of their classes have where all classes have curves; the eleventh is dashed, as
    the colours begin anew there.
    """
    if len(names) > MAX_NAMED_CLASSES:
        for curve in curves:
            axis.plot(x, curve, linewidth=1, color=GREY)
        return []
    entries: list[tuple[Artist, str]] = []
    for number, (curve, name) in enumerate(zip(curves, names, strict=True)):
        colour = np.array(class_colour(number)) / 255
        style = "-" if number < len(PALETTE) else "--"
        entries += [(axis.plot(x, curve, linewidth=1, linestyle=style, color=colour)[0], name)]
    return entries


def _finish(
    figure: Figure,
    axis: Axes,
    x_label: str,
    y_label: str,
    entries: Sequence[tuple[Artist, str]],
    letters: Sequence[str],
) -> None:
    """Write on the axes, and add the legend in the given font families."""
    axis.set(xlabel=x_label, ylabel=y_label, xlim=(0, 1), ylim=(0, 1.02))
    axis.grid(color="#e4e6ea", linewidth=0.6)
    add_legend(figure, entries, loc="outside right upper", prop=FontProperties(family=letters, size=8))
