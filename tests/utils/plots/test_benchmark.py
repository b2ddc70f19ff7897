"""Bars of cost ratios: their widths, labels and the line of the baseline."""

import pytest
from matplotlib.figure import Figure

from utils.plots import benchmark


def test_each_part_has_a_panel_with_labelled_bars(monkeypatch: pytest.MonkeyPatch):
    figures: list[Figure] = []
    monkeypatch.setattr(benchmark, "save_figure", lambda figure, path: figures.append(figure))
    rows = [("N 5", {"forward": 1.5, "backward": 2.25}), ("N 9", {"forward": 0.5, "backward": 0.75})]
    benchmark.plot_ratios({"layers": rows, "models": rows[:1]}, "b.png")
    layers, models = figures[0].axes
    assert [(bar.get_x(), bar.get_width()) for bar in layers.patches] == [(1, 0.5), (1, -0.5), (1, 1.25), (1, -0.25)]
    assert [text.get_text() for text in layers.texts] == ["1.50", "0.50", "2.25", "0.75"]
    assert [bar.get_x() + bar.get_width() for bar in models.patches] == [1.5, 2.25]
    assert layers.get_xscale() == "log", "a ratio of 0.5 is as far from 1 as 2"
    assert [tick.get_text() for tick in layers.get_yticklabels()] == ["N 5", "N 9"]
    assert list(layers.lines[0].get_xdata()) == [1, 1] and layers.yaxis_inverted()
    assert [text.get_text() for text in layers.get_legend().get_texts()] == ["plain convolution", "forward", "backward"]
