"""Accuracy against cost: the Pareto front, and what of it is drawn."""

import math

import numpy as np
import pytest

from utils.plots.trade_off import pareto_front, trade_off


@pytest.mark.parametrize(
    ("costs", "accuracy", "front"),
    [
        ((1, 2, 3), (0.1, 0.2, 0.3), [0, 1, 2]),
        ((3, 2, 1), (0.1, 0.2, 0.3), [2]),
        ((1, 1, 2), (0.1, 0.3, 0.3), [1]),
        ((2, math.nan, 1), (0.5, 0.9, 0.5), [2]),
        ((), (), []),
    ],
)
def test_the_front_has_the_models_that_no_other_dominates(costs, accuracy, front):
    assert pareto_front(costs, accuracy) == front


def test_dominated_models_are_hollow_and_bars_span_the_runs():
    accuracy = np.array([[0.5, 0.4, 0.6], [0.45, 0.45, 0.45]])
    figure = trade_off(["a", "b"], accuracy, {"GFLOPs": [4.0, 5.0]})
    axis = figure.axes[0]
    front, first, *_, second = [line for line in axis.lines if line.get_marker() not in ("_",)]
    assert front.get_xdata() == [4.0] and (first.get_xdata()[0], first.get_ydata()[0]) == (4.0, 0.5)
    assert first.get_markerfacecolor() == first.get_color() and second.get_markerfacecolor() == "white"
    (bars,) = axis.collections
    np.testing.assert_allclose(bars.get_segments()[0], [[4.0, 0.4], [4.0, 0.6]])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b", "Pareto front"]
