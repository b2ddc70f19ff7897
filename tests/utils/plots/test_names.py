"""Names of classes and models stand in every image as they are written; long ones lose their middle."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from utils.plots import comparison, curves, figure, labels, matrices, sampling
from utils.plots.boxes import STRIP, image_grid
from utils.plots.fonts import shortened

# No mathematics, nothing hidden, and a pair of dollars that belongs to no formula.
NAMES = ["$\\foo$", "cost $5 and $6", "_background_cell", "\\alpha_{1", "plain"]
CURVE = np.linspace(1, 0, 30)[None].repeat(len(NAMES), 0)


def draw_curve(path: Path) -> None:
    curves.plot_confidence_curve(np.linspace(0, 1, 30), CURVE, NAMES, label="F1", best=0.4, path=path)


def draw_precision(path: Path) -> None:
    curves.plot_precision_recall(CURVE, CURVE[:, 0], NAMES, path, best=(CURVE[:, 3], CURVE[:, 5], 0.4))


def draw_matrix(path: Path) -> None:
    counts = np.eye(len(NAMES) + 1)
    matrices.plot_confusion(counts, counts, NAMES, path, note="a note")


def draw_labels(path: Path) -> None:
    rows = np.array([(number, 0.5, 0.4, 0.2, 0.1) for number in range(len(NAMES))])
    labels.plot_labels(rows, NAMES, path)


def draw_comparison(path: Path) -> None:
    rows = [comparison.Interval(model=n, value=0.1, low=0.0, high=0.2) for n in range(1, len(NAMES))]
    figures = [0.1] * len(NAMES)
    costs = {"GFLOPs": figures}
    comparison.plot_comparison(NAMES, curves={}, intervals={"mAP50": rows}, accuracy=figures, costs=costs, path=path)


def draw_sampling(path: Path) -> None:
    points = np.array(((4.0, 5.0), (8.0, 9.0)))
    spots = [sampling.SampledPosition(label=name, initial_xy=points, learned_xy=points + 1) for name in NAMES]
    image = np.full((30, 50, 3), 90, np.uint8)
    sampling.plot_sampling(image, spots, title="t", cell_wh=(4.0, 4.0), map_xyxy=(0, 0, 50, 30), path=path)


DRAWINGS = [draw_curve, draw_precision, draw_matrix, draw_labels, draw_comparison, draw_sampling]


@pytest.mark.slow
@pytest.mark.parametrize("draw", DRAWINGS)
def test_every_name_is_shown_as_it_is_written(
    draw: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    drawn: list[str] = []
    real = Text.draw

    def note(self: Text, *words: object, **more: object) -> None:
        if self.get_visible() and self.get_text():
            assert not self.get_parse_math()
            drawn.append(self.get_text())
        real(self, *words, **more)

    monkeypatch.setattr(Text, "draw", note)
    draw(tmp_path / "a.png")
    for name in NAMES:
        assert any(name in text for text in drawn), name


def test_dollars_in_ticks_made_while_drawing_are_no_formula(tmp_path: Path):
    one = Figure()
    axis = one.subplots()
    axis.plot([0, 1], [0, 1])
    axis.xaxis.set_major_formatter(lambda value, _: f"$\\foo {value:.1f}$")
    assert figure.save_figure(one, tmp_path / "a.png").stat().st_size > 3000


@pytest.mark.slow
def test_long_names_keep_their_ends_and_images_their_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    long = "an unusually long name of a class, as people give it who label by sentences, number 7"
    short = shortened(long, 28)
    assert len(short) == 28 and long.startswith(short.split("...")[0]) and long.endswith(short.split("...")[1])
    assert shortened("x" * 28, 28) == "x" * 28 and len({shortened(f"{long}{n}", 28) for n in range(9)}) == 9
    sizes = []
    monkeypatch.setattr(matrices, "save_figure", lambda one, path: sizes.append((one.draw_without_rendering(), one)))
    for name in ("a", long):
        matrices.plot_confusion(np.eye(4), np.eye(4), [name, "b", "c"], tmp_path / "c.png")
    widths = [one.axes[0].get_window_extent().width for _, one in sizes]
    assert widths[1] > 0.6 * widths[0]


@pytest.mark.parametrize("max_side", [1920, 60])
def test_captions_stand_above_their_images_not_on_them(max_side: int):
    images = [np.full((40, 60, 3), shade, np.uint8) for shade in (30, 120, 210)]
    bare, told = (
        image_grid(images, columns=2, max_side=max_side),
        image_grid(images, ["a", "b", "c"], columns=2, max_side=max_side),
    )
    height, width = bare.shape[0] // 2, bare.shape[1] // 2
    assert (width == 60) == (max_side == 1920) and max(bare.shape) <= max(max_side, 120)
    assert told.shape == (bare.shape[0] + 2 * STRIP, bare.shape[1], 3)
    for number, shade in enumerate((30, 120, 210)):
        top, left = number // 2 * (height + STRIP), number % 2 * width
        assert (told[top + STRIP + 1 : top + STRIP + height - 1, left + 1 : left + width - 1] == shade).all()
        assert told[top : top + STRIP, left : left + width].max() == 255
