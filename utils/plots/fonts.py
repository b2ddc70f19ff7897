"""Fonts for text in any script: matplotlib's own, and for what it lacks an installed one, character by character."""

from __future__ import annotations

import contextlib
import functools
import itertools
import unicodedata
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import ImageDraw, ImageFont, features

from utils.log import LOGGER

if TYPE_CHECKING:  # its import takes longer than drawing the boxes of an image; ASCII text does without
    from matplotlib.ft2font import FT2Font

DEFAULT_FONT = "DejaVu Sans"  # matplotlib's own
MAX_LETTERS = 28  # of a class name
# Tried before all others because they are made for reading: Chinese, Japanese and Korean fonts, then general ones.
# Those for simplified Chinese come first: fonts for Hong Kong and Taiwan centre commas and full stops.
PREFERRED = (
    *("Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "Source Han Sans CN", "Noto Sans CJK"),
    *("Source Han Sans", "WenQuanYi", "Microsoft YaHei", "PingFang", "SimHei"),
    *("Malgun Gothic", "Yu Gothic", "Hiragino Sans", "Noto Sans", "Arial Unicode", "Segoe UI", "FreeSans"),
)
# The first has a box for every character, the others are bitmaps of one size.
UNUSABLE_FONTS = ("Last Resort", "Noto Color Emoji", "Apple Color Emoji")
CJK = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "FULLWIDTH", "IDEOGRAPHIC")
SHAPED_SCRIPTS = (
    *("DEVANAGARI", "BENGALI", "GURMUKHI", "GUJARATI", "ORIYA", "TAMIL", "TELUGU", "KANNADA", "MALAYALAM"),
    *("SINHALA", "KHMER", "MYANMAR", "TIBETAN"),
)

Colour = tuple[int, int, int]

_warned: set[str] = set()


def display_name(name: str, index: int, *, max_letters: int = MAX_LETTERS) -> str:
    """Return the name of a class or model as plots show it: shortened, or its index if a character has no font.

    The first unsupported name is logged as a warning.
    """
    text = shorten(_one_line(name), max_letters)
    missing = [character for character in text if _family(character) is None]
    if not missing:
        return text
    _warn(missing[0], name)
    return str(index)


def display_names(names: Sequence[str]) -> list[str]:
    """Return `display_name` of each name with its position as index."""
    return [display_name(name, index) for index, name in enumerate(names)]


def drawable(text: str) -> str:
    """Return a text with "?" in place of characters without a font; the first such text is logged as a warning."""
    text = _one_line(text)
    missing = [character for character in text if _family(character) is None]
    if missing:
        _warn(missing[0], text)
    return "".join("?" if character in missing else character for character in text)


def _one_line(text: str) -> str:
    """Return a text with single spaces, without invisible characters but the joiners of scripts that are shaped."""
    text = " ".join(text.split())
    return text if any(map(_needs_shaping, text)) else "".join(c for c in text if not _is_invisible(c)).strip()


