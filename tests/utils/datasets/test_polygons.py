"""Polygons against rasterized masks: visible boxes, clipping, transforming, selecting and joining."""

import cv2
import numpy as np
import pytest

from utils.datasets.polygons import clip, empty_polygons, join, scale_and_shift, select, transform, visible_boxes
from utils.structures import Polygons, Sample

SUBPIXELS = 8  # per side of a pixel, in the masks


def polygons_of(*rings):
    rings = [np.array(ring, np.float32).reshape(-1, 2) for ring in rings]
    return Polygons(points=np.concatenate(rings), starts=np.cumsum([0, *map(len, rings)], dtype=np.int64))


def star(rng, centre, radius):
    """A ring of points at random distances around a centre, which is rarely convex."""
    count = int(rng.integers(3, 12))
    angle = np.sort(rng.uniform(0, 2 * np.pi, count))
    distance = rng.uniform(0.2, 1, count) * radius
    return np.stack((np.cos(angle), np.sin(angle)), 1) * distance[:, None] + centre


def mask_of(ring, size_hw, margin):
    """Rasterize a ring on a grid that extends `margin` pixels beyond the image; return the part within the image."""
    height, width = size_hw
    canvas = np.zeros(((height + 2 * margin) * SUBPIXELS, (width + 2 * margin) * SUBPIXELS), np.uint8)
    if len(ring):
        cv2.fillPoly(canvas, [((ring + margin) * SUBPIXELS).round().astype(np.int32)], 1)
    return canvas[margin * SUBPIXELS : (margin + height) * SUBPIXELS, margin * SUBPIXELS : (margin + width) * SUBPIXELS]


def mask_box(mask):
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return None
    return np.array((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)) / SUBPIXELS


def test_visible_box_is_that_of_the_mask():
    rng = np.random.default_rng(0)
    size_hw, compared, clipped = (40, 60), 0, 0
    for _ in range(150):
        ring = star(rng, rng.uniform((-10, -10), (70, 50)), rng.uniform(5, 45)).astype(np.float32)
        (box,) = visible_boxes(polygons_of(ring), size_hw)
        expected = mask_box(mask_of(ring, size_hw, 60))
        if expected is None or (expected[2:] - expected[:2]).min() < 2:
            continue
        np.testing.assert_allclose(box, expected, atol=0.4)
        compared += 1
        clipped += bool((ring < 0).any() or (ring > (60, 40)).any())
    assert compared > 90 and clipped > 50


def test_boxes_of_many_polygons_equal_those_of_each():
    rng = np.random.default_rng(1)
    rings = [star(rng, rng.uniform((-10, -10), (70, 50)), 30) for _ in range(30)]
    rings[3] = rings[17] = np.zeros((0, 2))
    together = visible_boxes(polygons_of(*rings), (40, 60))
    for ring, box in zip(rings, together, strict=True):
        assert np.array_equal(visible_boxes(polygons_of(ring), (40, 60))[0], box)
    assert (together[[3, 17]] == 0).all() and together.dtype == np.float32


@pytest.mark.parametrize(
    ("ring", "box"),
    [
        ([(10, 10), (30, 10), (30, 20)], (10, 10, 30, 20)),
        ([(-20, 10), (30, 10), (30, 20), (-20, 20)], (0, 10, 30, 20)),
        ([(-100, -100), (200, -100), (200, 200), (-100, 200)], (0, 0, 60, 40)),  # encloses the image
        ([(-50, 20), (20, -50), (200, 20), (20, 200)], (0, 0, 60, 40)),  # only its edges pass through
        ([(-50, -50), (-10, -50), (-10, 90)], (0, 0, 0, 0)),  # beside it
        ([(70, -30), (70, 90), (65, 30)], (0, 0, 0, 0)),
        ([(0, 0), (60, 0), (60, 40), (0, 40)], (0, 0, 60, 40)),  # on its borders
        # A hook around the corner: its clipped bounding box would be too large.
        ([(-10, -10), (50, -10), (50, 5), (45, 5), (45, -5), (-5, -5), (-5, 30), (-10, 30)], (45, 0, 50, 5)),
    ],
)
def test_known_boxes(ring, box):
    assert visible_boxes(polygons_of(ring), (40, 60))[0].tolist() == list(box)


