"""Mosaic: four images around a random point, so that one sample shows many contexts and scales.

Source: arXiv 2004.10934, sec. 3.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from utils.datasets.letterbox import PAD_VALUE
from utils.datasets.polygons import clip, join, scale_and_shift, select, visible_boxes
from utils.structures import Sample


def mosaic(tiles: Sequence[Sample], *, size: int, centre_xy: tuple[int, int]) -> Sample:
    """Arrange four samples around a point of a square canvas of 2 * `size`, the side of a training sample.

    The inner corners of the tiles, top left, top right, bottom left and bottom right, lie at the centre, whose
    coordinates are in [size / 2, 3 size / 2]. What extends beyond the canvas is clipped, objects outside are dropped.
    """
    side = 2 * size
    centre_x, centre_y = centre_xy
    canvas = np.full((side, side, 3), PAD_VALUE, np.uint8)
    shifted = []
    for position, tile in enumerate(tiles):
        height, width = tile.size_hw
        left = centre_x - width if position % 2 == 0 else centre_x
        top = centre_y - height if position < 2 else centre_y
        x1, y1, x2, y2 = max(left, 0), max(top, 0), min(left + width, side), min(top + height, side)
        canvas[y1:y2, x1:x2] = tile.image[y1 - top : y2 - top, x1 - left : x2 - left]
        polygons = tile.polygons and scale_and_shift(tile.polygons, shift_xy=(left, top))
        boxes = tile.boxes + np.array((left, top, left, top), np.float32)
        shifted.append(replace(tile, boxes=boxes, polygons=polygons))
    boxes = np.concatenate([tile.boxes for tile in shifted]).clip(0, side)
    polygons = join(shifted)
    if polygons is not None:
        boxes = np.where(polygons.known[:, None], visible_boxes(polygons, (side, side)), boxes)
        polygons = clip(polygons, (side, side))
    visible = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    classes = np.concatenate([tile.classes for tile in shifted])
    return Sample(image=canvas, boxes=boxes[visible], classes=classes[visible], polygons=select(polygons, visible))
