"""Which font shows a text: matplotlib's own for most scripts, else one of the system's that has all its letters."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterable, Sequence

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font
from PIL import ImageFont, features

from utils.log import LOGGER

OWN_FONT = "DejaVu Sans"
LONGEST = 28  # letters of a class's name that are shown
# Tried before all others, since they are made for reading: Chinese, Japanese and Korean, then everything else.
PREFERRED = (
    *("Noto Sans CJK", "Noto Sans SC", "Source Han Sans", "WenQuanYi", "Microsoft YaHei", "PingFang", "SimHei"),
    *("Malgun Gothic", "Yu Gothic", "Hiragino Sans", "Noto Sans", "Arial Unicode", "Segoe UI", "FreeSans"),
)
PLACEHOLDERS = "Last Resort"  # fonts of this name have a box for every letter
SHAPED_SCRIPTS = (
    *("DEVANAGARI", "BENGALI", "GURMUKHI", "GUJARATI", "ORIYA", "TAMIL", "TELUGU", "KANNADA", "MALAYALAM"),
    *("SINHALA", "KHMER", "MYANMAR", "TIBETAN"),
)


def printable(name: str, number: int, *, longest: int = LONGEST) -> str:
    """Return the name of a class or a model as images show it.

    Where a font here can show it, its middle is left out if it is long, so that it takes no image's place; else its
    number is returned, which is said once.

    Args:
        name: any text.
        number: what stands for it.
        longest: letters that it may have.
    """
    shown = shortened(name, longest)
    if _family(shown) is not None:
        return shown
    if not _warned():
        _warned().append(name)
        LOGGER.warning(f"no font here shows the name {name!r}; numbers are drawn instead, {number} for it")
    return str(number)


def shortened(name: str, longest: int) -> str:
    """Return a name of at most so many letters, the middle left out."""
    if len(name) <= longest:
        return name
    end = (longest - 3) * 2 // 5
    return f"{name[: longest - 3 - end]}...{name[len(name) - end :]}"


def font(text: str, size: int) -> ImageFont.FreeTypeFont:
    """Return the font that shows a text, at a height in pixels; matplotlib's own if there is none."""
    return _load(_family(text) or OWN_FONT, size)


def families(texts: Iterable[str]) -> list[str]:
    """Return font families that together show the texts, for matplotlib to look through, its own first."""
    found = dict.fromkeys(_family(text) or OWN_FONT for text in texts)
    return list(dict.fromkeys((OWN_FONT, *found)))


def printables(names: Sequence[str]) -> list[str]:
    """Return what `printable` makes of each name, its place being its number."""
    return [printable(name, number) for number, name in enumerate(names)]


@functools.lru_cache(maxsize=1)
def _warned() -> list[str]:
    """Return the name that was warned of, once there was one."""
    return []


@functools.lru_cache(maxsize=64)
def _load(family: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(_fonts()[family], size)


@functools.lru_cache(maxsize=1)
def _fonts() -> dict[str, str]:
    """Return a file for each family, upright and of normal weight where there is one, in the order to be tried."""
    usable = [entry for entry in font_manager.fontManager.ttflist if not entry.name.startswith(PLACEHOLDERS)]
    usable.sort(key=lambda entry: (entry.style != "normal", str(entry.weight) not in ("400", "normal"), entry.name))
    files: dict[str, str] = {OWN_FONT: str(font_manager.findfont(OWN_FONT))}
    for start in (*PREFERRED, ""):
        for entry in usable:
            if entry.name.startswith(start):
                files.setdefault(entry.name, str(entry.fname))
    return files


@functools.lru_cache(maxsize=128)
def _face(file: str) -> FT2Font:
    return FT2Font(file)


@functools.lru_cache(maxsize=2048)
def _family(text: str) -> str | None:
    """Return the first family with all letters of a text; None if there is none, or letters would not be joined."""
    letters = {ord(letter) for letter in text if not letter.isspace()}
    if any(map(_needs_shaping, text)) and not _can_shape():
        return None
    for family, file in _fonts().items():
        try:
            face = _face(file)
        except (OSError, RuntimeError):  # a damaged font, or one that has been removed
            continue
        if all(face.get_char_index(letter) for letter in letters):
            return family
    return None


def _needs_shaping(letter: str) -> bool:
    """Whether a letter is written from right to left, or changes its form with its neighbours."""
    if letter < "\u0590":
        return False
    return unicodedata.bidirectional(letter) in ("R", "AL") or unicodedata.name(letter, "").startswith(SHAPED_SCRIPTS)


@functools.lru_cache(maxsize=1)
def _can_shape() -> bool:
    """Whether both drawing libraries here lay out such scripts: Pillow with libraqm, matplotlib from 3.11 on."""
    version = tuple(int(part) for part in mpl.__version__.split(".")[:2])
    return bool(features.check("raqm")) and version >= (3, 11)
