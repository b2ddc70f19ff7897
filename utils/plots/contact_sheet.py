"""Contact sheets: crops around boxes, with captions, below a legend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageDraw

from utils.plots.boxes import BLACK, STRIP_COLOUR, WHITE, fit_width, image_grid
from utils.plots.fonts import draw_text, drawable, text_box

COLUMNS, CELL = 6, 168  # cells in a row; width and height of one in pixels
CONTEXT, MIN_SIDE = 2.0, 48  # side of a crop in sides of its box, and in pixels at least
PADDING = 128
LEGEND_FONT, NAME_FONT = 14, 10
LINE_HEIGHT = 20
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Outline:
    """A box to draw: (4,) x1, y1, x2, y2 in pixels of the image, and how."""

    box: np.ndarray
    colour: Colour
    thick: bool


@dataclass(frozen=True, kw_only=True)
class Crop:
    """A cell of a sheet."""

    image: np.ndarray  # (H, W, 3) uint8 RGB, whole
    box: np.ndarray  # (4,) that the crop is around
    outlines: Sequence[Outline]  # drawn in this order
    caption: str  # above
    name: str  # on the lower edge


def draw_crop(crop: Crop) -> np.ndarray:
    """Return (168, 168, 3) uint8: the box's surroundings, inside the image as far as possible, else grey."""
    height, width = crop.image.shape[:2]
    x1, y1, x2, y2 = (float(v) for v in crop.box)
    side = max(CONTEXT * max(x2 - x1, y2 - y1), MIN_SIDE)
    left = round(min(max((x1 + x2 - side) / 2, 0), max(width - side, 0)))
    top = round(min(max((y1 + y2 - side) / 2, 0), max(height - side, 0)))
    square = np.full((round(side), round(side), 3), PADDING, np.uint8)
    part = crop.image[top : top + len(square), left : left + len(square)]
    square[: part.shape[0], : part.shape[1]] = part
    scale = CELL / len(square)
    canvas = cv2.resize(square, (CELL, CELL), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    for outline in crop.outlines:
        corners = ((outline.box - (left, top, left, top)) * scale).round().astype(int).tolist()
        thickness = 4 if outline.thick else 2
        cv2.rectangle(canvas, corners[:2], corners[2:], BLACK, thickness + 1, cv2.LINE_AA)
        cv2.rectangle(canvas, corners[:2], corners[2:], outline.colour, thickness, cv2.LINE_AA)
    pil_image = Image.fromarray(canvas)
    drawing = ImageDraw.Draw(pil_image)
    name = fit_width(drawable(crop.name), CELL - 6, NAME_FONT)
    drawing.rectangle((0, CELL - 14, text_box(name, NAME_FONT)[2] + 6, CELL), fill=STRIP_COLOUR)
    draw_text(drawing, (3, CELL - 4), name, NAME_FONT, WHITE)
    return np.asarray(pil_image)


def contact_sheet(crops: Sequence[Crop], legend: str) -> np.ndarray:
    """Return (H, W, 3) uint8 RGB: six crops in a row, the first at the top left, below a legend of any length."""
    grid = image_grid([draw_crop(crop) for crop in crops], [crop.caption for crop in crops], columns=COLUMNS)
    width = COLUMNS * CELL
    lines = _wrap(drawable(legend), width - 16)
    sheet = np.full((LINE_HEIGHT * len(lines) + 12 + len(grid), width, 3), 255, np.uint8)
    sheet[-len(grid) :, : grid.shape[1]] = grid
    pil_image = Image.fromarray(sheet)
    drawing = ImageDraw.Draw(pil_image)
    for row, line in enumerate(lines, 1):
        draw_text(drawing, (8, LINE_HEIGHT * row), line, LEGEND_FONT, BLACK)
    return np.asarray(pil_image)


def _wrap(text: str, width: int) -> list[str]:
    """Break a text between words into lines of a width in pixels."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if text_box(longer, LEGEND_FONT)[2] <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
