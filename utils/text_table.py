"""Cells of tables in a terminal, where a Chinese character is two columns wide and an accent none."""

from __future__ import annotations

import unicodedata


def display_width(text: str) -> int:
    """Return the number of columns that a text takes in a terminal."""
    return sum(map(_columns, text))


def left(text: str, width: int) -> str:
    """Return a text filled with spaces on the right, so that it takes at least `width` columns."""
    return text + " " * (width - display_width(text))


def right(text: str, width: int) -> str:
    """Return a text filled with spaces on the left, so that it takes at least `width` columns."""
    return " " * (width - display_width(text)) + text


def clip(text: str, width: int) -> str:
    """Return the beginning of a text that takes at most `width` columns."""
    while display_width(text) > width:
        text = text[:-1]
    return text


def _columns(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf", "Cc"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
