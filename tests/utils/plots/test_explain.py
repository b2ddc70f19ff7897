"""Figures of utils.explain: panels, their contents, and titles that fit."""

from itertools import pairwise

import numpy as np
import pytest
from matplotlib.figure import Figure

from utils.plots.explain import (
    ModelMaps,
    overlay,
    plot_feature_maps,
    plot_field_energy,
    plot_maps,
    plot_receptive_fields,
)
from utils.plots.figure import save_figure


def maps_figure(layers: int, size_hw: tuple[int, int] = (40, 64)) -> Figure:
    heat = np.zeros(size_hw)
    heat[:, 30:] = 1
    models = [
        ModelMaps(
            model=name,
            text="环形 0.72",
            box=np.array((4, 5, 30, 25)),
            maps=[(f"model.{i}.m.0.cv2.conv\n80% in the box", heat if i else None) for i in range(layers)],
        )
        for name in ("_plain$a$b", "关注")
    ]
    return plot_maps(np.full((*size_hw, 3), 90, np.uint8), models, method="gradcam++", truth_xyxy=np.ones((3, 4)))


@pytest.mark.parametrize("layers", [1, 3, 7])
def test_titles_of_maps_fit_their_panels(layers: int, tmp_path) -> None:
    figure = maps_figure(layers)
    save_figure(figure, tmp_path / "maps.png")
    rows = np.array(figure.axes[:-1]).reshape(2, layers + 1)
    for row in rows:
        boxes = [axis.title.get_window_extent() for axis in row]
        assert all(left.x1 < right.x0 for left, right in pairwise(boxes))
        assert [len(axis.patches) for axis in row] == [8] * (layers + 1)  # two lines for each of four boxes
    width = figure.get_figwidth() * figure.dpi
    assert all(0 <= axis.get_tightbbox().x0 and axis.get_tightbbox().x1 <= width for axis in figure.axes)
    assert rows[1, 0].get_title().startswith("关注")


def test_maps_are_drawn_over_the_image_where_there_is_evidence() -> None:
    image = np.full((3, 5, 3), 102, np.uint8)
    heat = np.zeros((3, 5))
    heat[1, 4] = 1
    shown = overlay(image, heat)
    np.testing.assert_allclose(shown[heat == 0], 0.4)
    assert abs(shown[1, 4] - 0.4).max() > 0.3
    none, some = maps_figure(2).axes[1:3]
    assert np.ptp(none.images[0].get_array()) == 0 and np.ptp(some.images[0].get_array()) > 0


def test_receptive_fields_have_a_row_per_model_and_their_energy_a_line_per_layer() -> None:
    levels = np.linspace(0.01, 1, 60).reshape(6, 10)
    fields = {"a": {"model.17": levels, "model.20": levels}, "_b": {"model.17": levels, "17.cv1": levels}}
    figure = plot_receptive_fields(fields, fractions=[0.2, 0.5, 0.95], position=(0.25, 0.5))
    panels = figure.axes[:4]
    assert [axis.get_title() for axis in panels] == ["a\nmodel.17", "a\nmodel.20", "_b\nmodel.17", "_b\n17.cv1"]
    (cross,) = panels[0].lines
    assert (cross.get_xdata()[0], cross.get_ydata()[0]) == (2, 2.5)
    axis = plot_field_energy(fields).axes[0]
    assert len(axis.lines) == 4 and len({line.get_color() for line in axis.lines}) == 2
    assert axis.lines[0].get_xdata()[-1] == 1 and axis.lines[0].get_ydata()[-1] == 1
    assert [text.get_text() for text in axis.figure.legends[0].get_texts()][3] == "_b  17.cv1"


def test_each_channel_has_its_own_scale() -> None:
    figure = plot_feature_maps(np.arange(30.0).reshape(5, 2, 3), [4, 0, 2, 9, 7], title="layer")
    shown = [axis for axis in figure.axes[:-1] if axis.images]
    assert [axis.get_title() for axis in shown] == [f"channel {c}" for c in (4, 0, 2, 9, 7)]
    assert [axis.images[0].get_clim() for axis in shown] == [(6 * i, 6 * i + 5) for i in range(5)]
