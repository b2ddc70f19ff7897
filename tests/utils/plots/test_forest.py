"""Forest plots: intervals, weights and joint means at their places, and the axis around zero."""

import math

import numpy as np
import pytest

from utils.plots.forest import ForestRow, forest, max_panels
from utils.plots.style import MAX_HEIGHT_MM, series_colour

ROWS = [
    ForestRow(label="bccd", value=0.1, low=0.05, high=0.2, weight=0.75, series=1),
    ForestRow(label="voc", value=-0.3, low=math.nan, high=math.nan, weight=0.25, series=1),
    ForestRow(label="joint mean", value=0.02, low=-0.1, high=0.14, joint=True),
]


def test_rows_hold_their_numbers_and_the_joint_mean_is_a_diamond():
    figure = forest({"mAP50": ROWS}, baseline="yolov5n")
    axis = figure.axes[0]
    interval, dot, nothing, second_dot, zero, rule = axis.lines
    np.testing.assert_array_equal(interval.get_xydata(), [[0.05, 0], [0.2, 0]])
    assert (dot.get_xdata(), second_dot.get_xdata()) == ([0.1], [-0.3]) and len(nothing.get_xdata()) == 0
    assert dot.get_markersize() > second_dot.get_markersize(), "the weight"
    assert dot.get_color() == series_colour(1) and list(zero.get_xdata()) == [0, 0] and rule.get_ydata()[0] == 1.5
    diamond = axis.patches[0].get_xy()
    assert (diamond[:, 0].min(), diamond[:, 0].max()) == (-0.1, 0.14) and set(diamond[:, 1]) == {1.7, 2, 2.3}
    assert axis.get_xlim() == pytest.approx((-0.33, 0.33))
    assert [text.get_text().replace("\N{MINUS SIGN}", "-") for text in axis.texts] == [
        "+0.100 [+0.050, +0.200]  75%",
        "-0.300  25%",
        "+0.020 [-0.100, +0.140]",
    ]
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["bccd", "voc", "joint mean"]


@pytest.mark.parametrize(
    ("value", "ticks"), [(0.3, [-0.2, 0, 0.2]), (0.0, [-0.0005, 0, 0.0005]), (0.07, [-0.05, 0, 0.05])]
)
def test_the_axis_has_three_round_ticks_whatever_the_range(value, ticks):
    axis = forest({"mAP50": [ForestRow(label="a", value=value, low=-value, high=value)]}, baseline="b").axes[0]
    assert axis.get_xticks() == pytest.approx(ticks)


def test_panels_stand_in_rows_of_two_and_only_the_first_names_the_rows():
    figure = forest(dict.fromkeys(("mAP50", "mAP75", "mAP50-95"), ROWS), baseline="b", lang="zh")
    named = [[bool(tick.get_text()) for tick in axis.get_yticklabels()] for axis in figure.axes]
    assert named[:3] == [[True] * 3, [False] * 3, [True] * 3] and not figure.axes[3].axison
    assert figure.axes[0].get_yticklabels()[2].get_text() == "合并均值"


def test_as_many_panels_as_fit_on_a_page_keep_their_height():
    fitting = max_panels(len(ROWS))
    heights = [
        forest({str(k): ROWS for k in range(panels)}, baseline="b").get_figheight() * 25.4
        for panels in (2, fitting, fitting + 2)
    ]
    assert heights[1] == pytest.approx(heights[0] * fitting / 2) and heights[2] == pytest.approx(MAX_HEIGHT_MM)
