"""Whether the boxes, lines and texts of a drawing overlap."""

import itertools
from collections.abc import Iterable, Sequence

Area = tuple[float, float, float, float]  # left, top, right, bottom
Point = tuple[float, float]


def overlap(a: Area, b: Area, *, margin: float = 0.05) -> bool:
    """Whether two areas have more in common than an edge."""
    return all(a[axis] + margin < b[axis + 2] and b[axis] + margin < a[axis + 2] for axis in (0, 1))


def overlapping(areas: Sequence[Area]) -> list[tuple[int, int]]:
    return [(i, j) for i, j in itertools.combinations(range(len(areas)), 2) if overlap(areas[i], areas[j])]


def segments(points: Sequence[Point]) -> list[Area]:
    """The pieces of a line as areas without width."""
    pieces = []
    for (ax, ay), (bx, by) in itertools.pairwise(points):
        assert ax == bx or ay == by, f"{points} is not orthogonal"
        pieces.append((min(ax, bx), min(ay, by), max(ax, bx), max(ay, by)))
    return pieces


def crossed(points: Sequence[Point], areas: Iterable[Area]) -> list[Area]:
    """The areas through the inside of which a line runs."""
    wide = [(a - 0.1, b - 0.1, c + 0.1, d + 0.1) for a, b, c, d in segments(points)]
    return [area for area in areas if any(overlap(piece, area, margin=0.2) for piece in wide)]


def on_each_other(first: Sequence[Point], second: Sequence[Point], *, distance: float) -> bool:
    """Whether two lines run along each other, less than `distance` apart."""
    for a, b in itertools.product(segments(first), segments(second)):
        for axis in (0, 1):  # both run along the other axis
            if a[axis] == a[axis + 2] and b[axis] == b[axis + 2] and abs(a[axis] - b[axis]) < distance:
                along = 1 - axis
                if min(a[along + 2], b[along + 2]) - max(a[along], b[along]) > 0.05:
                    return True
    return False
