"""Where a structure diagram's boxes and lines are: columns of boxes, joined by orthogonal lines that cross no box.

Boxes stand in a grid: one column for each run of rows in which the resolution falls or rises, one slot for each box of
a column, and the same slots for the same resolution in all columns. Lines run in lanes between the columns, in tracks
between the slots, and through empty slots. Letters: s source and t target of an edge, both numbers of boxes.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

Point = tuple[float, float]
Edge = tuple[int, int]
BOX_HEIGHT = 26.5  # all lengths are in points, 1/72 inch
SLOT_GAP = 7.5  # between boxes of a column, without tracks
COLUMN_GAP = 15.0  # at least
PITCH = 4.0  # of parallel lines
HEAD_ROOM = 6.5  # between a box and a lane, for an arrow's head


@dataclass(frozen=True, kw_only=True)
class Rectangle:
    """An area; y points down."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A laid-out diagram."""

    boxes: dict[int, Rectangle]
    routes: list[list[Point]]  # corners of each edge's line, from its source to its target
    bands: dict[int, tuple[float, float]]  # top and bottom of the boxes of each level
    width: float
    bottom: float


def split_columns(levels: Sequence[int], starts: Sequence[int]) -> list[list[int]]:
    """Divide boxes 0, 1, ... into columns, in which the level only rises or only falls.

    `levels` is the level of each box, log2 of its stride; a column begins at each of `starts`.
    """
    columns: list[list[int]] = []
    direction = 0
    for box, level in enumerate(levels):
        step = level - levels[box - 1] if box else 0
        if box == 0 or box in starts or step * direction < 0:
            columns.append([])
            direction = step = 0
        direction = direction or step
        columns[-1].append(box)
    return columns


def lay_out(
    columns: Sequence[Sequence[int]],
    levels: Sequence[int],
    edges: Sequence[Edge],
    widths: Sequence[float],
    *,
    left: float,
    top: float,
) -> Layout:
    """Place boxes and route edges, each from a box of an earlier or the same column.

    The boxes of the last column stand beside their sources, as do those of a column in which each has one source in
    another column; `widths` are those of the columns.
    """
    slots, level_of = _assign_slots(columns, levels, edges)
    column_of = {box: column for column, boxes in enumerate(columns) for box in boxes}
    wires = _plan(columns, slots, column_of, edges)

    tracks = [list(dict.fromkeys(w.s for w in wires if w.corridor == slot)) for slot in range(len(level_of) + 1)]
    gaps = [PITCH * len(sources) + (SLOT_GAP if slot else 0) for slot, sources in enumerate(tracks)]
    tops = [top + sum(gaps[: slot + 1]) + BOX_HEIGHT * slot for slot in range(len(gaps))]
    middles = {box: tops[slot] + BOX_HEIGHT / 2 for box, slot in slots.items()}
    entries = _entry_heights(wires, middles)

    bends = []  # of each wire, the gaps in which it changes its height, and the heights before and after
    spans: dict[tuple[int, int], list[float]] = defaultdict(list)  # gap and source -> heights; they share a lane
    for wire, entry in zip(wires, entries, strict=True):
        heights = [middles[wire.s], entry]
        if wire.corridor is not None:
            order, count = tracks[wire.corridor].index(wire.s) + 1, len(tracks[wire.corridor]) + 1
            heights.insert(1, tops[wire.corridor] - gaps[wire.corridor] * order / count)
        bends.append([*zip(wire.gaps, heights, heights[1:], strict=False)])
        for gap, before, after in bends[-1]:
            spans[gap, wire.s] += [before, after]
    lanes = _assign_lanes(spans)

    lefts, x = [], left
    for column, width in enumerate(widths):
        lefts.append(x)
        count = len({lane for (gap, _), lane in lanes.items() if gap == column})
        x += width + (max(COLUMN_GAP, HEAD_ROOM + PITCH * (count - 1) + HEAD_ROOM) if column + 1 < len(widths) else 0)
    boxes = {
        box: Rectangle(x=lefts[column_of[box]], y=tops[slot], width=widths[column_of[box]], height=BOX_HEIGHT)
        for box, slot in slots.items()
    }
    routes: list[list[Point]] = []
    for wire, entry, bend in zip(wires, entries, bends, strict=True):
        source, target = boxes[wire.s], boxes[wire.t]
        if wire.vertical:
            middle, down = source.x + source.width / 2, source.y < target.y
            routes.append([(middle, source.y + BOX_HEIGHT * down), (middle, target.y + BOX_HEIGHT * (not down))])
            continue
        points = [(source.x + source.width, middles[wire.s])]
        for gap, before, after in bend:
            lane = lefts[gap] + widths[gap] + HEAD_ROOM + PITCH * lanes[gap, wire.s]
            points += [(lane, before), (lane, after)]
        routes.append([*points, (target.x + target.width * wire.returns, entry)])
    bands = {
        level: (tops[level_of.index(level)], tops[len(level_of) - 1 - level_of[::-1].index(level)] + BOX_HEIGHT)
        for level in dict.fromkeys(level_of)
    }
    return Layout(boxes=boxes, routes=routes, bands=bands, width=x, bottom=tops[len(level_of) - 1] + BOX_HEIGHT)


