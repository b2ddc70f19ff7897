"""One style for all figures: widths of a printed page, font sizes, and the appearance of each model.

Colours are those of Okabe and Ito, which people with any colour vision can tell apart, without the yellow that is too
pale for lines. Each model also has a line style and a marker of its own, for prints in grey.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from utils.plots.fonts import display_name, shorten
from utils.text_table import display_width

WIDTH_MM = {1: 85.0, 2: 170.0}  # of one and of two columns of a page
MAX_HEIGHT_MM = 225.0
DPI = 300  # of PNG files
MM_PER_INCH = 25.4
MM_PER_LETTER = 1.5  # of a legend
LEGEND_LINE_MM = 3.9
HANDLE_LETTERS = 11  # width of a legend's line and gaps

BLUE, ORANGE, GREEN, BLACK, GREY, DARK = "#0072b2", "#d55e00", "#009e73", "#000000", "#8a8f98", "#444444"
COLOURS = (BLUE, ORANGE, GREEN, "#cc79a7", "#e69f00", "#56b4e9", BLACK)
Line = str | tuple[float, tuple[float, ...]]  # as matplotlib takes a line style
LINES: tuple[Line, ...] = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)), (0, (3, 1, 1, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
MARKS = 7  # markers along a curve
MAX_NAME_LETTERS = 44
Entry = tuple[Artist, str]  # of a legend

SETTINGS: dict[Any, Any] = {
    **{"font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8, "figure.titlesize": 8},
    **{"xtick.labelsize": 7, "ytick.labelsize": 7, "legend.fontsize": 7, "legend.title_fontsize": 7},
    **{"axes.linewidth": 0.6, "lines.linewidth": 1.2, "lines.markersize": 4, "patch.linewidth": 0.6},
    **{"axes.grid": True, "grid.color": "#e4e6ea", "grid.linewidth": 0.5, "axes.axisbelow": True},
    **{"axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False, "legend.handlelength": 3.6},
    **{"xtick.major.width": 0.6, "ytick.major.width": 0.6, "axes.formatter.useoffset": False},
    # Outlines look the same without our fonts; a PDF embeds TrueType fonts, as journals demand.
    **{"svg.fonttype": "path", "svg.hashsalt": "akyolo", "pdf.fonttype": 42},
}
styled = mpl.rc_context(SETTINGS)  # a decorator of functions that draw


def new_figure(columns: int, height_mm: float, legend: Sequence[Entry] = ()) -> Figure:
    """Return an empty figure as wide as one or two columns, and below it a legend, which adds to the height.

    Its artists are to be made in a `styled` function.
    """
    per_line, lines = legend_shape([name for _, name in legend], columns)
    height_mm += 3 * bool(legend) + LEGEND_LINE_MM * lines
    size = WIDTH_MM[columns] / MM_PER_INCH, min(height_mm, MAX_HEIGHT_MM) / MM_PER_INCH
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    if legend:
        add_legend(figure, legend, loc="outside lower center", ncols=per_line)
    return figure


def series_colour(index: int) -> str:
    """Return the colour of a series, such as a model; it repeats after seven."""
    return COLOURS[index % len(COLOURS)]


def series_line(index: int) -> Line:
    """Return the line style of a series; with the colour it repeats after 35."""
    return LINES[index % len(LINES)]


def series_marker(index: int) -> str:
    """Return the marker of a series."""
    return MARKERS[index % len(MARKERS)]


def mark_every(index: int, points: int) -> tuple[int, int]:
    """Return the first and the distance of the marked points of a curve, those of the series side by side."""
    step = max(points // MARKS, 1)
    return (index * step // 5) % step, step


def ticks(count: int, *, integer: bool = False, prune: Literal["both"] | None = None) -> MaxNLocator:
    """Return a locator of about `count` round numbers; pruned, none is at an end, next to another panel."""
    return MaxNLocator(nbins=count, steps=[1, 2, 2.5, 5, 10], integer=integer, min_n_ticks=1, prune=prune)


def model_names(names: Sequence[str], *, max_letters: int = MAX_NAME_LETTERS) -> list[str]:
    """Return the names of models as figures show them, the position from 1 where no font has a character.

    Names that are the same when shortened begin with their positions.
    """
    shown = [display_name(name, index, max_letters=max_letters) for index, name in enumerate(names, 1)]
    return [
        name if shown.count(name) == 1 else f"{index}: {shorten(name, max_letters - 4)}"
        for index, name in enumerate(shown, 1)
    ]


def entry(name: str, **look: Any) -> Entry:  # noqa: ANN401 - as matplotlib takes them
    """Return a legend entry of a line or a marker."""
    return Line2D([], [], **look), name


def model_entries(names: Sequence[str], *, lines: bool = True) -> list[Entry]:
    """Return legend entries of models: line and marker, or the marker alone."""
    return [
        entry(name, color=series_colour(i), marker=series_marker(i), linestyle=series_line(i) if lines else "")
        for i, name in enumerate(model_names(names))
    ]


def legend_shape(names: Sequence[str], columns: int) -> tuple[int, int]:
    """Return how many columns and lines a legend below a figure of one or two columns has."""
    longest = max(map(display_width, names), default=0) + HANDLE_LETTERS
    per_line = max(min(int(WIDTH_MM[columns] / MM_PER_LETTER / longest), len(names)), 1)
    return per_line, -(-len(names) // per_line)


def add_legend(figure: Figure | Axes, entries: Sequence[Entry], **options: Any) -> Legend:  # noqa: ANN401
    """Add a legend of (artist, name) pairs; `options` are those of matplotlib's `legend`.

    matplotlib hides entries whose name begins with an underscore, so the names are set afterwards.
    """
    placeholders = [str(index) for index in range(len(entries))]
    legend = figure.legend([artist for artist, _ in entries], placeholders, **options)
    for text, (_, name) in zip(legend.get_texts(), entries, strict=True):
        text.set_text(name)
    return legend
