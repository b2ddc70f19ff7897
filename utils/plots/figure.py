"""Saving matplotlib figures without its global state, and names in them as they are written."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text

from utils.files import atomic_write

BLUE, ORANGE, GREEN, GREY = "#2563a8", "#d9730d", "#3a8a4d", "#8a8f98"


def save_figure(figure: Figure, path: Path | str, *, dpi: int = 120) -> Path:
    """Write a figure atomically in the format of the suffix; dollar signs in it are no mathematics."""
    for text in figure.findobj(Text):
        if isinstance(text, Text):
            text.set_parse_math(False)
    buffer = io.BytesIO()
    with mpl.rc_context({"text.parse_math": False}):  # for the ticks, which are made while it draws
        figure.savefig(buffer, format=Path(path).suffix[1:], dpi=dpi)
    return atomic_write(path, buffer.getvalue())


def add_legend(figure: Figure, entries: Sequence[tuple[Artist, str]], **options: Any) -> Legend:  # noqa: ANN401
    """Add a legend of artists and their names, which may begin with an underscore: matplotlib would hide those.

    Args:
        figure: to add it to.
        entries: artists with their names.
        options: of matplotlib's `Figure.legend`.
    """
    numbers = [str(number) for number in range(len(entries))]
    legend = figure.legend([artist for artist, _ in entries], numbers, **options)
    for text, (_, name) in zip(legend.get_texts(), entries, strict=True):
        text.set_text(name)
    return legend
