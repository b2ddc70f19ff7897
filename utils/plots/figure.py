"""Saving figures: without matplotlib's global state, each character in a font that has it, the same bytes each time."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.text import Text

from utils.files import atomic_write
from utils.plots.fonts import drawable, font_families
from utils.plots.style import SETTINGS

RASTER = (".png", ".jpg")
UNDATED: dict[str, dict[str, Any]] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}


def save_figure(figure: Figure, path: Path | str, *, dpi: float | None = None, title: str | None = None) -> Path:
    """Write a figure atomically in the format of the suffix, by default with the figure's own pixels per inch.

    Dollar signs in names do not start a formula. The title is for search and for readers who cannot see the figure.
    """
    for text in figure.findobj(Text):
        if isinstance(text, Text):
            text.set_parse_math(False)
            if not text.get_text().isascii():
                lines = map(drawable, text.get_text().split("\n"))
                text.set(text="\n".join(lines), fontfamily=font_families([text.get_text()]))
    buffer, suffix = io.BytesIO(), Path(path).suffix
    metadata = {**UNDATED.get(suffix, {}), **({"Title": title} if title else {})} or None
    with mpl.rc_context({**SETTINGS, "text.parse_math": False}):  # for tick labels, which are created while drawing
        engine = figure.get_layout_engine()
        if engine is not None and suffix in RASTER and not dpi:
            engine.execute(figure)  # matplotlib would draw the whole figure once for the layout, and then again
            figure.set_layout_engine(None)
        figure.savefig(buffer, format=suffix[1:], dpi=dpi or "figure", metadata=metadata)
    return atomic_write(path, buffer.getvalue())


def save_formats(figure: Figure, path: Path, formats: Iterable[str], *, title: str | None = None) -> Path:
    """Write a figure as PNG, whose path is given and returned, and in further formats beside it, in the same layout."""
    save_figure(figure, path, title=title)
    figure.set_layout_engine("none")  # keeps the places of all axes
    for suffix in formats:
        save_figure(figure, path.with_suffix(f".{suffix}"), title=title)
    return path
