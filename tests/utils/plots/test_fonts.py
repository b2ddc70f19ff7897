"""Each character is drawn in a font that has it; for a name without one its index is drawn, with one warning."""

import logging

import cv2
import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from matplotlib.figure import Figure

from utils.plots import fonts
from utils.plots.boxes import draw_boxes, image_grid
from utils.plots.comparison import overview
from utils.plots.curves import plot_confidence_curve, plot_precision_recall
from utils.plots.figure import save_figure
from utils.plots.forest import ForestRow
from utils.plots.matrices import plot_confusion
from utils.plots.sampling import OffsetSamples, plot_offsets

CELLS, UNSUPPORTED = "细胞", "\ufdd0\U00012000"  # the first is in the test's own font, the second in none


def clear_caches():
    for function in (fonts._font_files, fonts._family, fonts._load, fonts._face, fonts._add_new_fonts):
        function.cache_clear()
    fonts._warned.clear()


def write_square_font(path, letters):
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
def default_fonts_only(monkeypatch):
    """Only the fonts that matplotlib ships."""
    monkeypatch.setattr(font_manager, "findSystemFonts", list)
    shipped = [entry for entry in font_manager.fontManager.ttflist if "mpl-data" in entry.fname]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", shipped)
    clear_caches()
    yield
    clear_caches()


@pytest.fixture
def with_square_font(default_fonts_only, tmp_path):
    """The shipped fonts, and one that has `CELLS` but no other letter, no digit and no space."""
    write_square_font(tmp_path / "squares.ttf", CELLS)
    font_manager.fontManager.addfont(str(tmp_path / "squares.ttf"))
    clear_caches()


@pytest.fixture
def no_missing_glyphs(recwarn):
    """Fail if matplotlib warns that a font lacks a glyph."""
    yield
    assert not [str(warning.message) for warning in recwarn if "missing from" in str(warning.message)]


def test_without_a_font_indices_and_one_warning(default_fonts_only, caplog):
    assert fonts.display_names(["cat", CELLS, "Größe", "кот", UNSUPPORTED]) == ["cat", "1", "Größe", "кот", "4"]
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert CELLS in warning.getMessage()


def test_an_installed_font_is_used_for_the_characters_that_it_has(with_square_font):
    mixed = f"{CELLS} Zß9"
    assert fonts.display_names([CELLS, UNSUPPORTED, mixed]) == [CELLS, "1", mixed]
    assert fonts.font_families(["cat"]) == [fonts.DEFAULT_FONT]
    assert fonts.font_families([mixed, "cat"]) == [fonts.DEFAULT_FONT, "Squares"]
    runs = [(part, font.getname()[0]) for _, part, font in fonts._runs(f"a{mixed}", 12)]
    assert runs == [("a", fonts.DEFAULT_FONT), (CELLS, "Squares"), (" Zß9", fonts.DEFAULT_FONT)]
    left, top, right, bottom = fonts.text_box(mixed, 20)
    alone, rest = fonts.text_box(CELLS, 20), fonts.text_box(" Zß9", 20)
    assert (left, alone[2]) == (0, 40) and right == pytest.approx(40 + rest[2])
    assert top == min(alone[1], rest[1]) and bottom == max(alone[3], rest[3])


def test_boxes_and_captions_mix_fonts(with_square_font):
    canvas = np.zeros((60, 90, 3), np.uint8)
    drawn = draw_boxes(canvas, np.array([[10.0, 30, 80, 55]]), [f"{CELLS} 1"], [0])
    white = (drawn[8:30, 10:80] > 240).all(-1).any(0)
    assert white[2:30].mean() > 0.8, "the squares of both letters"
    assert 0 < white[34:55].mean() < 0.7, "a digit, and no box in its place"
    grid = image_grid([canvas], [f"{CELLS}9"])
    assert (grid[:20] > 240).all(-1).mean() > 0.05
    assert (image_grid([canvas], ["9" * 90])[4:20, 86:89] < 240).all(), "a long caption ends within its tile"


def test_what_no_font_has_is_never_drawn_as_a_box(default_fonts_only, tmp_path, caplog):
    assert fonts.drawable(f"a{CELLS}\n b\t\ufe0f\u200d") == "a?? b"
    assert fonts.drawable("кот") == "кот" and fonts.display_name("❤\ufe0f", 3) == "❤"
    assert not any(map(fonts._is_invisible, fonts.drawable("a\u200d\ufeff\x07 b")))
    figure = Figure()
    title = figure.suptitle(f"x\n{CELLS}")
    save_figure(figure, tmp_path / "a.png")
    assert title.get_text() == "x\n??"
    assert len([record for record in caplog.records if record.levelno == logging.WARNING]) == 1


