"""Curves: the panels, and that lines, markers and labels hold the given values."""

import math
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from utils.plots import curves
from utils.plots.boxes import PALETTE, class_colour_hex
from utils.plots.style import GREY, ORANGE
from utils.training.results_csv import COLUMNS


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Collect figures in place of saving them."""
    collected: list[Figure] = []
    monkeypatch.setattr(curves, "save_figure", lambda figure, path: collected.append(figure))
    return collected


def results_by_column(columns: dict[str, list[float]], figures: list[Figure]) -> dict[str, np.ndarray]:
    """The values of every line, by the column that its legend names."""
    curves.plot_results(columns, Path("results.png"))
    return {str(line.get_label()): np.asarray(line.get_ydata()) for axis in figures[0].axes for line in axis.lines}


@pytest.mark.parametrize("akconv", [True, False])
def test_results_have_offset_panels_if_the_model_has_akconv(akconv: bool, figures: list[Figure]):
    columns = {name: [float(i), i + 0.5, i + 0.25] for i, name in enumerate(COLUMNS)}
    offsets = [name for name in COLUMNS if name.startswith("akconv/")]
    assert len(offsets) == 2
    for name in offsets:
        columns[name] = [math.nan, 0.25, 0.5] if akconv else [math.nan] * 3
    drawn = results_by_column(columns, figures)
    always = {name for name in COLUMNS if name.startswith(("train/", "val/", "metrics/"))}
    assert set(drawn) == always | set(offsets if akconv else ())
    for name, values in drawn.items():
        np.testing.assert_array_equal(values, columns[name])
    assert [axis.get_title() for axis in figures[0].axes if axis.get_ylabel()] == (offsets if akconv else [])


def test_results_show_a_loss_on_both_splits_in_one_panel_over_whole_epochs(figures: list[Figure]):
    columns = {name: [0.5, 0.25] for name in COLUMNS if not name.startswith("akconv/")}
    columns["epoch"] = [0, 1]
    results_by_column(columns, figures)
    axes = figures[0].axes
    assert len(axes) == 6 and all(float(tick).is_integer() for axis in axes for tick in axis.get_xticks())
    for axis, loss in zip(axes, ("box", "obj", "cls"), strict=False):
        assert [text.get_text() for text in axis.get_legend().get_texts()] == [f"train/{loss}_loss", f"val/{loss}_loss"]
        assert axis.get_title() == f"{loss}_loss"


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


def test_undefined_precision_ends_a_curve_and_the_mean_but_counts_as_1_at_the_best_threshold(figures: list[Figure]):
    values = np.array([[0.2, 0.6, math.nan], [0.4, math.nan, math.nan]])
    curves.plot_confidence_curve(np.array([0, 0.5, 1]), values, ["a", "b"], label="P", best=0.5, path="P_curve.png")
    _, _, mean, _, point = figures[0].axes[0].lines
    np.testing.assert_allclose(mean.get_ydata(), [0.3, math.nan, math.nan])
    np.testing.assert_allclose(point.get_ydata(), [0.8])


def test_precision_over_recall_names_each_ap(figures: list[Figure]):
    values, ap50 = np.array([[1.0, 0.5, 0.0], [0.5, 0.25, 0.0]]), np.array([0.5, 0.25])
    curves.plot_precision_recall(values, ap50, ["cat", "dog"], "PR_curve.png")
    (axis,) = figures[0].axes
    np.testing.assert_array_equal(axis.lines[0].get_xydata(), [[0, 1.0], [0.5, 0.5], [1, 0.0]])
    np.testing.assert_array_equal(axis.lines[2].get_ydata(), [0.75, 0.375, 0.0])
    texts = [text.get_text() for text in figures[0].legends[0].get_texts()]
    assert texts[:2] == ["cat 0.500", "dog 0.250"] and "0.375" in texts[2] and not axis.texts
    curves.plot_precision_recall(0 * values, 0 * ap50, ["cat", "dog"], "PR_curve.png")
    assert len(figures[1].axes[0].texts) == 1, "that there is no true positive"


@pytest.mark.parametrize("classes", [20, 21])
def test_classes_have_looks_of_their_own_until_there_are_too_many(classes: int, figures: list[Figure]):
    values = np.linspace(1, 0, 5)[None].repeat(classes, 0)
    curves.plot_precision_recall(values, values[:, 0], [str(i) for i in range(classes)], "PR_curve.png")
    lines = figures[0].axes[0].lines
    assert len(lines) == classes + 1
    if classes > curves.MAX_NAMED_CLASSES:
        assert {line.get_color() for line in lines[:-1]} == {GREY} and len(figures[0].legends[0].get_texts()) == 1
    else:
        assert len({(line.get_color(), str(line._unscaled_dash_pattern)) for line in lines[:-1]}) == classes
        assert lines[len(PALETTE)].get_color() == lines[0].get_color()


def test_evolution_rings_the_fittest_generation_and_leaves_out_what_never_changed(figures: list[Figure]):
    searched = {f"hyp{i}": [0.1 * i, 0.2 * i, 0.3 * i] for i in range(6)}  # hyp0 is always 0
    curves.plot_evolution(searched, [0.5, 0.9, 0.7], "evolve.png")
    *axes, generations = figures[0].axes
    axes = [axis for axis in axes if axis.axison]
    assert [axis.get_title().split("\n")[0] for axis in axes] == list(searched)[1:]
    assert [bool(axis.get_ylabel()) for axis in axes] == [True, False, False, False, True]
    assert generations.get_ylabel() == "generation"
    for axis, values in zip(axes, list(searched.values())[1:], strict=True):
        dots, ring = axis.collections
        np.testing.assert_allclose(dots.get_offsets(), np.transpose((values, [0.5, 0.9, 0.7])))
        np.testing.assert_allclose(ring.get_offsets(), [[values[1], 0.9]])
        assert to_hex(ring.get_edgecolor()[0]) == ORANGE
    curves.plot_evolution(searched, [0.5, 0.5, 0.5], "evolve.png")
    assert all(len(axis.collections) == 1 for axis in figures[1].axes[:5]), "no generation is the fittest"
