"""Polygon geometry in flat arrays: transforming, clipping to an image, and bounding boxes of the visible part."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from utils.structures import Polygons, Sample


def empty_polygons(count: int) -> Polygons:
    """Return the polygons of `count` objects of which only the boxes are known."""
    return Polygons(points=np.zeros((0, 2), np.float32), starts=np.zeros(count + 1, np.int64))


def scale_and_shift(
    polygons: Polygons, *, scale_xy: tuple[float, float] = (1, 1), shift_xy: tuple[float, float] = (0, 0)
) -> Polygons:
    """Return the polygons scaled (a negative scale mirrors) and then shifted along x and y."""
    points = polygons.points * np.array(scale_xy, np.float64) + np.array(shift_xy, np.float64)
    return Polygons(points=points.astype(np.float32), starts=polygons.starts)


def transform(polygons: Polygons, matrix: np.ndarray) -> Polygons:
    """Return the polygons transformed by a 3x3 projective matrix."""
    points = polygons.points @ matrix[:, :2].T + matrix[:, 2]
    return Polygons(points=(points[:, :2] / points[:, 2:]).astype(np.float32), starts=polygons.starts)


def select(polygons: Polygons | None, mask: np.ndarray) -> Polygons | None:
    """Return the polygons of the objects where an (n,) bool mask is true."""
    if polygons is None:
        return None
    counts = np.diff(polygons.starts)
    return Polygons(
        points=polygons.points[np.repeat(mask, counts)], starts=np.cumsum([0, *counts[mask]], dtype=np.int64)
    )


def join(samples: Sequence[Sample]) -> Polygons | None:
    """Concatenate the polygons of several samples; None if no sample has polygons."""
    if all(sample.polygons is None for sample in samples):
        return None
    parts = [sample.polygons or empty_polygons(len(sample.boxes)) for sample in samples]
    counts = np.concatenate([np.diff(part.starts) for part in parts])
    return Polygons(
        points=np.concatenate([part.points for part in parts]), starts=np.cumsum([0, *counts], dtype=np.int64)
    )


def visible_boxes(polygons: Polygons, size_hw: tuple[int, int]) -> np.ndarray:
    """Return the (n, 4) float32 corners of the part of each polygon's interior that lies within an image.

    That part extends as far as the pieces of the polygon's edges within the image, and into each corner of the image
    that the polygon encloses. Zeros where there is no polygon or nothing of it is visible.
    """
    boxes = np.zeros((len(polygons), 4), np.float32)
    known = np.flatnonzero(polygons.known)
    if not len(known):
        return boxes
    firsts = polygons.starts[known]
    points = polygons.points.astype(np.float64)
    borders = np.array((size_hw[1], size_hw[0]), np.float64)
    low, high = np.minimum.reduceat(points, firsts), np.maximum.reduceat(points, firsts)
    if (low < 0).any() or (high > borders).any():
        low, high = _clipped_bounds(points, firsts, borders)
    visible = (high > low).all(1)
    boxes[known[visible]] = np.concatenate((low, high), 1)[visible]
    return boxes


def _clipped_bounds(points: np.ndarray, firsts: np.ndarray, borders: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the lowest and highest (n, 2) points of n rings clipped to [0, `borders`]; infinite if nothing is left."""
    ends = _edge_ends(points, firsts)
    step = ends - points
    with np.errstate(divide="ignore", invalid="ignore"):
        # Where along each edge, from 0 to 1, it meets the two borders of each axis (Liang and Barsky 1984, sec. 2).
        met = np.stack((-points / step, (borders - points) / step))
    parallel = step == 0
    inside = (points >= 0) & (points <= borders)
    enter = np.where(parallel, np.where(inside, -np.inf, np.inf), met.min(0)).max(1).clip(0)
    leave = np.where(parallel, np.inf, met.max(0)).min(1).clip(max=1)
    outside = (enter > leave)[:, None]
    pieces = np.stack([points + step * at[:, None].clip(0, 1) for at in (enter, leave)]).clip(0, borders)
    low = np.minimum.reduceat(np.where(outside, np.inf, pieces.min(0)), firsts)
    high = np.maximum.reduceat(np.where(outside, -np.inf, pieces.max(0)), firsts)
    for corner in ((0, 0), (borders[0], 0), (0, borders[1]), tuple(borders)):
        enclosed = _encloses(points, ends, firsts, corner)
        low[enclosed], high[enclosed] = np.minimum(low[enclosed], corner), np.maximum(high[enclosed], corner)
    return low, high


def _edge_ends(points: np.ndarray, firsts: np.ndarray) -> np.ndarray:
    """Return the (p, 2) end points of the edges that start at each point of the rings."""
    following = np.arange(1, len(points) + 1)
    following[np.append(firsts[1:], len(points)) - 1] = firsts
    return np.asarray(points[following])


def _encloses(points: np.ndarray, ends: np.ndarray, firsts: np.ndarray, corner: tuple[float, float]) -> np.ndarray:
    """Return which rings enclose a point, (n,) bool: a ray from it to the right crosses an odd number of edges."""
    x, y = corner
    spans = (points[:, 1] > y) != (ends[:, 1] > y)
    rise = np.where(spans, ends[:, 1] - points[:, 1], 1)
    crossing = spans & (x < points[:, 0] + (y - points[:, 1]) / rise * (ends[:, 0] - points[:, 0]))
    return np.asarray(np.add.reduceat(crossing.astype(np.int64), firsts) % 2 == 1)


def clip(polygons: Polygons, size_hw: tuple[int, int]) -> Polygons:
    """Return the polygons clipped to an image.

    A polygon that falls into several pieces stays one ring, its pieces joined along the border.
    """
    borders = (size_hw[1], size_hw[0])
    points = polygons.points
    if ((points >= 0) & (points <= borders)).all():
        return polygons
    rings = []
    for index in range(len(polygons)):
        ring = polygons.of(index)
        if len(ring) and ((ring < 0) | (ring > borders)).any():
            for axis in (0, 1):
                ring = _clip_ring(ring, axis, 0, keep_above=True)
                ring = _clip_ring(ring, axis, borders[axis], keep_above=False)
        rings.append(ring)
    return Polygons(
        points=np.concatenate([np.zeros((0, 2), np.float32), *rings]).astype(np.float32),
        starts=np.cumsum([0, *map(len, rings)], dtype=np.int64),
    )


def _clip_ring(ring: np.ndarray, axis: int, border: float, *, keep_above: bool) -> np.ndarray:
    """Clip a (k, 2) ring at a line perpendicular to an axis. Source: Sutherland and Hodgman 1974, sec. 2."""
    distance = (ring[:, axis] - border) if keep_above else (border - ring[:, axis])
    inside = distance >= 0
    if inside.all() or not len(ring):
        return ring
    following = np.roll(np.arange(len(ring)), -1)
    crosses = inside != inside[following]
    fraction = np.where(crosses, distance / np.where(crosses, distance - distance[following], 1), 0)
    crossing = ring + (ring[following] - ring) * fraction[:, None]
    crossing[:, axis] = border
    both = np.stack((ring, crossing), 1).reshape(-1, 2)  # each point, then where the edge after it crosses the line
    return np.asarray(both[np.stack((inside, crosses), 1).reshape(-1)])
