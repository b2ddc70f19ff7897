"""Names are drawn by a font that has their letters; without one their numbers are, and one warning says so."""

import logging

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager

from utils.plots import fonts
from utils.plots.boxes import draw_boxes, image_grid
from utils.plots.comparison import Interval, plot_comparison
from utils.plots.curves import plot_confidence_curve, plot_precision_recall
from utils.plots.figure import save_figure
from utils.plots.matrices import plot_confusion
from utils.plots.sampling import OffsetSpread, plot_offsets

NAME, OTHER = "细胞", "\ufdd0\U00012000"  # two cells; and letters that no font here has


def forget():
    for function in (fonts._fonts, fonts._family, fonts._load, fonts._face, fonts._warned):
        function.cache_clear()


def square_font(path, letters):
    """Write a font whose letters are black squares."""
    pen = TTGlyphPen(None)
    pen.moveTo((100, 0))
    for corner in ((900, 0), (900, 800), (100, 800)):
        pen.lineTo(corner)
    pen.closePath()
    square = pen.glyph()
    names = [".notdef", *(f"u{ord(letter):x}" for letter in letters)]
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(letter): f"u{ord(letter):x}" for letter in letters})
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), **dict.fromkeys(names[1:], square)})
    builder.setupHorizontalMetrics(dict.fromkeys(names, (1000, 0)))
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupNameTable({"familyName": "Squares", "styleName": "Regular"})
    builder.setupOS2(usWeightClass=400)
    builder.setupPost()
    builder.save(path)


@pytest.fixture
def only_own(monkeypatch):
    """matplotlib's own fonts and nothing else."""
    own = [entry for entry in font_manager.fontManager.ttflist if "mpl-data" in entry.fname]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", own)
    forget()
    yield own
    forget()


@pytest.fixture
def with_squares(only_own, tmp_path):
    """A font for one name more."""
    square_font(tmp_path / "squares.ttf", NAME + "0. 9")
    font_manager.fontManager.addfont(str(tmp_path / "squares.ttf"))
    forget()


def warnings_of(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_numbers_and_one_warning_without_a_font(only_own, caplog):
    assert fonts.printables(["cat", NAME, "Größe", "кот", OTHER]) == ["cat", "1", "Größe", "кот", "4"]
    assert len(warnings_of(caplog)) == 1 and NAME in caplog.text


def test_name_is_drawn_where_a_font_is_found(with_squares, caplog):
    assert fonts.printables([NAME, OTHER]) == [NAME, "1"]
    assert fonts.families([NAME, "cat"]) == [fonts.OWN_FONT, "Squares"]
    assert fonts.font(NAME, 12).getname()[0] == "Squares" and fonts.font("cat", 12).getname()[0] == fonts.OWN_FONT
    canvas = np.zeros((60, 90, 3), np.uint8)
    drawn = draw_boxes(canvas, np.array([[10.0, 30, 80, 55]]), [NAME], [0])
    label = drawn[8:30, 8:45]
    assert (label > 240).all(-1).mean() > 0.3, "the squares of both letters"
    grid = image_grid([canvas], [f"{NAME}9"])
    assert (grid[:20] > 240).all(-1).mean() > 0.05


@pytest.mark.parametrize("letter", ["\u05d0", "\u0628", "\u0915"])
def test_joined_scripts_need_a_library_that_joins(letter, only_own, monkeypatch):
    monkeypatch.setattr(fonts, "_can_shape", lambda: False)
    assert fonts.printable(letter, 3) == "3"
    assert not fonts._needs_shaping("a") and not fonts._needs_shaping("胞") and fonts._needs_shaping(letter)


def test_last_resort_fonts_do_not_count(only_own):
    assert all(not family.startswith("Last Resort") for family in fonts._fonts())


def test_a_comparison_has_no_missing_letters(with_squares, tmp_path, recwarn, monkeypatch):
    shown = []
    monkeypatch.setattr(
        "utils.plots.comparison.save_figure", lambda figure, path: shown.append(figure) or save_figure(figure, path)
    )
    interval = {"mAP50": [Interval(model=1, value=0.1, low=0.0, high=0.2)]}
    cost, names = {"GFLOPs": [1.0, 2.0, 3.0]}, [NAME, f"{NAME}0.9", OTHER]
    plot_comparison(names, curves={}, intervals=interval, accuracy=[0.1, 0.2, 0.3], costs=cost, path=tmp_path / "a.png")
    texts = [text.get_text() for text in shown[0].legends[0].get_texts()]
    assert texts == [NAME, f"{NAME}0.9", "3"], "the place of the one that cannot be shown"
    nothing = np.zeros(3)
    layer = OffsetSpread(name="model.1", rows=nothing, columns=nothing, mean=0.0, outside=0.0, began_outside=0.0)
    plot_offsets([layer], tmp_path / "b.png", note=NAME)
    assert not [str(warning.message) for warning in recwarn if "missing from" in str(warning.message)]


@pytest.mark.slow
def test_curves_and_matrix_have_no_missing_letters(with_squares, tmp_path, recwarn):
    names = [NAME, "cat"]
    curves, grid = np.linspace(1, 0, 100)[None].repeat(2, 0), np.linspace(0, 1, 100)
    plot_confidence_curve(grid, curves, names, label="F1", best=0.3, path=tmp_path / "a.png")
    best = (np.array([0.5, 0.6]), np.array([0.7, 0.8]), 0.3)
    plot_precision_recall(curves, np.array([0.5, 0.6]), names, tmp_path / "b.png", best=best)
    counts = np.array([[3, 0, 1], [1, 2, 0], [0, 1, 0]])
    plot_confusion(counts, counts / counts.sum(0), names, tmp_path / "c.png", note="note")
    assert all((tmp_path / f"{name}.png").stat().st_size > 5000 for name in "abc")
    assert not [str(warning.message) for warning in recwarn if "missing from" in str(warning.message)]
