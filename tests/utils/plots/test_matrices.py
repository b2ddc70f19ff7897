"""The confusion matrix: cells, their values as text, labels."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from utils.plots import matrices


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Collect figures in place of saving them."""
    collected: list[Figure] = []
    monkeypatch.setattr(matrices, "save_figure", lambda figure, path: collected.append(figure))
    return collected


def test_both_panels_hold_the_matrix_and_its_values(figures: list[Figure]):
    counts = np.array([[3, 0, 1], [1, 2, 0], [0, 2, 0]])
    normalized = counts / counts.sum(0)
    matrices.plot_confusion(counts, normalized, ["cat", "dog"], "m.png", note="a note")
    for axis, matrix, value_format in zip(figures[0].axes[:2], (counts, normalized), ("{:.0f}", "{:.2f}"), strict=True):
        drawn = axis.images[0].get_array()
        np.testing.assert_array_equal(np.ma.filled(drawn, 0), matrix)
        np.testing.assert_array_equal(np.ma.getmaskarray(drawn), matrix == 0)
        texts = {text.get_position(): text.get_text() for text in axis.texts}
        cells = {(c, r): value_format.format(v) for (r, c), v in np.ndenumerate(matrix) if v}
        assert texts == cells
        for ticks in (axis.get_xticklabels(), axis.get_yticklabels()):
            assert [tick.get_text() for tick in ticks] == ["cat", "dog", "background"]
    assert figures[0].get_suptitle() == "a note"


def test_background_does_not_make_the_other_cells_pale(figures: list[Figure]):
    counts = np.array([[30, 2, 400], [1, 20, 900], [3, 4, 0]])
    matrices.plot_confusion(counts, counts / counts.sum(0), ["cat", "dog"], "m.png")
    assert figures[0].axes[0].images[0].get_clim() == (0, 30)


def test_matrices_of_models_share_a_scale_and_the_names_of_rows():
    fractions = np.array([[0.8, 0.0, 0.4], [0.1, 0.9, 0.6], [0.1, 0.1, 0.0]])
    figure = matrices.confusions(
        ["a", "b", "c", "d"], [fractions, fractions / 2, fractions, fractions], ["cat", "dog"], lang="zh"
    )
    axes = [axis for axis in figure.axes if axis.images]
    assert [axis.get_title() for axis in axes] == ["a", "b", "c", "d"]
    assert {axis.images[0].get_clim() for axis in axes} == {(0, 1)}
    for axis, left, bottom in zip(axes, (True, False, False, True), (False, True, True, True), strict=True):
        assert [tick.get_text() for tick in axis.get_yticklabels()] == (["cat", "dog", "背景"] if left else [])
        assert [tick.get_text() for tick in axis.get_xticklabels()] == (["cat", "dog", "背景"] if bottom else [])
        assert (bool(axis.get_ylabel()), bool(axis.get_xlabel())) == (left, bottom)
    assert {text.get_text() for text in axes[1].texts} == {"0.40", "0.20", "0.05", "0.45", "0.30"}
    assert sum(not axis.axison for axis in figure.axes) == 2, "places without a model"
    many = matrices.confusions(["a", "b"], [np.eye(81)] * 2, [str(i) for i in range(80)])
    assert not many.axes[0].texts and {"0", "20", "40"} <= {tick.get_text() for tick in many.axes[0].get_xticklabels()}
    assert [
        round(matrices.confusions(["a"] * count, [np.eye(3)] * count, ["cat", "dog"]).get_figwidth() * 25.4)
        for count in (1, 2)
    ] == [85, 170]


@pytest.mark.parametrize(("classes", "values", "names"), [(30, False, True), (100, False, False)])
def test_values_and_then_names_are_omitted_for_many_classes(
    classes: int, values: bool, names: bool, figures: list[Figure]
):
    eye = np.eye(classes + 1)
    matrices.plot_confusion(eye, eye, [f"class{i}" for i in range(classes)], "m.png")
    axis = figures[0].axes[0]
    assert bool(axis.texts) == values
    assert ("class0" in [tick.get_text() for tick in axis.get_xticklabels()]) == names
