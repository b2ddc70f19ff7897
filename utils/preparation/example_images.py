"""Examples of findings as images: boxes drawn, small objects enlarged, boxes beyond the image shown on a margin."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from utils.datasets.images import read_image
from utils.plots.boxes import draw_boxes
from utils.plots.fonts import display_name
from utils.preparation.findings import Example, Mark

SIDE = 480  # pixels of the longer side of a drawn example
SMALL = 0.05  # longer side of a box, as a fraction of the image's, below which its surroundings are shown alone
WINDOW = 8  # sides of such a box that the surroundings measure
MARGIN = 0.3  # largest margin shown around an image, as a fraction of its sides
GREY = 128
GAP = 6  # pixels between the two images of a pair


def draw_example(example: Example) -> np.ndarray:
    """Return an example as (H, W, 3) uint8 RGB; a DataError if its image cannot be read."""
    image = _drawn(read_image(example.path), example.marks)
    if not example.other:
        return image
    other = _drawn(read_image(example.other), ())
    height = min(image.shape[0], other.shape[0])
    gap = np.full((height, GAP, 3), 255, np.uint8)
    return np.concatenate([_scaled_to_height(image, height), gap, _scaled_to_height(other, height)], 1)


def _drawn(image: np.ndarray, marks: Sequence[Mark]) -> np.ndarray:
    """Return the part of an image that shows its marks, scaled to `SIDE`, with the marks drawn."""
    height, width = image.shape[:2]
    boxes = np.array([mark.box for mark in marks]).reshape(-1, 4) * np.array((width, height, width, height))
    left, top, right, bottom = _window(boxes, width, height)
    scale = SIDE / max(right - left, bottom - top)
    canvas = np.full((bottom - top, right - left, 3), GREY, np.uint8)
    y1, y2, x1, x2 = max(top, 0), min(bottom, height), max(left, 0), min(right, width)
    canvas[y1 - top : y2 - top, x1 - left : x2 - left] = image[y1:y2, x1:x2]
    size = max(round(canvas.shape[1] * scale), 1), max(round(canvas.shape[0] * scale), 1)
    scaled = cv2.resize(canvas, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST)
    shifted = (boxes - np.array((left, top, left, top))) * scale
    shifted = shifted.clip(-SIDE, 2 * SIDE)  # a box may lie anywhere
    labels = [display_name(mark.text, mark.class_id) if mark.text else "" for mark in marks]
    return draw_boxes(np.asarray(scaled), shifted, labels, [mark.class_id for mark in marks], thickness=2)


def _window(boxes: np.ndarray, width: int, height: int) -> tuple[int, int, int, int]:
    """Return left, top, right, bottom of what is shown, in pixels of the image; it may reach beyond the image."""
    if not len(boxes):
        return 0, 0, width, height
    x1, y1, x2, y2 = boxes[0]
    longer = max(x2 - x1, y2 - y1, 2)
    inside = min(x1, y1) > -1 and x2 < width + 1 and y2 < height + 1
    if inside and longer < SMALL * max(width, height):
        side = round(max(WINDOW * longer, 32))
        left = int(np.clip(round((x1 + x2 - side) / 2), 0, max(width - side, 0)))
        top = int(np.clip(round((y1 + y2 - side) / 2), 0, max(height - side, 0)))
        return left, top, min(left + side, width), min(top + side, height)
    far_x, far_y = round(MARGIN * width), round(MARGIN * height)
    pad = 0.02 * max(width, height)
    low, high = boxes[:, :2].min(0), boxes[:, 2:].max(0)
    left = int(np.clip(np.floor(low[0] - pad), -far_x, 0)) if low[0] <= -1 else 0
    top = int(np.clip(np.floor(low[1] - pad), -far_y, 0)) if low[1] <= -1 else 0
    right = int(np.clip(np.ceil(high[0] + pad), width, width + far_x)) if high[0] >= width + 1 else width
    bottom = int(np.clip(np.ceil(high[1] + pad), height, height + far_y)) if high[1] >= height + 1 else height
    return left, top, right, bottom


def _scaled_to_height(image: np.ndarray, height: int) -> np.ndarray:
    width = max(round(image.shape[1] * height / image.shape[0]), 1)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
