"""Saved figures show names of classes and models literally, and long ones leave room for the plot."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from utils.plots import comparison, curves, figure, labels, matrices, sampling
from utils.plots.forest import ForestRow

# None of them is a formula or hidden, as matplotlib would have it.
NAMES = ["$\\foo$", "cost $5 and $6", "_background_cell", "\\alpha_{1", "plain"]
CURVE = np.linspace(1, 0, 30)[None].repeat(len(NAMES), 0)


def draw_curve(path: Path) -> None:
    curves.plot_confidence_curve(np.linspace(0, 1, 30), CURVE, NAMES, label="F1", best=0.4, path=path)


def draw_precision(path: Path) -> None:
    curves.plot_precision_recall(CURVE, CURVE[:, 0], NAMES, path)


def draw_matrix(path: Path) -> None:
    counts = np.eye(len(NAMES) + 1)
    matrices.plot_confusion(counts, counts, NAMES, path, note="a note")


def draw_labels(path: Path) -> None:
    rows = np.array([(class_id, 0.5, 0.4, 0.2, 0.1) for class_id in range(len(NAMES))])
    labels.plot_labels(rows, NAMES, path)


def draw_comparison(path: Path) -> None:
    rows = [ForestRow(label=name, value=0.1, low=0.0, high=0.2) for name in NAMES[1:]]
    values = [0.1] * len(NAMES)
    accuracy = np.full((len(NAMES), 3), 0.1)
    drawn = comparison.overview(
        NAMES, curves={}, differences={"mAP50": rows}, accuracy=accuracy, costs={"GFLOPs": values}
    )
    figure.save_figure(drawn, path)


def draw_sampling(path: Path) -> None:
    points = np.array(((4.0, 5.0), (8.0, 9.0)))
    positions = [sampling.SampledPosition(label=name, initial_xy=points, learned_xy=points + 1) for name in NAMES]
    image = np.full((30, 50, 3), 90, np.uint8)
    sampling.plot_sampling(image, positions, title="t", cell_wh=(4.0, 4.0), map_xyxy=(0, 0, 50, 30), path=path)


DRAWINGS = [draw_curve, draw_precision, draw_matrix, draw_labels, draw_comparison, draw_sampling]


@pytest.mark.slow
@pytest.mark.parametrize("draw", DRAWINGS)
def test_every_plot_draws_names_literally(
    draw: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    drawn: list[str] = []
    original = Text.draw

    def record(self: Text, *args: object, **kwargs: object) -> None:
        if self.get_visible() and self.get_text():
            assert not self.get_parse_math()
            drawn.append(self.get_text())
        original(self, *args, **kwargs)

    monkeypatch.setattr(Text, "draw", record)
    draw(tmp_path / "a.png")
    for name in NAMES:
        assert any(name in text for text in drawn), name


def test_dollars_in_tick_labels_created_while_drawing_are_not_a_formula(tmp_path: Path):
    plot = Figure()
    axis = plot.subplots()
    axis.plot([0, 1], [0, 1])
    axis.xaxis.set_major_formatter(lambda value, _: f"$\\foo {value:.1f}$")
    path = figure.save_figure(plot, tmp_path / "a.png")  # matplotlib raises on \\foo if it parses it
    # The tick labels are drawn: dark pixels below the axes, across their width.
    pixels = cv2.imread(str(path))
    box = axis.get_window_extent()
    scale = pixels.shape[1] / plot.bbox.width
    below = pixels[-round(box.y0 * scale) + 12 :, round(box.x0 * scale) : round(box.x1 * scale)]
    dark = (below < 100).all(-1).any(0)
    assert all(part.any() for part in np.array_split(dark, 5))


@pytest.mark.slow
def test_long_names_leave_room_for_the_plot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    long = "an unusually long name of a class, as people write who label in whole sentences, number 7"
    widths = []

    def measure(plot: Figure, path: Path) -> None:
        plot.draw_without_rendering()
        widths.append(plot.axes[0].get_window_extent().width)

    monkeypatch.setattr(matrices, "save_figure", measure)
    for name in ("a", long):
        matrices.plot_confusion(np.eye(4), np.eye(4), [name, "b", "c"], tmp_path / "c.png")
    assert widths[1] > 0.6 * widths[0]
