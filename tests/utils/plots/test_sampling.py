"""Plots of sampling points and offsets: markers lie at the points, and values of a diverged run can be plotted."""

import re

import cv2
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

import utils.plots.sampling as plots
from utils.plots.sampling import OffsetSamples, SampledPosition, plot_offsets, plot_sampling
from utils.plots.style import BLUE, ORANGE

GREY = np.full((60, 100, 3), 128, np.uint8)
SHAPE = np.array(((40.0, 20.0), (50.0, 20.0), (40.0, 30.0)))


def position(learned: np.ndarray, label: str = "") -> SampledPosition:
    return SampledPosition(label=label, initial_xy=SHAPE, learned_xy=learned)


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Collect the figures that are saved."""
    collected: list[Figure] = []
    save = plots.save_figure
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: collected.append(figure) or save(figure, path))
    return collected


def pixel_at(xy: np.ndarray, pixels: np.ndarray, axis: Axes, figure: Figure) -> np.ndarray:
    """The RGB colour in [0, 1] of a saved figure's BGR pixels where an axis has the data point (x, y)."""
    x, y = axis.transData.transform(xy)
    scale = pixels.shape[1] / figure.bbox.width
    return pixels[round(pixels.shape[0] - y * scale), round(x * scale)][::-1] / 255


def draw(path, positions, *, image=GREY, lang="en"):
    height, width = image.shape[:2]
    map_xyxy = (0, -5, width, height + 5)
    return plot_sampling(
        image, positions, title="", cell_wh=(10, 10), map_xyxy=map_xyxy, path=path / "p.png", lang=lang
    )


