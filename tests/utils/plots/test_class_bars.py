"""Bars of classes: means and ranges of runs, and differences beside them."""

import math

import numpy as np

from utils.plots.class_bars import class_bars, max_classes


def test_bars_hold_means_and_ranges_and_differences_their_intervals():
    values = np.array([[[0.3, 0.2, 0.4], [0.5, 0.5, 0.5]], [[0.7, 0.6, 0.8], [0.2, 0.1, 0.3]]])
    differences = np.array([[[0.4, 0.1, 0.7], [-0.3, math.nan, math.nan]]])
    figure = class_bars(["a", "b"], ["cat", "dog"], values, differences)
    bars, changes = figure.axes
    np.testing.assert_allclose([bar.get_width() for bar in bars.patches], [0.3, 0.5, 0.7, 0.2])
    ranges = [segment[:, 0].tolist() for lines in bars.collections for segment in lines.get_segments()]
    np.testing.assert_allclose(ranges, [[0.2, 0.4], [0.5, 0.5], [0.6, 0.8], [0.1, 0.3]])
    (interval,) = changes.collections[0].get_segments()
    np.testing.assert_allclose(interval[:, 0], [0.1, 0.7])
    np.testing.assert_allclose(changes.lines[0].get_xdata(), [0.4, -0.3])
    assert [tick.get_text() for tick in bars.get_yticklabels()] == ["cat", "dog"]
    wide = class_bars(["a", "b"], ["cat", "dog"], values, differences * 1.5).axes[1]
    assert wide.get_xlim()[0] > -1 and wide.get_xlim()[1] == 1, "no difference is larger"
    hatches = {bar.get_hatch() for bar in bars.patches}
    assert len(hatches) == 2, "models differ in grey as well"


def test_without_a_baseline_there_is_one_panel_and_a_page_bounds_the_classes():
    assert len(class_bars(["a"], ["cat"], np.full((1, 1, 3), 0.5), np.empty((0, 1, 3))).axes) == 1
    assert 10 < max_classes(6) < max_classes(2) < 60
