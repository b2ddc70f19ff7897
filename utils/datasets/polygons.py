"""Geometry of outlines held in flat arrays: moved, cut at an image's borders, and brought to the boxes around them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from utils.structures import Polygons, Sample


def no_outlines(count: int) -> Polygons:
    """Return the outlines of `count` objects of which only the boxes are known."""
    return Polygons(points=np.zeros((0, 2), np.float32), starts=np.zeros(count + 1, np.int64))


def moved(
    outlines: Polygons, *, scale_xy: tuple[float, float] = (1, 1), shift_xy: tuple[float, float] = (0, 0)
) -> Polygons:
    """Return the outlines scaled (a negative scale mirrors) and then shifted along x and y."""
    points = outlines.points * np.array(scale_xy, np.float64) + np.array(shift_xy, np.float64)
    return Polygons(points=points.astype(np.float32), starts=outlines.starts)


def warped(outlines: Polygons, matrix: np.ndarray) -> Polygons:
    """Return the outlines sent through a 3x3 matrix."""
    points = outlines.points @ matrix[:, :2].T + matrix[:, 2]
    return Polygons(points=(points[:, :2] / points[:, 2:]).astype(np.float32), starts=outlines.starts)


def select(outlines: Polygons | None, chosen: np.ndarray) -> Polygons | None:
    """Return the outlines of the objects that an (n,) bool array chooses."""
    if outlines is None:
        return None
    counts = np.diff(outlines.starts)
    return Polygons(
        points=outlines.points[np.repeat(chosen, counts)], starts=np.cumsum([0, *counts[chosen]], dtype=np.int64)
    )


def join(samples: Sequence[Sample]) -> Polygons | None:
    """Return the outlines of several samples' objects, one sample after another; None if none has any."""
    if all(sample.outlines is None for sample in samples):
        return None
    parts = [sample.outlines or no_outlines(len(sample.boxes)) for sample in samples]
    counts = np.concatenate([np.diff(part.starts) for part in parts])
    return Polygons(
        points=np.concatenate([part.points for part in parts]), starts=np.cumsum([0, *counts], dtype=np.int64)
    )


def boxes_within(outlines: Polygons, size_hw: tuple[int, int]) -> np.ndarray:
    """Return the boxes around what lies of each outline's inside within an image.

    That part reaches as far as the pieces of the outline within the image, and into each corner of the image that
    the outline encloses.

    Args:
        outlines: of n objects.
        size_hw: height and width of the image.

    Returns:
        (n, 4) float32, x1, y1, x2, y2; zeros where there is no outline or nothing of it within.
    """
    boxes = np.zeros((len(outlines), 4), np.float32)
    known = np.flatnonzero(outlines.known)
    if not len(known):
        return boxes
    firsts = outlines.starts[known]
    points = outlines.points.astype(np.float64)
    borders = np.array((size_hw[1], size_hw[0]), np.float64)
    low, high = np.minimum.reduceat(points, firsts), np.maximum.reduceat(points, firsts)
    if (low < 0).any() or (high > borders).any():
        low, high = _bounds_of_cut(points, firsts, borders)
    seen = (high > low).all(1)
    boxes[known[seen]] = np.concatenate((low, high), 1)[seen]
    return boxes


def _bounds_of_cut(points: np.ndarray, firsts: np.ndarray, borders: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return lowest and highest (n, 2) points of n rings cut at 0 and `borders`; infinite where none is left."""
    ends = _ring_ends(points, firsts)
    step = ends - points
    with np.errstate(divide="ignore", invalid="ignore"):
        # Where along each side, from 0 to 1, the two borders of each axis are met (Liang and Barsky 1984, sec. 2).
        met = np.stack((-points / step, (borders - points) / step))
    resting = step == 0
    inside = (points >= 0) & (points <= borders)
    enter = np.where(resting, np.where(inside, -np.inf, np.inf), met.min(0)).max(1).clip(0)
    leave = np.where(resting, np.inf, met.max(0)).min(1).clip(max=1)
    cut = (enter > leave)[:, None]
    pieces = np.stack([points + step * share[:, None].clip(0, 1) for share in (enter, leave)]).clip(0, borders)
    low = np.minimum.reduceat(np.where(cut, np.inf, pieces.min(0)), firsts)
    high = np.maximum.reduceat(np.where(cut, -np.inf, pieces.max(0)), firsts)
    for corner in ((0, 0), (borders[0], 0), (0, borders[1]), tuple(borders)):
        enclosed = _encloses(points, ends, firsts, corner)
        low[enclosed], high[enclosed] = np.minimum(low[enclosed], corner), np.maximum(high[enclosed], corner)
    return low, high


def _ring_ends(points: np.ndarray, firsts: np.ndarray) -> np.ndarray:
    """Return the (p, 2) far end of the side that begins at each point of rings."""
    following = np.arange(1, len(points) + 1)
    following[np.append(firsts[1:], len(points)) - 1] = firsts
    return np.asarray(points[following])


def _encloses(points: np.ndarray, ends: np.ndarray, firsts: np.ndarray, corner: tuple[float, float]) -> np.ndarray:
    """Tell which rings have a point inside: a line from it to the right meets an odd number of sides. (n,) bool."""
    x, y = corner
    spans = (points[:, 1] > y) != (ends[:, 1] > y)
    rise = np.where(spans, ends[:, 1] - points[:, 1], 1)
    crossing = spans & (x < points[:, 0] + (y - points[:, 1]) / rise * (ends[:, 0] - points[:, 0]))
    return np.asarray(np.add.reduceat(crossing.astype(np.int64), firsts) % 2 == 1)


def cut(outlines: Polygons, size_hw: tuple[int, int]) -> Polygons:
    """Return the outlines with what lies beyond an image's borders cut off.

    What falls into several pieces stays one ring, its pieces joined along the border.
    """
    borders = (size_hw[1], size_hw[0])
    points = outlines.points
    if ((points >= 0) & (points <= borders)).all():
        return outlines
    rings = []
    for number in range(len(outlines)):
        ring = outlines.of(number)
        if len(ring) and ((ring < 0) | (ring > borders)).any():
            for axis in (0, 1):
                ring = _cut_ring(ring, axis, 0, keep_above=True)
                ring = _cut_ring(ring, axis, borders[axis], keep_above=False)
        rings.append(ring)
    return Polygons(
        points=np.concatenate([np.zeros((0, 2), np.float32), *rings]).astype(np.float32),
        starts=np.cumsum([0, *map(len, rings)], dtype=np.int64),
    )


def _cut_ring(ring: np.ndarray, axis: int, border: float, *, keep_above: bool) -> np.ndarray:
    """Cut a (k, 2) ring at one line across an axis. Source: Sutherland and Hodgman 1974, sec. 2."""
    distance = (ring[:, axis] - border) if keep_above else (border - ring[:, axis])
    inside = distance >= 0
    if inside.all() or not len(ring):
        return ring
    following = np.roll(np.arange(len(ring)), -1)
    crosses = inside != inside[following]
    share = np.where(crosses, distance / np.where(crosses, distance - distance[following], 1), 0)
    meeting = ring + (ring[following] - ring) * share[:, None]
    meeting[:, axis] = border
    both = np.stack((ring, meeting), 1).reshape(-1, 2)  # each point, then where the side after it meets the line
    return np.asarray(both[np.stack((inside, crosses), 1).reshape(-1)])