@pytest.mark.parametrize(
    ("character", "package"), [("细", "fonts-noto-cjk"), ("한", "fonts-noto-cjk"), ("\U00012000", "fonts-noto-core")]
)
def test_the_warning_names_a_package(character, package, default_fonts_only, caplog):
    fonts.display_name(f"a{character}", 0)
    assert package in caplog.text


def test_a_font_installed_after_matplotlib_listed_them_is_found_once(default_fonts_only, tmp_path, monkeypatch):
    write_square_font(tmp_path / "squares.ttf", CELLS)
    (tmp_path / "broken.ttf").write_bytes(b"not a font")
    calls = []
    files = [str(tmp_path / name) for name in ("broken.ttf", "squares.ttf")]
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: calls.append(1) or files)
    assert fonts.display_name("cat", 0) == "cat" and not calls, "a search costs time"
    assert fonts.display_names([CELLS, UNSUPPORTED, "\U00012001"]) == [CELLS, "1", "2"]
    assert len(calls) == 1


@pytest.mark.parametrize("letter", ["\u05d0", "\u0628", "\u0915"])
def test_scripts_that_need_shaping_need_a_library_that_shapes(letter, default_fonts_only, monkeypatch):
    monkeypatch.setattr(fonts, "_can_shape", lambda: False)
    assert fonts.display_name(letter, 3) == "3"
    assert not fonts._needs_shaping("a") and not fonts._needs_shaping("胞") and fonts._needs_shaping(letter)


def test_placeholder_fonts_are_not_used(default_fonts_only):
    assert fonts._font_files() and all(not family.startswith("Last Resort") for family in fonts._font_files())


def test_long_names_keep_both_ends():
    long = "an unusually long name of a class, number 7"
    start, end = fonts.shorten(long, 28).split("...")
    assert len(start) + 3 + len(end) == 28 and long.startswith(start) and long.endswith(end)
    assert fonts.shorten("x" * 28, 28) == "x" * 28
    assert len({fonts.shorten(f"{long}{n}", 28) for n in range(9)}) == 9


@pytest.mark.usefixtures("with_square_font", "no_missing_glyphs")
def test_a_comparison_shows_positions_for_unsupported_names(tmp_path):
    rows = {"mAP50": [ForestRow(label=f"{CELLS}0.9", value=0.1, low=0.0, high=0.2, series=1)]}
    cost, names = {"GFLOPs": [1.0, 2.0, 3.0]}, [CELLS, f"{CELLS}0.9", UNSUPPORTED]
    accuracy = np.tile([[0.1], [0.2], [0.3]], 3)
    figure = overview(names, curves={}, differences=rows, accuracy=accuracy, costs=cost)
    save_figure(figure, tmp_path / "a.png")
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts[:3] == [CELLS, f"{CELLS}0.9", "3"]
    zeros = np.zeros(3)
    layer = OffsetSamples(
        name="model.1", rows=zeros, columns=zeros, abs_mean=0.0, oob_fraction=0.0, initial_oob_fraction=0.0
    )
    plot_offsets([layer], tmp_path / "b.png", note=CELLS)


@pytest.mark.slow
@pytest.mark.usefixtures("with_square_font", "no_missing_glyphs")
def test_curves_and_the_confusion_matrix_show_names_in_that_font(tmp_path):
    names = [CELLS, "cat"]
    curves, confidences = np.linspace(1, 0, 100)[None].repeat(2, 0), np.linspace(0, 1, 100)
    plot_confidence_curve(confidences, curves, names, label="F1", best=0.3, path=tmp_path / "a.png")
    plot_precision_recall(curves, np.array([0.5, 0.6]), names, tmp_path / "b.png")
    counts = np.array([[3, 0, 1], [1, 2, 0], [0, 1, 0]])
    plot_confusion(counts, counts / counts.sum(0), names, tmp_path / "c.png", note="note")
    for name in "abc":
        assert cv2.imread(str(tmp_path / f"{name}.png")).std() > 5, "not blank"


def test_fonts_for_simplified_chinese_come_before_those_of_other_regions(default_fonts_only, monkeypatch):
    regions = [f"Noto Sans CJK {region}" for region in ("HK", "JP", "SC", "TC")]
    entries = [font_manager.FontEntry(fname=f"{name}.otf", name=name, weight=400) for name in regions]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [*font_manager.fontManager.ttflist, *entries])
    fonts._font_files.cache_clear()
    families = list(fonts._font_files())
    assert families[:2] == [fonts.DEFAULT_FONT, "Noto Sans CJK SC"] and set(regions) <= set(families)
