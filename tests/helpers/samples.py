"""Samples for the tests of augmentations."""

import numpy as np

from utils.structures import Polygons, Sample


def sample_of(image, *boxes, classes=None):
    """A sample with boxes x1, y1, x2, y2; their classes are 0, 1, 2, ... unless given."""
    return Sample(
        image=image,
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        classes=np.arange(len(boxes), dtype=np.int64) if classes is None else np.array(classes, np.int64),
    )


def sample_with_polygon(image, ring, *, others=()):
    """A sample of one object with a polygon followed by objects with only a box."""
    ring = np.array(ring, np.float32)
    boxes = [(*ring.min(0), *ring.max(0)), *others]
    starts = np.array([0, len(ring), *[len(ring)] * len(others)])
    plain = sample_of(image, *boxes)
    return Sample(image=image, boxes=plain.boxes, classes=plain.classes, polygons=Polygons(points=ring, starts=starts))
