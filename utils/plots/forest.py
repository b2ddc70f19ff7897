"""Forest plots: differences with their intervals, one row for each model or data set, and joint means as diamonds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from utils.plots.fonts import display_name
from utils.plots.style import BLACK, MAX_HEIGHT_MM, new_figure, series_colour, series_marker, styled
from utils.plots.translations import translate

ROW_MM = 5.0
TITLE_MM = 17.0  # of a panel, with its axis
MAX_LETTERS = 26
MIN_LIMIT = 1e-3  # of the axis, for differences of nothing
ZERO_COLOUR = "#444444"
MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True, kw_only=True)
class ForestRow:
    """A difference and its interval, nan if unknown."""

    label: str
    value: float
    low: float
    high: float
    series: int = 0  # index of the model, which has the colour
    weight: float | None = None  # share in the joint mean, from 0 to 1; larger markers weigh more
    joint: bool = False  # the joint mean of the rows above it

    def text(self) -> str:
        """Return the difference and its interval as tables write them."""
        if math.isnan(self.low):
            text = f"{self.value:+.3f}"
        else:
            text = f"{self.value:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"
        return text.replace("-", MINUS)


def max_panels(rows: int) -> int:
    """Return how many panels of a number of rows fit on a page."""
    return 2 * int(MAX_HEIGHT_MM / (TITLE_MM + ROW_MM * rows))


@styled
def forest(panels: Mapping[str, Sequence[ForestRow]], *, baseline: str, lang: str = "en") -> Figure:
    """Draw a panel per metric, in rows of two; those side by side have the same labels of rows."""
    columns = min(len(panels), 2)
    rows = -(-len(panels) // columns)
    count = max(map(len, panels.values()))
    figure = new_figure(2, rows * (TITLE_MM + ROW_MM * count))
    axes = figure.subplots(rows, columns, squeeze=False)
    for index, (axis, (title, of_panel)) in enumerate(zip(axes.ravel(), panels.items(), strict=False)):
        draw_forest(axis, of_panel, title, lang=lang, labels=index % columns == 0)
    for axis in axes.ravel()[len(panels) :]:
        axis.set_axis_off()
    name = display_name(baseline, 1, max_letters=MAX_LETTERS)
    figure.supxlabel(translate("difference from {}, 95 % interval", lang, name), fontsize=8)
    return figure


def draw_forest(axis: Axes, rows: Sequence[ForestRow], title: str, *, lang: str = "en", labels: bool = True) -> None:
    """Draw one panel; the numbers stand to the right of it."""
    heaviest = max((row.weight or 0 for row in rows), default=0)
    limit = MIN_LIMIT
    for position, row in enumerate(rows):
        ends = [value for value in (row.low, row.high) if math.isfinite(value)]
        limit = max([limit, abs(row.value), *map(abs, ends)])
        text = row.text() if row.weight is None else f"{row.text()}  {row.weight:.0%}"
        axis.annotate(text, (1.02, position), xycoords=("axes fraction", "data"), va="center", fontsize=7)
        if row.joint and len(ends) == 2:
            corners = [
                (row.low, position),
                (row.value, position - 0.3),
                (row.high, position),
                (row.value, position + 0.3),
            ]
            axis.fill(*zip(*corners, strict=True), color=BLACK, linewidth=0)
            continue
        colour, size = series_colour(row.series), 5 * math.sqrt((row.weight or heaviest or 1) / (heaviest or 1))
        axis.plot(ends, [position] * len(ends), color=colour, linewidth=1.6, solid_capstyle="butt")
        axis.plot([row.value], [position], color=colour, marker=series_marker(row.series), markersize=max(size, 2.5))
    axis.axvline(0, color=ZERO_COLOUR, linewidth=0.8, zorder=0.8)  # below diamonds
    joint = [position for position, row in enumerate(rows) if row.joint]
    if joint and joint[0] > 0:
        axis.axhline(joint[0] - 0.5, color=ZERO_COLOUR, linewidth=0.5)
    names = [display_name(translate(row.label, lang), n, max_letters=MAX_LETTERS) for n, row in enumerate(rows, 1)]
    axis.set_yticks(np.arange(len(rows)), names if labels else [""] * len(rows))
    axis.set(xlim=(-1.1 * limit, 1.1 * limit), ylim=(len(rows) - 0.4, -0.6), title=title)
    axis.tick_params(axis="y", length=0)
    axis.grid(visible=False, axis="y")
    axis.spines["left"].set_visible(False)
    step = _round_down(0.8 * limit)
    axis.set_xticks([-step, 0, step], [f"{MINUS}{step:g}", "0", f"{step:g}"])


def _round_down(value: float) -> float:
    """Return the largest of 1, 2 and 5 times a power of ten that is at most a positive value."""
    power = 10.0 ** math.floor(math.log10(value))
    return max(factor * power for factor in (1, 2, 5) if factor * power <= value)