def test_clipped_polygons_have_the_mask_within_the_image():
    rng = np.random.default_rng(2)
    size_hw = (40, 60)
    rings = [star(rng, rng.uniform((-10, -10), (70, 50)), rng.uniform(5, 45)) for _ in range(80)]
    result = clip(polygons_of(*rings), size_hw)
    assert len(result) == 80 and (result.points >= 0).all() and (result.points <= (60, 40)).all()
    checked = 0
    for i, ring in enumerate(rings):
        before, after = mask_of(ring, size_hw, 60), mask_of(result.of(i).reshape(-1, 2), size_hw, 60)
        length = max(cv2.arcLength(ring.astype(np.float32), True) * SUBPIXELS, 1)
        assert (before != after).sum() < 3 * length, "more than the border differs"
        checked += before.any() and (before != after).sum() < before.sum() / 4
    assert checked > 40


def test_clipping_keeps_polygons_within_the_image_and_empties_those_outside():
    polygons = polygons_of([(1, 1), (5, 1), (5, 9)], [(-9, -9), (-5, -9), (-5, -1)], [])
    result = clip(polygons, (40, 60))
    assert result.known.tolist() == [True, False, False]
    assert np.array_equal(result.of(0), polygons.of(0))
    inside = polygons_of([(1, 1), (5, 1), (5, 9)])
    assert clip(inside, (40, 60)) is inside


def test_scaling_and_shifting_changes_only_the_points():
    polygons = polygons_of([(1, 2), (3, 4), (5, 7)], [])
    result = scale_and_shift(polygons, scale_xy=(-1, 2), shift_xy=(10, 1))
    assert result.points.tolist() == [[9, 5], [7, 9], [5, 15]] and result.points.dtype == np.float32
    assert result.starts is polygons.starts and polygons.points[0].tolist() == [1, 2]


def test_transform_projects_points():
    matrix = np.array([(2.0, 0.5, 3), (0.25, 1, -1), (0.01, 0.02, 1)])
    ring = np.array([(1, 2), (30, 4), (5, 17)], np.float32)
    expected = cv2.perspectiveTransform(ring[None].astype(np.float64), matrix)[0]
    np.testing.assert_allclose(transform(polygons_of(ring), matrix).points, expected, rtol=1e-6)


def test_selecting_keeps_each_objects_points():
    rings = [[(0, 0), (1, 0), (1, 1)], [], [(2, 2), (3, 2), (3, 3), (2, 3)], [(5, 5), (6, 5), (6, 6)]]
    result = select(polygons_of(*rings), np.array([False, True, True, True]))
    assert [result.of(i).tolist() for i in range(3)] == [[list(p) for p in ring] for ring in rings[1:]]
    nothing = select(polygons_of(*rings), np.zeros(4, bool))
    assert len(nothing) == 0 and nothing.points.shape == (0, 2)
    assert select(None, np.array([True])) is None


def test_joining_adds_empty_polygons_for_samples_without():
    def sample(count, polygons):
        return Sample(
            image=np.zeros((4, 4, 3), np.uint8),
            boxes=np.zeros((count, 4), np.float32),
            classes=np.zeros(count, np.int64),
            polygons=polygons,
        )

    ring = [(0, 0), (1, 0), (1, 1)]
    joined = join([sample(2, None), sample(1, polygons_of(ring)), sample(0, empty_polygons(0))])
    assert joined.known.tolist() == [False, False, True] and joined.of(2).tolist() == [list(p) for p in ring]
    assert join([sample(2, None), sample(0, None)]) is None
