"""Images of sampling: the marks lie where the points are, and no input that a broken run may give stops them."""

import cv2
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

import utils.plots.sampling as plots
from utils.plots.figure import BLUE, ORANGE
from utils.plots.sampling import OffsetSpread, SampledPosition, plot_offsets, plot_sampling

GREY = np.full((60, 100, 3), 128, np.uint8)
SHAPE = np.array(((40.0, 20.0), (50.0, 20.0), (40.0, 30.0)))


def position(learned: np.ndarray, label: str = "") -> SampledPosition:
    return SampledPosition(label=label, initial_xy=SHAPE, learned_xy=learned)


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Keep the figures that are saved."""
    kept: list[Figure] = []
    save = plots.save_figure
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: kept.append(figure) or save(figure, path))
    return kept


def draw(path, positions, *, image=GREY):
    height, width = image.shape[:2]
    return plot_sampling(
        image, positions, title="t", cell_wh=(10, 10), map_xyxy=(0, -5, width, height + 5), path=path / "p.png"
    )


def test_marks_and_lines_lie_at_the_points_in_both_panels(tmp_path, figures) -> None:
    learned = SHAPE + np.array(((-4.0, 3.0), (7.0, -6.0), (0.0, 0.0)))
    shown = cv2.imread(str(draw(tmp_path, [position(learned, "ring 0.9")])))
    (figure,) = figures
    overview, detail = figure.get_axes()
    assert detail.get_title() == "1  ring 0.9"
    for axis in (overview, detail):
        marks = {line.get_marker(): line for line in axis.get_lines() if line.get_markeredgecolor() in (BLUE, "white")}
        np.testing.assert_allclose(marks["s"].get_xydata(), SHAPE)
        np.testing.assert_allclose(marks["o"].get_xydata(), learned)
        assert marks["s"].get_markerfacecolor() == "none" and marks["o"].get_markerfacecolor() == ORANGE
        lines = axis.collections[-1].get_segments()
        np.testing.assert_allclose(lines, np.stack((SHAPE, learned), 1))
    assert [t.get_text() for t in figure.legends[0].get_texts()] == [
        "initial shape",
        "learned shape",
        "offset",
        "border of the map",
    ]
    # In the file itself: where the overview puts (47, 23), there is orange.
    x, y = overview.transData.transform(learned[1])
    scale = shown.shape[1] / figure.bbox.width
    pixel = shown[round(shown.shape[0] - y * scale), round(x * scale)][::-1] / 255
    np.testing.assert_allclose(pixel, to_rgb(ORANGE), atol=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(("size_hw", "count"), [((300, 40), 9), ((40, 300), 5), ((1, 1), 1)])
def test_any_shape_and_number_of_positions_is_drawn(tmp_path, size_hw, count) -> None:
    image = np.zeros((*size_hw, 3), np.uint8)
    path = draw(tmp_path, [position(SHAPE + number, "ring 0.5") for number in range(count)], image=image)
    assert cv2.imread(str(path)).std() > 5


@pytest.mark.parametrize("offset", [np.nan, -np.inf, 1e6])
def test_what_a_broken_run_gives_is_drawn(tmp_path, offset) -> None:
    assert draw(tmp_path, [position(SHAPE + offset), position(SHAPE)]).stat().st_size > 1000


def spread(rows: np.ndarray, columns: np.ndarray) -> OffsetSpread:
    return OffsetSpread(name="model.3", rows=rows, columns=columns, mean=0.5, outside=0.125, began_outside=0.0625)


def test_histograms_hold_every_offset_once(tmp_path, figures) -> None:
    rng = np.random.default_rng(0)
    rows, columns = rng.normal(1, 2, 4000), rng.normal(-3, 0.5, 1000)
    plot_offsets([spread(rows, columns)], tmp_path / "o.png", note="n")
    axis = figures[0].get_axes()[0]
    drawn = {patch.get_label(): patch for patch in axis.patches if not patch.get_fill()}
    assert axis.get_title() == "model.3\nmean |offset| 0.5 px\noutside 12.5%, initially 6.2%"
    for label, values in (("rows", rows), ("columns", columns)):
        shares, edges, _ = drawn[label].get_data()
        assert shares.sum() == pytest.approx(1)
        inner = ((values >= edges[20]) & (values < edges[40])).mean()
        assert shares[20:40].sum() == pytest.approx(inner, abs=1e-9)
        assert (np.average((edges[1:] + edges[:-1]) / 2, weights=shares) - values.mean()) == pytest.approx(0, abs=0.15)


@pytest.mark.slow
def test_histograms_of_nothing_much_are_drawn(tmp_path) -> None:
    odd = [np.zeros(5), np.array([np.nan, np.inf, 1.0]), np.full(3, np.nan), np.zeros(0), np.full(4, 1e9)]
    for layers in (odd[:1], odd):
        path = plot_offsets([spread(values, values) for values in layers], tmp_path / "o.png")
        assert path.stat().st_size > 1000
