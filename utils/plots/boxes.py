"""Boxes with names on images, and grids of such images. Names may be in any script that a font here can show."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw

from utils.plots.fonts import font, shortened
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
CAPTION_LETTER = 8  # pixels of its width
MAX_CAPTION = 40
STRIP = 22  # height in pixels
STRIP_COLOUR = 60


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
        A new image of the same size.
    """
    canvas = np.ascontiguousarray(image).copy()
    for box, number in zip(boxes_xyxy, classes, strict=True):
        x1, y1, x2, y2 = (round(float(v)) for v in box)
        cv2.rectangle(canvas, (x1, y1), (x2, y2), class_colour(int(number)), thickness, cv2.LINE_AA)
    if not any(labels):
        return canvas
    pil_image = Image.fromarray(canvas)
    pen = ImageDraw.Draw(pil_image)
    height = max(4 * thickness + 4, 9)
    for box, number, text in zip(boxes_xyxy, classes, labels, strict=True):
        if text:
            _draw_label(pen, text, (float(box[0]), float(box[1])), class_colour(int(number)), height, pil_image.size)
    return np.asarray(pil_image)


def _draw_label(
    pen: ImageDraw.ImageDraw,
    text: str,
    corner_xy: tuple[float, float],
    colour: tuple[int, int, int],
    height: int,
    size_wh: tuple[int, int],
) -> None:
    """Draw a label above a box's corner, or inside where there is no room, and wholly within the image."""
    letters = font(text, height)
    left, top, right, bottom = pen.textbbox((0, 0), text, font=letters)
    width, tall = right - left + 4, bottom - top + 4
    x = min(max(corner_xy[0] - 1, 0), max(size_wh[0] - width, 0))
    y = corner_xy[1] - tall if corner_xy[1] >= tall else min(corner_xy[1], size_wh[1] - tall)
    pen.rectangle((x, y, x + width, y + tall), fill=colour)
    luminance = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    pen.text((x + 2 - left, y + 2 - top), text, font=letters, fill=(20, 20, 20) if luminance > 150 else (255, 255, 255))


def image_grid(
    images: Sequence[np.ndarray], captions: Sequence[str] = (), *, columns: int = 4, max_side: int = 1920
) -> np.ndarray:
    """Lay images of equal size into a grid.

    Args:
        images: (H, W, 3) uint8 RGB each, of one size.
        captions: a short text for each, written into a strip above it.
        columns: how many side by side.
        max_side: the images are scaled down until they take this many pixels, strips not counted.

    Returns:
        (H', W', 3) uint8 RGB.
    """
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    scale = min(max_side / max(rows * images[0].shape[0], columns * images[0].shape[1]), 1.0)
    height, width = (max(round(side * scale), 1) for side in images[0].shape[:2])
    strip = STRIP if captions else 0
    grid = np.full((rows * (height + strip), columns * width, 3), 255, np.uint8)
    for position, image in enumerate(images):
        top, left = position // columns * (height + strip), position % columns * width
        small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA) if scale < 1 else image
        grid[top + strip : top + strip + height, left : left + width] = small
        grid[top : top + strip, left : left + width] = STRIP_COLOUR
    pil_image = Image.fromarray(grid)
    pen = ImageDraw.Draw(pil_image)
    for position, caption in enumerate(captions):
        top, left = position // columns * (height + strip), position % columns * width
        pen.rectangle((left, top, left + width, top + strip + height), outline=(255, 255, 255))
        shown = shortened(caption, max(min((width - 10) // CAPTION_LETTER, MAX_CAPTION), 4))
        pen.text((left + 5, top + 4), shown, font=font(shown, CAPTION_PIXELS), fill=(255, 255, 255))
    return np.asarray(pil_image)
