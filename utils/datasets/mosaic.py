"""Mosaic: four pictures around a random point, so that one sample shows many contexts and sizes.

Source: arXiv 2004.10934, sec. 3.4.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from utils.datasets.letterbox import PAD_VALUE
from utils.structures import Sample


def mosaic(tiles: Sequence[Sample], *, size: int, centre_xy: tuple[int, int]) -> Sample:
    """Lay four samples around a point of a canvas twice as large as a training picture.

    Args:
        tiles: four samples, longer side about `size`: top left, top right, bottom left, bottom right. Each touches the
            centre with its inner corner, and is cut where the canvas ends.
        size: side of a training picture; the canvas has 2 * size.
        centre_xy: where they meet, each in [size / 2, 3 size / 2].

    Returns:
        The canvas, with boxes cut at its borders; boxes that lie outside are dropped.
    """
    side = 2 * size
    centre_x, centre_y = centre_xy
    canvas = np.full((side, side, 3), PAD_VALUE, np.uint8)
    boxes, classes = [], []
    for position, tile in enumerate(tiles):
        height, width = tile.size_hw
        left = centre_x - width if position % 2 == 0 else centre_x
        top = centre_y - height if position < 2 else centre_y
        x1, y1, x2, y2 = max(left, 0), max(top, 0), min(left + width, side), min(top + height, side)
        canvas[y1:y2, x1:x2] = tile.image[y1 - top : y2 - top, x1 - left : x2 - left]
        boxes.append(tile.boxes + np.array((left, top, left, top), np.float32))
        classes.append(tile.classes)
    joined = np.concatenate(boxes).clip(0, side)
    inside = (joined[:, 2] > joined[:, 0]) & (joined[:, 3] > joined[:, 1])
    return Sample(image=canvas, boxes=joined[inside], classes=np.concatenate(classes)[inside])
