"""Mosaic: four images around a random point, so that one sample shows many contexts and sizes.

Source: arXiv 2004.10934, sec. 3.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from utils.datasets.letterbox import PAD_VALUE
from utils.datasets.polygons import boxes_within, cut, join, moved, select
from utils.structures import Sample


def mosaic(tiles: Sequence[Sample], *, size: int, centre_xy: tuple[int, int]) -> Sample:
    """Lay four samples around a point of a canvas twice as large as a training image.

    Args:
        tiles: four samples, longer side about `size`: top left, top right, bottom left, bottom right. Each touches the
            centre with its inner corner, and is cut where the canvas ends.
        size: side of a training image; the canvas has 2 * size.
        centre_xy: where they meet, each in [size / 2, 3 size / 2].

    Returns:
        The canvas, with boxes and outlines cut at its borders; objects that lie outside are dropped.
    """
    side = 2 * size
    centre_x, centre_y = centre_xy
    canvas = np.full((side, side, 3), PAD_VALUE, np.uint8)
    placed = []
    for position, tile in enumerate(tiles):
        height, width = tile.size_hw
        left = centre_x - width if position % 2 == 0 else centre_x
        top = centre_y - height if position < 2 else centre_y
        x1, y1, x2, y2 = max(left, 0), max(top, 0), min(left + width, side), min(top + height, side)
        canvas[y1:y2, x1:x2] = tile.image[y1 - top : y2 - top, x1 - left : x2 - left]
        placed.append(_shifted(tile, left, top))
    boxes = np.concatenate([tile.boxes for tile in placed]).clip(0, side)
    outlines = join(placed)
    if outlines is not None:
        boxes = np.where(outlines.known[:, None], boxes_within(outlines, (side, side)), boxes)
        outlines = cut(outlines, (side, side))
    inside = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    classes = np.concatenate([tile.classes for tile in placed])
    return Sample(image=canvas, boxes=boxes[inside], classes=classes[inside], outlines=select(outlines, inside))


def _shifted(tile: Sample, left: int, top: int) -> Sample:
    """Return a tile whose boxes and outlines are counted from the canvas's corner."""
    boxes = tile.boxes + np.array((left, top, left, top), np.float32)
    outlines = tile.outlines and moved(tile.outlines, shift_xy=(left, top))
    return replace(tile, boxes=boxes, outlines=outlines)
