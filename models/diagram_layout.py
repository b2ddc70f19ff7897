"""Where a structure diagram's boxes and lines are: columns of boxes, joined by orthogonal lines that cross no box.

Boxes stand in a grid: one column for each run of rows in which the resolution falls or rises, one slot for each box of
a column, and the same slots for the same resolution in all columns. Lines run in lanes between the columns, in tracks
between the slots, and through empty slots. Letters: s source and t target of an edge, both numbers of boxes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

Point = tuple[float, float]
Edge = tuple[int, int]
BOX_HEIGHT = 26.5  # all lengths are in points, 1/72 inch
SLOT_GAP = 7.5  # between boxes of a column, without tracks
COLUMN_GAP = 15.0  # at least
PITCH = 4.0  # of parallel lines
HEAD_ROOM = 6.5  # between a box and a lane, for an arrow's head


class Rectangle(NamedTuple):
    """An area; y points down."""

    x: float
    y: float
    width: float
    height: float


def split_columns(levels: Sequence[int], head: int) -> list[list[int]]:
    """Divide boxes 0, 1, ... into columns, in which the level only rises or only falls.

    `levels` is the level of each box, log2 of its stride; box number `head` begins a column.
    """
    columns: list[list[int]] = []
    direction = 0
    for box, level in enumerate(levels):
        step = level - levels[box - 1] if box else 0
        if box in (0, head) or step * direction < 0:
            columns.append([])
            direction = step = 0
        direction = direction or step
        columns[-1].append(box)
    return columns


def is_parallel(column: Sequence[int], edges: Sequence[Edge]) -> bool:
    """Whether no box of a column reads another one of it, as in a head with one box for each level."""
    return not any(s in column and t in column for s, t in edges)


def lay_out(
    columns: Sequence[Sequence[int]],
    levels: Sequence[int],
    edges: Sequence[Edge],
    widths: Sequence[float],
    *,
    left: float,
    top: float,
) -> tuple[list[Rectangle], list[list[Point]]]:
    """Return the boxes, in columns of given widths, and the corners of each edge's line, from its source to its target.

    A source stands in an earlier column, or earlier in the same one. The boxes of parallel columns stand beside their
    sources.
    """
    slots = _assign_slots(columns, levels, edges)
    column_of = {box: column for column, boxes in enumerate(columns) for box in boxes}
    wires = _plan(slots, column_of, edges)

    tracks = [list(dict.fromkeys(w.s for w in wires if w.corridor == slot)) for slot in range(max(slots.values()) + 1)]
    gaps = [PITCH * len(sources) + (SLOT_GAP if slot else 0) for slot, sources in enumerate(tracks)]
    tops = [top + sum(gaps[: slot + 1]) + BOX_HEIGHT * slot for slot in range(len(gaps))]
    middles = {box: tops[slot] + BOX_HEIGHT / 2 for box, slot in slots.items()}
    entries = _entry_heights(wires, middles)

    bends = []  # of each wire, the column gaps in which it changes its height, and the heights before and after
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

    rights = [left - COLUMN_GAP]  # of the columns, after a first one without boxes
    for column, width in enumerate(widths):
        lane = max((lane for (gap, _), lane in lanes.items() if gap == column - 1), default=0)
        rights.append(rights[-1] + max(COLUMN_GAP, 2 * HEAD_ROOM + PITCH * lane) + width)
    boxes = []
    for box, column in sorted(column_of.items()):
        width = widths[column]
        boxes.append(Rectangle(rights[column + 1] - width, tops[slots[box]], width, BOX_HEIGHT))
    routes: list[list[Point]] = []
    for wire, entry, bend in zip(wires, entries, bends, strict=True):
        source, target = boxes[wire.s], boxes[wire.t]
        if wire.inner and not bend:
            middle, down = source.x + source.width / 2, source.y < target.y
            routes.append([(middle, source.y + BOX_HEIGHT * down), (middle, target.y + BOX_HEIGHT * (not down))])
            continue
        points = [(source.x + source.width, middles[wire.s])]
        for gap, before, after in bend:
            lane_x = rights[gap + 1] + HEAD_ROOM + PITCH * lanes[gap, wire.s]
            points += [(lane_x, before), (lane_x, after)]
        routes.append([*points, (target.x + target.width * wire.inner, entry)])
    return boxes, routes


def _assign_slots(columns: Sequence[Sequence[int]], levels: Sequence[int], edges: Sequence[Edge]) -> dict[int, int]:
    """Return the slot of each box, counted from the top."""
    counts: Counter[int] = Counter()
    for boxes in columns:
        counts |= Counter(levels[box] for box in boxes)  # the larger number of each level
    level_of = sorted(counts.elements())  # of each slot
    source_of = {t: s for s, t in reversed(edges)}  # of several, the first
    slots: dict[int, int] = {}
    for boxes in columns:
        start = len(level_of) * (levels[boxes[-1]] < levels[boxes[0]])  # the top, or the bottom if the column rises
        aims = dict.fromkeys(boxes, start)
        if is_parallel(boxes, edges):
            aims |= {box: slots[source_of[box]] for box in boxes if box in source_of}
        free = list(range(len(level_of)))
        for box in sorted(boxes, key=lambda box: aims[box]):
            band = [slot for slot in free if level_of[slot] == levels[box]]
            slots[box] = min(band, key=lambda slot: abs(slot - aims[box]))
            free.remove(slots[box])
    return slots


class _Wire(NamedTuple):
    """How an edge runs: straight, or by lanes and tracks."""

    s: int
    t: int
    inner: bool  # within a column: down or up to the next box, or past others and in from the right
    gaps: tuple[int, ...]  # in which it changes its height, numbered by the column to the left
    corridor: int | None  # the slot above which it runs between two gaps


def _plan(slots: dict[int, int], column_of: dict[int, int], edges: Sequence[Edge]) -> list[_Wire]:
    """Choose how each edge runs."""
    occupied = {(column_of[box], slot) for box, slot in slots.items()}
    wires: list[_Wire] = []
    for number, (s, t) in enumerate(edges):
        inner = column_of[s] == column_of[t]
        first, last = column_of[s], column_of[t] - (not inner)
        passes = all((column, slots[s]) not in occupied for column in range(first + 1, last + 1))
        straight = t == s + 1 if inner else slots[s] == slots[t] and passes
        if straight and (s, t) not in edges[:number]:  # a second line between two boxes goes round
            gaps: tuple[int, ...] = ()
        else:
            gaps = (first,) if first == last else (first, last)
        corridor = slots[t] + (slots[s] > slots[t]) if len(gaps) == 2 else None
        wires.append(_Wire(s, t, inner, gaps, corridor))
    return wires


def _entry_heights(wires: Sequence[_Wire], middles: dict[int, float]) -> list[float]:
    """Return where each line enters its box: in the middle if it is straight, otherwise above or below.

    So no line that bends enters at the height at which another one leaves, and lines of different sources never lie on
    each other; for the same reason those within a column have heights of their own.
    """
    heights = [middles[wire.t] for wire in wires]
    groups: dict[tuple[int, bool, int], list[int]] = defaultdict(list)
    for number, wire in enumerate(wires):
        if wire.gaps:
            groups[wire.t, wire.inner, -1 if middles[wire.s] < middles[wire.t] else 1].append(number)
    for (_, inner, sign), numbers in groups.items():
        nearest, farthest = (0.1, 0.2) if inner else (0.22, 0.42)  # of the box's height, from its middle
        numbers.sort(key=lambda number: sign * middles[wires[number].s])
        for order, number in enumerate(numbers, start=1):
            fraction = nearest + (farthest - nearest) * order / (len(numbers) + 1)
            heights[number] += sign * fraction * BOX_HEIGHT
    return heights


def _assign_lanes(spans: dict[tuple[int, int], list[float]]) -> dict[tuple[int, int], int]:
    """Return the lane, counted from the left, of each vertical piece (gap, source), given the heights it joins.

    Of pieces that lead down, those that begin lower are further left, and of those that lead up, those that begin
    higher: so they cross least.
    """
    lanes: dict[tuple[int, int], int] = {}
    for piece in sorted(spans, key=lambda p: spans[p][0] * (1 if spans[p][1] < spans[p][0] else -1)):
        low, high = min(spans[piece]) - PITCH, max(spans[piece]) + PITCH
        used = {n for p, n in lanes.items() if p[0] == piece[0] and min(spans[p]) < high and low < max(spans[p])}
        lanes[piece] = min(set(range(len(used) + 1)) - used)
    return lanes