def _is_invisible(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf") or "VARIATION SELECTOR" in unicodedata.name(character, "")


def _warn(character: str, text: str) -> None:
    if _warned:
        return
    _warned.add(text)
    name = unicodedata.name(character, "")
    if _needs_shaping(character) and not _can_shape():
        fix = "install Pillow with libraqm, and matplotlib 3.11"
    else:
        package = "fonts-noto-cjk" if name.startswith(CJK) else "fonts-noto-core fonts-symbola"
        fix = f"install a font that has it, on Debian and Ubuntu: apt install {package}"
    LOGGER.warning(f"plots cannot draw {character!r} of {text!r}; they show an index or a question mark. Fix: {fix}")


def shorten(name: str, max_letters: int) -> str:
    """Return a name of at most `max_letters` characters, with "..." in place of its middle if it is longer."""
    if len(name) <= max_letters:
        return name
    tail = (max_letters - 3) * 2 // 5
    return f"{name[: max_letters - 3 - tail]}...{name[len(name) - tail :]}"


def font_families(texts: Iterable[str]) -> list[str]:
    """Return the font families that together have the characters of the texts, matplotlib's own first.

    matplotlib searches each character in the families in this order.
    """
    return list(dict.fromkeys([DEFAULT_FONT, *(_family(character) or DEFAULT_FONT for character in "".join(texts))]))


def text_box(text: str, size: int) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom of a `drawable` text in pixels, relative to the start of its baseline.

    `size` is the height of the font in pixels.
    """
    boxes = [(x, font.getbbox(part, anchor="ls")) for x, part, font in _runs(text, size)]
    lefts, tops, rights, bottoms = zip(*((x + b[0], b[1], x + b[2], b[3]) for x, b in boxes), strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)


def draw_text(drawing: ImageDraw.ImageDraw, xy: tuple[float, float], text: str, size: int, colour: Colour) -> None:
    """Draw a `drawable` text whose baseline starts at `xy`, each character in a font that has it."""
    for x, part, font in _runs(text, size):
        drawing.text((xy[0] + x, xy[1]), part, font=font, fill=colour, anchor="ls")


def _runs(text: str, size: int) -> list[tuple[float, str, ImageFont.FreeTypeFont]]:
    """Split a text by font; return the distance of each part from the start, in pixels, and its font."""
    x, runs = 0.0, []
    for family, characters in itertools.groupby(text or " ", lambda character: _family(character) or DEFAULT_FONT):
        part, font = "".join(characters), _load(family, size)
        runs.append((x, part, font))
        x += font.getlength(part)
    return runs


@functools.lru_cache(maxsize=64)
def _load(family: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(_default_file() if family == DEFAULT_FONT else _font_files()[family], size)


@functools.lru_cache(maxsize=1)
def _default_file() -> str:
    """Return the file of the default font, which is part of matplotlib's package."""
    spec = find_spec("matplotlib")
    folders = (spec and spec.submodule_search_locations) or []
    files = [Path(folder, "mpl-data", "fonts", "ttf", f"{DEFAULT_FONT.replace(' ', '')}.ttf") for folder in folders]
    return next((str(file) for file in files if file.is_file()), "") or _font_files()[DEFAULT_FONT]


@functools.lru_cache(maxsize=1)
def _font_files() -> dict[str, str]:
    """Return one file per family, upright and of normal weight if there is one, in the order of preference."""
    from matplotlib import font_manager

    entries = [entry for entry in font_manager.fontManager.ttflist if not entry.name.startswith(UNUSABLE_FONTS)]
    entries.sort(key=lambda entry: (entry.style != "normal", str(entry.weight) not in ("400", "normal"), entry.name))
    files: dict[str, str] = {DEFAULT_FONT: str(font_manager.findfont(DEFAULT_FONT))}
    for prefix in (*PREFERRED, ""):
        for entry in entries:
            if entry.name.startswith(prefix):
                files.setdefault(entry.name, str(entry.fname))
    return files


@functools.lru_cache(maxsize=128)
def _face(file: str) -> FT2Font:
    from matplotlib.ft2font import FT2Font

    return FT2Font(file)


@functools.lru_cache(maxsize=4096)
def _family(character: str) -> str | None:
    """Return the first family with a character; None if none has it, or if its script cannot be shaped."""
    if character.isspace() or (character.isascii() and character.isprintable()):
        return DEFAULT_FONT
    if _needs_shaping(character) and not _can_shape():
        return None
    found = _search(ord(character))
    if found is None and _add_new_fonts():
        found = _search(ord(character))
    return found


def _search(code: int) -> str | None:
    for family, file in _font_files().items():
        with contextlib.suppress(OSError, RuntimeError):  # a damaged or removed font
            if _face(file).get_char_index(code):
                return family
    return None


@functools.lru_cache(maxsize=1)
def _add_new_fonts() -> bool:
    """Add the fonts installed since matplotlib wrote its list of them, once; return whether there are any."""
    from matplotlib import font_manager

    known = {entry.fname for entry in font_manager.fontManager.ttflist}
    new = [file for file in font_manager.findSystemFonts() if file not in known]
    for file in new:
        with contextlib.suppress(Exception):  # a font that matplotlib cannot read, for whatever reason
            font_manager.fontManager.addfont(file)
    _font_files.cache_clear()
    return bool(new)


def _needs_shaping(character: str) -> bool:
    """Whether a character is written from right to left, or changes its form with its neighbours."""
    if character < "\u0590":
        return False
    right_to_left = unicodedata.bidirectional(character) in ("R", "AL")
    return right_to_left or unicodedata.name(character, "").startswith(SHAPED_SCRIPTS)


@functools.lru_cache(maxsize=1)
def _can_shape() -> bool:
    """Whether both drawing libraries shape complex scripts: Pillow with libraqm, matplotlib 3.11 or later."""
    import matplotlib as mpl

    version = tuple(int(part) for part in mpl.__version__.split(".")[:2])
    return bool(features.check("raqm")) and version >= (3, 11)
