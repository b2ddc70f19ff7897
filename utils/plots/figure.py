"""What all matplotlib plots share: saving without matplotlib's global state, colours, grids, legends."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text

from utils.files import atomic_write
from utils.plots.fonts import drawable, font_families

BLUE, ORANGE, GREEN, GREY = "#2563a8", "#d9730d", "#3a8a4d", "#8a8f98"
SERIES_COLOURS = (BLUE, ORANGE, GREEN, "#8a4fb0", "#b03a5b", "#4d7f86", "#a08a2c", GREY)


def series_colour(index: int) -> str:
    """Return the colour of a series, such as a model; it repeats after eight."""
    return SERIES_COLOURS[index % len(SERIES_COLOURS)]


def add_grid(axis: Axes) -> None:
    """Draw thin grid lines."""
    axis.grid(color="#e4e6ea", linewidth=0.6)


def save_figure(figure: Figure, path: Path | str, *, dpi: int = 120) -> Path:
    """Write a figure atomically in the format of the suffix, each character in a font that has it.

    Dollar signs in names do not start a formula.
    """
    for text in figure.findobj(Text):
        if isinstance(text, Text):
            text.set_parse_math(False)
            if not text.get_text().isascii():
                lines = map(drawable, text.get_text().split("\n"))
                text.set(text="\n".join(lines), fontfamily=font_families([text.get_text()]))
    buffer = io.BytesIO()
    with mpl.rc_context({"text.parse_math": False}):  # for tick labels, which are created while drawing
        figure.savefig(buffer, format=Path(path).suffix[1:], dpi=dpi)
    return atomic_write(path, buffer.getvalue())


def add_legend(figure: Figure, entries: Sequence[tuple[Artist, str]], **options: Any) -> Legend:  # noqa: ANN401
    """Add a legend of (artist, name) pairs; `options` are those of matplotlib's `Figure.legend`.

    matplotlib hides entries whose name begins with an underscore, so the names are set afterwards.
    """
    placeholders = [str(index) for index in range(len(entries))]
    legend = figure.legend([artist for artist, _ in entries], placeholders, **options)
    for text, (_, name) in zip(legend.get_texts(), entries, strict=True):
        text.set_text(name)
    return legend
