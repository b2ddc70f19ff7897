"""Boxes with labels on images, and grids of images. Labels may be in any script that an installed font supports."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw

from utils.plots.fonts import draw_text, drawable, shorten, text_box

# The colours of `style`, which any colour vision can tell apart, with a dark brown for black, which images hide.
PALETTE = ((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (230, 159, 0), (86, 180, 233), (90, 42, 42))
CAPTION_FONT_SIZE = 12
CAPTION_BASELINE = 15  # pixels below the strip's top
STRIP_HEIGHT = 22  # pixels
STRIP_COLOUR = (60, 60, 60)
WHITE, BLACK = (255, 255, 255), (20, 20, 20)


def class_colour(class_id: int) -> tuple[int, int, int]:
    """Return the RGB colour of a class."""
    return PALETTE[class_id % len(PALETTE)]


def class_colour_hex(class_id: int) -> str:
    """Return the colour of a class as matplotlib takes it."""
    return "#{:02x}{:02x}{:02x}".format(*class_colour(class_id))


def draw_boxes(
    image: np.ndarray, boxes_xyxy: np.ndarray, labels: Sequence[str], classes: Sequence[int], *, thickness: int = 3
) -> np.ndarray:
    """Return a copy of an image with boxes and labels.

    Args:
        image: (H, W, 3) uint8 RGB.
        boxes_xyxy: (n, 4) in pixels.
        labels: n texts; "" draws no label.
        classes: n class ids, which choose the colours.
        thickness: line width in pixels; the labels' height grows with it.
    """
    canvas = np.ascontiguousarray(image).copy()
    for box, class_id in zip(boxes_xyxy, classes, strict=True):
        x1, y1, x2, y2 = (round(float(v)) for v in box)
        cv2.rectangle(canvas, (x1, y1), (x2, y2), class_colour(int(class_id)), thickness, cv2.LINE_AA)
    if not any(labels):
        return canvas
    pil_image = Image.fromarray(canvas)
    drawing = ImageDraw.Draw(pil_image)
    font_size = max(4 * thickness + 4, 9)
    for box, class_id, text in zip(boxes_xyxy, classes, labels, strict=True):
        if text:
            _draw_label(drawing, text, box, class_colour(int(class_id)), font_size)
    return np.asarray(pil_image)


def _draw_label(
    drawing: ImageDraw.ImageDraw, text: str, box_xyxy: np.ndarray, colour: tuple[int, int, int], font_size: int
) -> None:
    """Draw a label inside the image, above the box's top left corner, or below that at the image's top edge."""
    text = drawable(text)
    left, top, right, bottom = text_box(text, font_size)
    width, height = right - left + 4, bottom - top + 4
    image_width, image_height = drawing.im.size
    x1, y1 = float(box_xyxy[0]), float(box_xyxy[1])
    x = min(max(x1 - 1, 0), max(image_width - width, 0))
    y = y1 - height if y1 >= height else min(y1, image_height - height)
    drawing.rectangle((x, y, x + width, y + height), fill=colour)
    luminance = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    draw_text(drawing, (x + 2 - left, y + 2 - top), text, font_size, BLACK if luminance > 150 else WHITE)


def image_grid(
    images: Sequence[np.ndarray], captions: Sequence[str] = (), *, columns: int = 4, max_side: int = 1920
) -> np.ndarray:
    """Arrange images of equal size in a grid.

    Args:
        images: (H, W, 3) uint8 RGB each.
        captions: a short text per image, written into a strip above it; () draws no strips.
        columns: images per row.
        max_side: longest side of the grid in pixels without the strips; larger images are downscaled to fit.

    Returns:
        (H', W', 3) uint8 RGB.
    """
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    scale = min(max_side / max(rows * images[0].shape[0], columns * images[0].shape[1]), 1.0)
    height, width = (max(round(side * scale), 1) for side in images[0].shape[:2])
    strip = STRIP_HEIGHT if captions else 0
    grid = np.full((rows * (height + strip), columns * width, 3), 255, np.uint8)
    corners = [(i // columns * (height + strip), i % columns * width) for i in range(len(images))]
    for (top, left), image in zip(corners, images, strict=True):
        resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA) if scale < 1 else image
        grid[top + strip : top + strip + height, left : left + width] = resized
        grid[top : top + strip, left : left + width] = STRIP_COLOUR
    if not captions:
        return grid
    pil_image = Image.fromarray(grid)
    drawing = ImageDraw.Draw(pil_image)
    for (top, left), caption in zip(corners, captions, strict=False):
        drawing.rectangle((left, top, left + width, top + strip + height), outline=WHITE)
        text = fit_width(drawable(caption), width - 10)
        draw_text(drawing, (left + 5, top + CAPTION_BASELINE), text, CAPTION_FONT_SIZE, WHITE)
    return np.asarray(pil_image)


def fit_width(text: str, width: int, font_size: int = CAPTION_FONT_SIZE) -> str:
    """Shorten a `drawable` text to a width in pixels, but not below four letters."""
    letters = len(text)
    while letters > 4 and text_box(shorten(text, letters), font_size)[2] > width:
        letters -= 1
    return shorten(text, letters)
