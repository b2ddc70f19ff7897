"""The comparison's figure: runs and their means, intervals around zero, accuracy over cost."""

import math

import numpy as np
import pytest
from matplotlib.figure import Figure

from utils.plots import comparison
from utils.plots.comparison import Curve, Interval
from utils.plots.figure import series_colour


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Collect figures in place of saving them."""
    collected: list[Figure] = []
    monkeypatch.setattr(comparison, "save_figure", lambda figure, path: collected.append(figure))
    return collected


def test_runs_are_drawn_with_the_mean_over_their_common_epochs(figures: list[Figure]):
    runs = [
        Curve(model=0, values=np.array([0.1, 0.3, 0.5])),
        Curve(model=0, values=np.array([0.3, 0.5])),
        Curve(model=1, values=np.array([0.2, 0.4, 0.6, 0.8])),
    ]
    comparison.plot_comparison(
        ["a", "b"], curves={"mAP": runs}, intervals={}, accuracy=[0.5, 0.6], costs={"GFLOPs": [4.0, 5.0]}, path="c.png"
    )
    curves, cost = figures[0].axes
    expected = [[0.1, 0.3, 0.5], [0.3, 0.5], [0.2, 0.4], [0.2, 0.4, 0.6, 0.8]]
    for line, values in zip(curves.lines, expected, strict=True):
        np.testing.assert_allclose(line.get_ydata(), values)
    assert [line.get_color() for line in curves.lines] == [series_colour(i) for i in (0, 0, 0, 1)]
    np.testing.assert_array_equal([line.get_xydata()[0] for line in cost.lines], [[4.0, 0.5], [5.0, 0.6]])
    assert (cost.get_xlabel(), cost.get_ylabel()) == ("GFLOPs", "mAP50-95")
    assert [text.get_text() for text in figures[0].legends[0].get_texts()] == ["a", "b"]


def test_intervals_are_centred_on_zero_and_omitted_if_unknown(figures: list[Figure]):
    rows = [
        Interval(model=1, value=0.1, low=0.05, high=0.2),
        Interval(model=2, value=-0.3, low=math.nan, high=math.nan),
    ]
    comparison.plot_comparison(
        ["a", "b", "c"],
        curves={},
        intervals={"mAP50": rows, "empty": []},
        accuracy=[0.5, 0.6, 0.2],
        costs={"GFLOPs": [4.0, 5.0, 6.0]},
        path="c.png",
    )
    intervals, _ = figures[0].axes
    first, dot, second_dot, zero = intervals.lines
    np.testing.assert_array_equal(first.get_xydata(), [[0.05, 0], [0.2, 0]])
    np.testing.assert_array_equal(dot.get_xydata(), [[0.1, 0]])
    np.testing.assert_array_equal(second_dot.get_xydata(), [[-0.3, 1]])
    assert list(zero.get_xdata()) == [0, 0] and intervals.get_xlim() == pytest.approx((-0.33, 0.33))
    assert [tick.get_text() for tick in intervals.get_yticklabels()] == ["b", "c"]
    assert intervals.get_title().startswith("mAP50, ") and " a" in intervals.get_title()
