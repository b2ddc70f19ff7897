"""Statistics of labels: bars, box outlines and histograms hold the labels' values."""

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from utils.plots import labels
from utils.plots.boxes import class_colour_hex

ROWS = np.array([(0, 0.1, 0.2, 0.3, 0.4), (2, 0.5, 0.6, 0.2, 0.1), (2, 0.5, 0.6, 0.9, 0.8)])


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Collect figures in place of saving them."""
    collected: list[Figure] = []
    monkeypatch.setattr(labels, "save_figure", lambda figure, path: collected.append(figure))
    return collected


def test_panels_hold_counts_boxes_centres_and_sizes(figures: list[Figure]):
    labels.plot_labels(ROWS, ["cat", "dog", "cow"], "labels.jpg")
    classes, boxes, centres, sizes = figures[0].axes[:4]
    assert [bar.get_height() for bar in classes.patches] == [1, 0, 2]
    assert [to_hex(bar.get_facecolor()) for bar in classes.patches] == [class_colour_hex(i) for i in range(3)]
    assert [tick.get_text() for tick in classes.get_xticklabels()] == ["cat", "dog", "cow"]
    (outlines,) = boxes.collections
    extents = [path.get_extents().bounds for path in outlines.get_paths()]
    np.testing.assert_allclose(extents, [(0.5 - w / 2, 0.5 - h / 2, w, h) for w, h in ROWS[:, 3:]])
    assert [to_hex(colour) for colour in outlines.get_edgecolors()] == [class_colour_hex(i) for i in (0, 2, 2)]
    for axis, columns in ((centres, ROWS[:, 1:3]), (sizes, ROWS[:, 3:5])):
        expected, _, _ = np.histogram2d(*columns.T, bins=50, range=((0, 1), (0, 1)))
        np.testing.assert_array_equal(axis.collections[0].get_array().reshape(50, 50), expected.T)
    assert centres.yaxis_inverted() and not sizes.yaxis_inverted()


def test_names_turn_vertical_then_disappear_and_boxes_are_limited(figures: list[Figure]):
    for count in (9, 31):
        rows = np.repeat(ROWS[:1], 1001, 0)
        labels.plot_labels(rows, [f"class{i}" for i in range(count)], "labels.jpg")
    few, many = (figure.axes for figure in figures)
    assert {tick.get_rotation() for tick in few[0].get_xticklabels()} == {90}
    assert "class0" not in [tick.get_text() for tick in many[0].get_xticklabels()]
    assert len(few[1].collections[0].get_paths()) == labels.MAX_BOXES
