"""Boxes with names on pictures, and grids of such pictures. Names may be in any script that a font here can show."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw

from utils.plots.fonts import font
from utils.plots.fonts import printable as printable

PALETTE = (
    (217, 70, 60),
    (37, 99, 168),
    (58, 138, 77),
    (201, 122, 18),
    (126, 87, 194),
    (20, 150, 160),
    (194, 56, 122),
    (110, 130, 40),
    (90, 100, 220),
    (160, 90, 50),
)
CAPTION_PIXELS = 12
MAX_CAPTION = 40


def class_colour(number: int) -> tuple[int, int, int]:
    """Return the RGB colour of a class."""
    return PALETTE[number % len(PALETTE)]


def draw_boxes(
    image: np.ndarray,
    boxes_xyxy: np.ndarray,
    labels: Sequence[str],
    classes: Sequence[int],
    *,
    thickness: int = 3,
) -> np.ndarray:
    """Draw boxes with labels.

    Args:
        image: (H, W, 3) uint8 RGB; left as it is.
        boxes_xyxy: (n, 4) pixels.
        labels: n texts; an empty one draws no label.
        classes: n class numbers, for the colours.
        thickness: width of lines in pixels.

    Returns:
        A new picture of the same size.
    """
    canvas = np.ascontiguousarray(image).copy()
    for box, number in zip(boxes_xyxy, classes, strict=True):
        x1, y1, x2, y2 = (round(float(v)) for v in box)
        cv2.rectangle(canvas, (x1, y1), (x2, y2), class_colour(int(number)), thickness, cv2.LINE_AA)
    if not any(labels):
        return canvas
    picture = Image.fromarray(canvas)
    pen = ImageDraw.Draw(picture)
    height = max(4 * thickness + 4, 9)
    for box, number, text in zip(boxes_xyxy, classes, labels, strict=True):
        if text:
            _draw_label(pen, text, (float(box[0]), float(box[1])), class_colour(int(number)), height, picture.size)
    return np.asarray(picture)


def _draw_label(
    pen: ImageDraw.ImageDraw,
    text: str,
    corner_xy: tuple[float, float],
    colour: tuple[int, int, int],
    height: int,
    size_wh: tuple[int, int],
) -> None:
    """Draw a label above a box's corner, or inside where there is no room, and wholly within the picture."""
    letters = font(text, height)
    left, top, right, bottom = pen.textbbox((0, 0), text, font=letters)
    width, tall = right - left + 4, bottom - top + 4
    x = min(max(corner_xy[0] - 1, 0), max(size_wh[0] - width, 0))
    y = corner_xy[1] - tall if corner_xy[1] >= tall else min(corner_xy[1], size_wh[1] - tall)
    pen.rectangle((x, y, x + width, y + tall), fill=colour)
    luminance = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    pen.text((x + 2 - left, y + 2 - top), text, font=letters, fill=(20, 20, 20) if luminance > 150 else (255, 255, 255))


def picture_grid(
    images: Sequence[np.ndarray], captions: Sequence[str] = (), *, columns: int = 4, max_side: int = 1920
) -> np.ndarray:
    """Lay pictures of equal size into a grid.

    Args:
        images: (H, W, 3) uint8 RGB each, of one size.
        captions: a short text for each, written into its corner.
        columns: how many side by side.
        max_side: the grid is scaled down to this many pixels.

    Returns:
        (H', W', 3) uint8 RGB.
    """
    height, width = images[0].shape[:2]
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    grid = np.full((rows * height, columns * width, 3), 255, np.uint8)
    scale = min(max_side / max(grid.shape[:2]), 1.0)
    for position, image in enumerate(images):
        row, column = divmod(position, columns)
        grid[row * height : (row + 1) * height, column * width : (column + 1) * width] = image
    if scale < 1:
        target = (round(grid.shape[1] * scale), round(grid.shape[0] * scale))
        grid = cv2.resize(grid, target, interpolation=cv2.INTER_AREA)
    picture = Image.fromarray(grid)
    pen = ImageDraw.Draw(picture)
    for position, caption in enumerate(captions):
        row, column = divmod(position, columns)
        corner = (column * width * scale, row * height * scale)
        pen.rectangle((*corner, corner[0] + width * scale, corner[1] + height * scale), outline=(255, 255, 255))
        shortened = caption if len(caption) <= MAX_CAPTION else f"{caption[: MAX_CAPTION - 3]}..."
        pen.text(
            (corner[0] + 5, corner[1] + 4),
            shortened,
            font=font(shortened, CAPTION_PIXELS),
            fill=(255, 255, 255),
            stroke_width=2,
            stroke_fill=(0, 0, 0),
        )
    return np.asarray(picture)
