"""The page that compares models: rows of panels for curves, differences and cost, as far as there are any."""

import numpy as np
import pytest

from utils.plots.comparison import overview
from utils.plots.curve_comparison import Curve
from utils.plots.forest import ForestRow

VALUES = np.array([[0.1, 0.3], [0.2, 0.4]])
CURVES = {"mAP50": [Curve(model=i, run=0, split="validation", values=values) for i, values in enumerate(VALUES)]}
DIFFERENCES = {"mAP50": [ForestRow(label="b", value=0.1, low=0.0, high=0.2, series=1)], "empty": []}


@pytest.mark.parametrize(("curves", "differences", "panels"), [(CURVES, DIFFERENCES, 4), ({}, {"mAP50": []}, 2)])
def test_rows_of_panels_without_content_are_left_out(curves, differences, panels):
    accuracy, costs = (
        np.array([[0.55, 0.5, 0.6], [0.7, 0.7, 0.7]]),
        {"GFLOPs": [4.0, 5.0], "parameters, millions": [1.0, 2.0]},
    )
    figure = overview(["a", "b"], curves=curves, differences=differences, accuracy=accuracy, costs=costs, note="blood")
    axes = figure.axes
    assert len(axes) == panels and figure.get_suptitle() == "blood"
    assert [axis.get_xlabel() for axis in axes[-2:]] == list(costs) and axes[-2].get_ylabel() == "mAP50-95"
    low, high = axes[-1].get_ylim()
    assert 0.3 < low < 0.5 and 0.7 < high < 0.9, "not from 0, where small differences would vanish"
    splits = ["validation"] if curves else []
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b", *splits, "Pareto front"]
