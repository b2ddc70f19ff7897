"""Curves: the panels, and that lines, markers and labels hold the given values."""

import math
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from utils.plots import curves
from utils.plots.boxes import PALETTE, class_colour_hex
from utils.plots.figure import GREY, ORANGE
from utils.training.results_csv import COLUMNS


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Collect figures in place of saving them."""
    collected: list[Figure] = []
    monkeypatch.setattr(curves, "save_figure", lambda figure, path: collected.append(figure))
    return collected


def results_by_title(columns: dict[str, list[float]], figures: list[Figure]) -> dict[str, np.ndarray]:
    """The values of every panel's first line."""
    curves.plot_results(columns, Path("results.png"))
    return {axis.get_title(): np.asarray(axis.lines[0].get_ydata()) for axis in figures[0].axes}


@pytest.mark.parametrize("akconv", [True, False])
def test_results_have_offset_panels_if_the_model_has_akconv(akconv: bool, figures: list[Figure]):
    columns = {name: [float(i), i + 0.5, i + 0.25] for i, name in enumerate(COLUMNS)}
    offsets = [name for name in COLUMNS if name.startswith("akconv/")]
    assert len(offsets) == 2
    for name in offsets:
        columns[name] = [math.nan, 0.25, 0.5] if akconv else [math.nan] * 3
    panels = results_by_title(columns, figures)
    always = {name for name in COLUMNS if name.startswith(("train/", "val/", "metrics/"))}
    assert set(panels) == always | set(offsets if akconv else ())
    for name, values in panels.items():
        np.testing.assert_array_equal(values, columns[name])


def test_results_of_a_run_without_offset_columns_have_ten_panels(figures: list[Figure]):
    columns = {name: [0.5] for name in COLUMNS if not name.startswith("akconv/")}
    assert len(results_by_title(columns, figures)) == 10


def test_results_of_ten_epochs_get_a_smoothed_line(figures: list[Figure]):
    epochs = np.arange(10.0)
    columns = {name: epochs.tolist() for name in COLUMNS}
    columns["train/obj_loss"] = [math.nan, *[1.0] * 9]
    columns["train/box_loss"] = (epochs == 5).astype(float).tolist()
    curves.plot_results(columns, Path("results.png"))
    axes = {axis.get_title(): axis for axis in figures[0].axes}
    assert len(axes["train/obj_loss"].lines) == 1, "values with gaps are not smoothed"
    smoothed = np.asarray(axes["train/box_loss"].lines[1].get_ydata())
    weights = np.hanning(7)[1:-1] / np.hanning(7).sum()
    np.testing.assert_allclose(smoothed[3:8], weights, atol=1e-12)
    np.testing.assert_allclose(smoothed[:3], 0, atol=1e-12)


def test_a_confidence_curve_marks_the_best_threshold_on_the_mean(figures: list[Figure]):
    confidences = np.array([0.0, 0.5, 1.0])
    values = np.array([[0.2, 0.6, 0.0], [0.4, 1.0, 0.0]])
    curves.plot_confidence_curve(confidences, values, ["cat", "dog"], label="F1", best=0.25, path="F1_curve.png")
    (axis,) = figures[0].axes
    cat, dog, mean, best, point = axis.lines
    np.testing.assert_array_equal([cat.get_ydata(), dog.get_ydata()], values)
    assert [cat.get_color(), dog.get_color()] == [class_colour_hex(0), class_colour_hex(1)]
    np.testing.assert_allclose(mean.get_ydata(), [0.3, 0.8, 0.0])
    assert list(best.get_xdata()) == [0.25, 0.25]
    np.testing.assert_allclose(point.get_xydata(), [[0.25, 0.55]])
    texts = [text.get_text() for text in figures[0].legends[0].get_texts()]
    assert texts[:2] == ["cat", "dog"] and len(texts) == 4 and {"0.55", "0.250"} <= set(texts[3].split())
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("confidence", "F1")


def test_precision_over_recall_names_each_ap_and_marks_the_best_points(figures: list[Figure]):
    values, ap50 = np.array([[1.0, 0.5, 0.0], [0.5, 0.25, 0.0]]), np.array([0.5, 0.25])
    best = (np.array([0.4, 0.6]), np.array([0.7, 0.3]), 0.123)
    curves.plot_precision_recall(values, ap50, ["cat", "dog"], "PR_curve.png", best=best)
    (axis,) = figures[0].axes
    np.testing.assert_array_equal(axis.lines[0].get_xydata(), [[0, 1.0], [0.5, 0.5], [1, 0.0]])
    np.testing.assert_array_equal(axis.lines[2].get_ydata(), [0.75, 0.375, 0.0])
    np.testing.assert_array_equal(axis.lines[3].get_xydata(), [[0.4, 0.7], [0.6, 0.3]])
    texts = [text.get_text() for text in figures[0].legends[0].get_texts()]
    assert texts[:2] == ["cat 0.500", "dog 0.250"] and "0.375" in texts[2] and "0.123" in texts[3]


@pytest.mark.parametrize("classes", [12, 21])
def test_lines_of_many_classes_are_dashed_then_grey(classes: int, figures: list[Figure]):
    values = np.linspace(1, 0, 5)[None].repeat(classes, 0)
    curves.plot_precision_recall(values, values[:, 0], [str(i) for i in range(classes)], "PR_curve.png")
    lines = figures[0].axes[0].lines
    assert len(lines) == classes + 1
    if classes > curves.MAX_NAMED_CLASSES:
        assert {line.get_color() for line in lines[:-1]} == {GREY} and len(figures[0].legends[0].get_texts()) == 1
    else:
        assert [line.get_linestyle() for line in lines[:-1]] == ["-"] * len(PALETTE) + ["--"] * 2
        assert lines[len(PALETTE)].get_color() == lines[0].get_color()


def test_evolution_rings_the_fittest_generation(figures: list[Figure]):
    searched = {f"hyp{i}": [0.1 * i, 0.2 * i, 0.3 * i] for i in range(6)}
    curves.plot_evolution(searched, [0.5, 0.9, 0.7], "evolve.png")
    axes = figures[0].axes
    assert [axis.get_title().split(" = ")[0] for axis in axes] == list(searched)
    assert [bool(axis.get_ylabel()) for axis in axes] == [True, False, False, False, False, True]
    for axis, values in zip(axes, searched.values(), strict=True):
        dots, ring = axis.collections
        np.testing.assert_allclose(dots.get_offsets(), np.transpose((values, [0.5, 0.9, 0.7])))
        np.testing.assert_allclose(ring.get_offsets(), [[values[1], 0.9]])
        assert to_hex(ring.get_edgecolor()[0]) == ORANGE