def _assign_slots(
    columns: Sequence[Sequence[int]], levels: Sequence[int], edges: Sequence[Edge]
) -> tuple[dict[int, int], list[int]]:
    """Return the slot of each box, counted from the top, and the level of each slot."""
    source_of = {t: s for s, t in reversed(edges)}  # of several, the first
    counts: dict[int, int] = {}
    for boxes in columns:
        for level in {levels[box] for box in boxes}:
            counts[level] = max(counts.get(level, 0), sum(levels[box] == level for box in boxes))
    level_of = [level for level in sorted(counts) for _ in range(counts[level])]
    slots: dict[int, int] = {}
    for boxes in columns:
        if boxes is columns[-1] or _reads_others(boxes, levels, edges):
            free = set(range(len(level_of)))
            for box in sorted(boxes, key=lambda box: slots[source_of[box]]):
                band = [slot for slot in sorted(free) if level_of[slot] == levels[box]]
                slots[box] = min(band, key=lambda slot: abs(slot - slots[source_of[box]]))
                free.remove(slots[box])
            continue
        upward = levels[boxes[-1]] < levels[boxes[0]]
        for level, group in itertools.groupby(boxes, key=lambda box: levels[box]):
            first = level_of.index(level) + (counts[level] - 1) * upward
            slots.update((box, first + (-order if upward else order)) for order, box in enumerate(group))
    return slots, level_of


def _reads_others(boxes: Sequence[int], levels: Sequence[int], edges: Sequence[Edge]) -> bool:
    """Whether each box of a column has one source, which is of its level and in another column."""
    pairs = [(s, t) for s, t in edges if t in boxes]
    return [t for _, t in pairs] == list(boxes) and all(s not in boxes and levels[s] == levels[t] for s, t in pairs)


@dataclass(frozen=True, kw_only=True)
class _Wire:
    """How an edge runs: within a column to the next box, straight to the right, or by lanes and tracks."""

    s: int
    t: int
    vertical: bool = False  # to the next box of the column
    gaps: tuple[int, ...] = ()  # in which it changes its height, numbered by the column to the left
    corridor: int | None = None  # the slot above which it runs between two gaps
    returns: bool = False  # enters its box from the right, past others of the same column


def _plan(
    columns: Sequence[Sequence[int]], slots: dict[int, int], column_of: dict[int, int], edges: Sequence[Edge]
) -> list[_Wire]:
    """Choose how each edge runs."""
    occupied = {(column_of[box], slot) for box, slot in slots.items()}
    follows = {edge for boxes in columns[:-1] for edge in itertools.pairwise(boxes)}
    wires: list[_Wire] = []
    for s, t in edges:
        first, last = column_of[s], max(column_of[t] - 1, column_of[s])
        passes = [all((c, slots[box]) not in occupied for c in range(first + 1, last + 1)) for box in (s, t)]
        again = any((wire.s, wire.t) == (s, t) for wire in wires)  # a second line between two boxes goes round
        returns = column_of[t] == first
        if (s, t) in follows and not again:
            wire = _Wire(s=s, t=t, vertical=True)
        elif slots[s] == slots[t] and passes[0] and not again:
            wire = _Wire(s=s, t=t)
        elif any(passes):
            wire = _Wire(s=s, t=t, gaps=(last if passes[0] else first,), returns=returns)
        else:
            wire = _Wire(s=s, t=t, gaps=(first, last), corridor=slots[t] + (slots[s] > slots[t]))
        wires.append(wire)
    return wires


def _entry_heights(wires: Sequence[_Wire], middles: dict[int, float]) -> list[float]:
    """Return where each line enters its box: in the middle if it is straight, otherwise above or below.

    So no line that bends enters at the height at which another one leaves, and lines of different sources never lie on
    each other; for the same reason those that return have heights of their own.
    """
    heights = [middles[wire.t] for wire in wires]
    groups: dict[tuple[int, bool, int], list[int]] = defaultdict(list)
    for number, wire in enumerate(wires):
        if wire.gaps:
            groups[wire.t, wire.returns, -1 if middles[wire.s] < middles[wire.t] else 1].append(number)
    for (_, returns, sign), numbers in groups.items():
        nearest, farthest = (0.1, 0.2) if returns else (0.22, 0.42)  # of the box's height, from its middle
        numbers.sort(key=lambda number: sign * middles[wires[number].s])
        for order, number in enumerate(numbers):
            fraction = nearest + (farthest - nearest) * (order + 1) / (len(numbers) + 1)
            heights[number] += sign * fraction * BOX_HEIGHT
    return heights


def _assign_lanes(spans: dict[tuple[int, int], list[float]]) -> dict[tuple[int, int], int]:
    """Return the lane, counted from the left, of each vertical piece (gap, source), given the heights it joins.

    Of pieces that lead down, those that begin lower are further left, and of those that lead up, those that begin
    higher: so they cross least.
    """
    lanes: dict[tuple[int, int], int] = {}
    for piece in sorted(spans, key=lambda p: spans[p][0] * (1 if spans[p][1] < spans[p][0] else -1)):
        used = {
            lane
            for other, lane in lanes.items()
            if other[0] == piece[0]
            and min(spans[other]) < max(spans[piece]) + PITCH
            and min(spans[piece]) < max(spans[other]) + PITCH
        }
        lanes[piece] = next(lane for lane in itertools.count() if lane not in used)
    return lanes
