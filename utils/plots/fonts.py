"""Fonts for names in any script: matplotlib's own for most, else an installed one that has all the characters."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterable, Sequence

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font
from PIL import ImageFont, features

from utils.log import LOGGER

DEFAULT_FONT = "DejaVu Sans"  # matplotlib's own
MAX_LETTERS = 28  # of a class name
# Tried before all others because they are made for reading: Chinese, Japanese and Korean fonts, then general ones.
PREFERRED = (
    *("Noto Sans CJK", "Noto Sans SC", "Source Han Sans", "WenQuanYi", "Microsoft YaHei", "PingFang", "SimHei"),
    *("Malgun Gothic", "Yu Gothic", "Hiragino Sans", "Noto Sans", "Arial Unicode", "Segoe UI", "FreeSans"),
)
PLACEHOLDER_FONTS = "Last Resort"  # they have a box for every character
SHAPED_SCRIPTS = (
    *("DEVANAGARI", "BENGALI", "GURMUKHI", "GUJARATI", "ORIYA", "TAMIL", "TELUGU", "KANNADA", "MALAYALAM"),
    *("SINHALA", "KHMER", "MYANMAR", "TIBETAN"),
)

_warned: set[str] = set()


def display_name(name: str, index: int, *, max_letters: int = MAX_LETTERS) -> str:
    """Return the name of a class or model as plots show it: shortened, or its index if no installed font supports it.

    The first unsupported name is logged as a warning.
    """
    text = shorten(name, max_letters)
    if _family(text) is not None:
        return text
    if not _warned:
        _warned.add(name)
        LOGGER.warning(f"no installed font supports the name {name!r}; plots show indices for such names")
    return str(index)


def display_names(names: Sequence[str]) -> list[str]:
    """Return `display_name` of each name with its position as index."""
    return [display_name(name, index) for index, name in enumerate(names)]


def shorten(name: str, max_letters: int) -> str:
    """Return a name of at most `max_letters` characters, with "..." in place of its middle if it is longer."""
    if len(name) <= max_letters:
        return name
    tail = (max_letters - 3) * 2 // 5
    return f"{name[: max_letters - 3 - tail]}...{name[len(name) - tail :]}"


def load_font(text: str, size: int) -> ImageFont.FreeTypeFont:
    """Return a font that supports a text, `size` pixels high; matplotlib's own if no font does."""
    return _load(_family(text) or DEFAULT_FONT, size)


def font_families(texts: Iterable[str]) -> list[str]:
    """Return the font families that together support the texts, matplotlib's own first."""
    return list(dict.fromkeys((DEFAULT_FONT, *(_family(text) or DEFAULT_FONT for text in texts))))


@functools.lru_cache(maxsize=64)
def _load(family: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(_font_files()[family], size)


@functools.lru_cache(maxsize=1)
def _font_files() -> dict[str, str]:
    """Return one file per family, upright and of normal weight if there is one, in the order of preference."""
    entries = [entry for entry in font_manager.fontManager.ttflist if not entry.name.startswith(PLACEHOLDER_FONTS)]
    entries.sort(key=lambda entry: (entry.style != "normal", str(entry.weight) not in ("400", "normal"), entry.name))
    files: dict[str, str] = {DEFAULT_FONT: str(font_manager.findfont(DEFAULT_FONT))}
    for prefix in (*PREFERRED, ""):
        for entry in entries:
            if entry.name.startswith(prefix):
                files.setdefault(entry.name, str(entry.fname))
    return files


@functools.lru_cache(maxsize=128)
def _face(file: str) -> FT2Font:
    return FT2Font(file)


@functools.lru_cache(maxsize=2048)
def _family(text: str) -> str | None:
    """Return the first family with all characters of a text; None if none has, or if the script cannot be shaped."""
    characters = {ord(character) for character in text if not character.isspace()}
    if any(map(_needs_shaping, text)) and not _can_shape():
        return None
    for family, file in _font_files().items():
        try:
            face = _face(file)
        except (OSError, RuntimeError):  # a damaged or removed font
            continue
        if all(face.get_char_index(character) for character in characters):
            return family
    return None


def _needs_shaping(character: str) -> bool:
    """Whether a character is written from right to left, or changes its form with its neighbours."""
    if character < "\u0590":
        return False
    right_to_left = unicodedata.bidirectional(character) in ("R", "AL")
    return right_to_left or unicodedata.name(character, "").startswith(SHAPED_SCRIPTS)


@functools.lru_cache(maxsize=1)
def _can_shape() -> bool:
    """Whether both drawing libraries shape complex scripts: Pillow with libraqm, matplotlib 3.11 or later."""
    version = tuple(int(part) for part in mpl.__version__.split(".")[:2])
    return bool(features.check("raqm")) and version >= (3, 11)