def test_markers_and_lines_lie_at_the_points_in_both_panels(tmp_path, figures) -> None:
    learned = SHAPE + np.array(((-4.0, 3.0), (7.0, -6.0), (0.0, 0.0)))
    pixels = cv2.imread(str(draw(tmp_path, [position(learned, "ring 0.9")])))
    (figure,) = figures
    overview, detail = figure.get_axes()
    assert detail.get_title() == "1  ring 0.9"
    for axis in (overview, detail):
        markers = {line.get_marker(): line for line in axis.get_lines()}
        np.testing.assert_allclose(markers["s"].get_xydata(), SHAPE)
        np.testing.assert_allclose(markers["o"].get_xydata(), learned)
        assert markers["s"].get_markerfacecolor() == "none" and markers["o"].get_markerfacecolor() == ORANGE
        assert markers["s"].get_markeredgecolor() == BLUE
        lines = axis.collections[-1].get_segments()
        np.testing.assert_allclose(lines, np.stack((SHAPE, learned), 1))
    handles = figure.legends[0].legend_handles
    assert [handle.get_marker() for handle in handles[:2]] == ["s", "o"] and len(handles) == 4
    # In the file itself, the pixel at the learned point is orange.
    np.testing.assert_allclose(pixel_at(learned[1], pixels, overview, figure), to_rgb(ORANGE), atol=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(("size_hw", "count"), [((300, 40), 9), ((40, 300), 5), ((1, 1), 1)])
def test_any_aspect_and_number_of_positions_can_be_plotted(tmp_path, figures, size_hw, count) -> None:
    image = np.zeros((*size_hw, 3), np.uint8)
    positions = [position(SHAPE + index, "ring 0.5") for index in range(count)]
    draw(tmp_path, positions, image=image)
    overview, *panels = figures[0].get_axes()
    assert [text.get_text() for text in overview.texts] == [str(index) for index in range(1, count + 1)]
    shown = [panel for panel in panels if panel.axison]
    assert [panel.get_title() for panel in shown] == [f"{index}  ring 0.5" for index in range(1, count + 1)]
    assert len({panel.get_xlim()[1] - panel.get_xlim()[0] for panel in shown}) == 1, "one scale for all"


@pytest.mark.parametrize("offset", [np.nan, -np.inf, 1e6])
def test_points_of_a_diverged_run_do_not_stop_the_plot(tmp_path, figures, offset) -> None:
    pixels = cv2.imread(str(draw(tmp_path, [position(SHAPE + offset), position(SHAPE)])))
    overview, diverged, sound = figures[0].get_axes()
    assert overview.get_xlim() == (0, 100) and overview.get_ylim() == (60, 0)
    for panel, finite in ((diverged, np.isfinite(offset)), (sound, True)):
        assert len(panel.collections[-1].get_segments()) == (len(SHAPE) if finite else 0)
        np.testing.assert_allclose(panel.lines[0].get_xydata(), SHAPE)
    np.testing.assert_allclose(pixel_at(SHAPE[0], pixels, sound, figures[0]), to_rgb(ORANGE), atol=0.1)


def samples(rows: np.ndarray, columns: np.ndarray) -> OffsetSamples:
    return OffsetSamples(
        name="model.3", rows=rows, columns=columns, abs_mean=0.5, oob_fraction=0.125, initial_oob_fraction=0.0625
    )


def histograms(axis: Axes) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The (fractions, edges) of a panel's outlines by label."""
    outlines = [patch for patch in axis.patches if not patch.get_fill()]
    return {patch.get_label(): patch.get_data()[:2] for patch in outlines}


def test_histograms_count_every_offset_once(tmp_path, figures) -> None:
    rng = np.random.default_rng(0)
    rows, columns = rng.normal(1, 2, 4000), rng.normal(-3, 0.5, 1000)
    plot_offsets([samples(rows, columns)], tmp_path / "o.png", note="n")
    axis = figures[0].get_axes()[0]
    name, *numbers = axis.get_title().split("\n")
    assert name == "model.3" and re.findall(r"[\d.]+%?", " ".join(numbers)) == ["0.5", "12.5%", "6.2%"]
    drawn = histograms(axis)
    for label, values in (("rows", rows), ("columns", columns)):
        fractions, edges = drawn[label]
        assert fractions.sum() == pytest.approx(1)
        inner = ((values >= edges[20]) & (values < edges[40])).mean()
        assert fractions[20:40].sum() == pytest.approx(inner, abs=1e-9)
        centres = (edges[1:] + edges[:-1]) / 2
        assert (np.average(centres, weights=fractions) - values.mean()) == pytest.approx(0, abs=0.15)


@pytest.mark.slow
def test_histograms_of_constant_missing_and_huge_offsets(tmp_path, figures) -> None:
    layers = {
        "zeros": np.zeros(5),
        "one finite": np.array([np.nan, np.inf, 1.0]),
        "none finite": np.full(3, np.nan),
        "empty": np.zeros(0),
        "huge": np.full(4, 1e9),
    }
    plot_offsets([samples(values, values) for values in layers.values()], tmp_path / "o.png")
    panels = [axis for axis in figures[0].get_axes() if axis.axison]
    sums = [histograms(axis)["rows"][0].sum() for axis in panels]
    assert sums == pytest.approx([1, 1, 0, 0, 1])
    limits = [axis.get_xlim()[1] for axis in panels]
    assert limits == pytest.approx([0.1, 1, 0.1, 0.1, 1e9])
    plot_offsets([samples(np.zeros(5), np.zeros(5))], tmp_path / "one.png")
    assert cv2.imread(str(tmp_path / "one.png")).std() > 5, "not blank"


@pytest.mark.slow
def test_words_in_chinese_leave_no_english_ones(tmp_path, figures) -> None:
    draw(tmp_path, [position(SHAPE)], lang="zh")
    plot_offsets([samples(np.ones(5), np.ones(5))], tmp_path / "o.png", lang="zh")
    texts = {text.get_text() for figure in figures for text in figure.findobj(Text)}
    words = {word for text in texts for word in re.findall("[A-Za-z]{2,}", text)}
    assert words == {"model"}, "the layer's name alone"
    assert {"学习后的形状", "行方向", "采样点的比例"} <= texts
