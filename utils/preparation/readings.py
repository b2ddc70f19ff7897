"""Ways to read the four numbers of a label row, and how well a set's rows fit their images under each of them.

Two kinds of evidence: under a wrong order many boxes leave the image, and the sides of the boxes do not follow edges in
the image. The second also shows orders that stay inside, such as x and y exchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

Reading = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, float], tuple[np.ndarray, ...]]
# From the four columns and the image's width / height to x1, y1, x2, y2; the first is the right one.
READINGS: dict[str, Reading] = {
    "cx cy w h": lambda a, b, c, d, _: (a - c / 2, b - d / 2, a + c / 2, b + d / 2),
    "cy cx h w": lambda a, b, c, d, _: (b - d / 2, a - c / 2, b + d / 2, a + c / 2),
    "cx cy h w": lambda a, b, c, d, _: (a - d / 2, b - c / 2, a + d / 2, b + c / 2),
    "cy cx w h": lambda a, b, c, d, _: (b - c / 2, a - d / 2, b + c / 2, a + d / 2),
    "x1 y1 x2 y2": lambda a, b, c, d, _: (a, b, c, d),
    "y1 x1 y2 x2": lambda a, b, c, d, _: (b, a, d, c),
    "x1 x2 y1 y2": lambda a, b, c, d, _: (a, c, b, d),
    "x1 y1 w h": lambda a, b, c, d, _: (a, b, a + c, b + d),
    "cx cy w h divided by the wrong side": lambda a, b, c, d, aspect: (
        (a - c / 2) / aspect,
        (b - d / 2) * aspect,
        (a + c / 2) / aspect,
        (b + d / 2) * aspect,
    ),
    # No order, but a rival: where edges lie inside the boxes, any smaller box has more contrast.
    "smaller square": lambda a, b, c, d, _: (
        a - np.minimum(c, d) / 2,
        b - np.minimum(c, d) / 2,
        a + np.minimum(c, d) / 2,
        b + np.minimum(c, d) / 2,
    ),
}
NAMES = tuple(READINGS)
ORDERS = len(NAMES) - 1  # without the rival, which is the last
SIDES_EXCHANGED = NAMES.index("cx cy h w")
# The corner of a box often lies on an edge: its centre, read as a corner, does so too. Only boxes beyond the image
# are evidence for this reading.
RANGE_ONLY = frozenset({"x1 y1 w h"})
MAX_BOXES = 100  # of one image, for the evidence
WORK_SIZE = 320  # pixels of the longer side in which edges are measured
TOLERANCE = 0.01  # of the image's side, beyond which a box is not inside
PIXEL_VALUES = 2.0  # rows with larger values are not normalized
MIN_IMAGES, MIN_OUTSIDE = 8, 5  # images for evidence by edges, boxes for evidence by range
MIN_T, MIN_RATIO = 5.0, 1.08  # of the contrast of a reading against that of the right order


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """How the rows of one image fit under each reading; zeros without rows."""

    inside: np.ndarray  # (readings,) float32, fraction of boxes inside the image
    contrast: np.ndarray  # (readings,) float32, mean edge strength along the sides, 1: that of the whole image


NO_EVIDENCE = Evidence(inside=np.zeros(len(NAMES), np.float32), contrast=np.zeros(len(NAMES), np.float32))


def in_pixels(rows: np.ndarray) -> bool:
    """Return whether the (k, 5) rows of an image hold pixels instead of fractions of its size."""
    return bool(len(rows)) and float(np.abs(rows[:, 1:]).max(1).mean()) > PIXEL_VALUES


def normalized(rows: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Return the (k, 4) coordinates of rows, divided by the image's size if they are in pixels."""
    height, width = size_hw
    values = rows[:, 1:]
    return values / np.array((width, height, width, height)) if in_pixels(rows) else values


def boxes_of(values: np.ndarray, reading: str, size_hw: tuple[int, int]) -> np.ndarray:
    """Return (k, 4) normalized corners x1, y1, x2, y2 of (k, 4) normalized values under a reading."""
    a, b, c, d = values.T
    return np.stack(READINGS[reading](a, b, c, d, size_hw[1] / size_hw[0]), 1)


def measure(image: np.ndarray, rows: np.ndarray) -> Evidence:
    """Return the evidence of an image (H, W, 3) uint8 RGB and its (k, 5) rows."""
    if not len(rows):
        return NO_EVIDENCE
    size_hw = image.shape[0], image.shape[1]
    values = normalized(rows[:MAX_BOXES], size_hw)
    edges = _edge_sums(image)
    inside, contrast = [], []
    for reading in NAMES:
        boxes = boxes_of(values, reading, size_hw)
        fits = (boxes.min(1) >= -TOLERANCE) & (boxes.max(1) <= 1 + TOLERANCE) & (boxes[:, 2:] > boxes[:, :2]).all(1)
        inside.append(fits.mean())
        contrast.append(np.where(fits, _side_contrast(edges, boxes), 0).mean())
    return Evidence(inside=np.array(inside, np.float32), contrast=np.array(contrast, np.float32))


def _edge_sums(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return sums of edge strength: across columns, cumulated downwards, and across rows, cumulated to the right."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    scale = min(WORK_SIZE / max(grey.shape), 1.0)
    width, height = (max(round(side * scale), 4) for side in (grey.shape[1], grey.shape[0]))
    small = cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
    across_columns = np.pad(np.abs(small[:, 2:] - small[:, :-2]), ((0, 0), (1, 1)))
    across_rows = np.pad(np.abs(small[2:] - small[:-2]), ((1, 1), (0, 0)))
    line = np.ones((1, 3), np.uint8)  # a side may lie one pixel beside the edge
    across_columns, across_rows = cv2.dilate(across_columns, line), cv2.dilate(across_rows, line.T)
    down = np.pad(np.cumsum(across_columns, 0), ((1, 0), (0, 0))) / (across_columns.mean() + 1)
    right = np.pad(np.cumsum(across_rows, 1), ((0, 0), (1, 0))) / (across_rows.mean() + 1)
    return down, right


def _side_contrast(edges: tuple[np.ndarray, np.ndarray], boxes: np.ndarray) -> np.ndarray:
    """Return (k,) mean edge strength along the four sides of (k, 4) normalized corners."""
    down, right = edges
    height, width = down.shape[0] - 1, down.shape[1]
    x1, x2 = (np.clip(np.rint(x * width), 0, width - 1).astype(int) for x in (boxes[:, 0], boxes[:, 2]))
    y1, y2 = (np.clip(np.rint(y * height), 0, height - 1).astype(int) for y in (boxes[:, 1], boxes[:, 3]))
    tall, wide = np.maximum(y2 - y1, 1), np.maximum(x2 - x1, 1)
    vertical = [(down[y1 + tall, x] - down[y1, x]) / tall for x in (x1, x2)]
    horizontal = [(right[y, x1 + wide] - right[y, x1]) / wide for y in (y1, y2)]
    return np.mean(vertical + horizontal, axis=0)


def better_reading(inside: np.ndarray, contrast: np.ndarray, boxes: np.ndarray) -> tuple[str, str] | None:
    """Return the reading under which the images fit clearly better than under the right one, and the evidence.

    Args:
        inside: (n, readings) of images with rows.
        contrast: (n, readings).
        boxes: (n,) number of rows of each image.
    """
    if not len(inside):
        return None
    fits, strength = inside.mean(0), contrast.mean(0)
    outside = float(((1 - inside[:, 0]) * boxes).sum())
    complete = [i for i in range(1, ORDERS) if fits[i] >= 0.99 and fits[i] - fits[0] >= 0.08]
    if complete and outside >= MIN_OUTSIDE:
        best = max(complete, key=lambda i: strength[i])
        if strength[best] > strength[0]:
            words = f"{1 - fits[0]:.0%} of the boxes leave the image, and {1 - fits[best]:.0%} in that order"
            return NAMES[best], words
    best = int(strength[:ORDERS].argmax())
    if best == SIDES_EXCHANGED and strength[-1] > strength[best]:
        return None
    if best == 0 or NAMES[best] in RANGE_ONLY or len(inside) < MIN_IMAGES or fits[best] < fits[0] - 0.02:
        return None
    gain = contrast[:, best] - contrast[:, 0]
    t = gain.mean() / (gain.std(ddof=1) / len(gain) ** 0.5 + 1e-9)
    if t < MIN_T or strength[best] < MIN_RATIO * strength[0]:
        return None
    words = f"the boxes' sides follow edges in the image {strength[best] / strength[0]:.2f} times as well (t = {t:.1f})"
    return NAMES[best], words


def most_fitting(inside: np.ndarray, contrast: np.ndarray) -> str:
    """Return the reading under which most boxes are inside, among nearly equal ones that with the most contrast."""
    fits, strength = inside.mean(0), contrast.mean(0)
    return NAMES[max(range(ORDERS), key=lambda i: (round(float(fits[i]) * 20), strength[i]))]


def values_as(values: Sequence[float]) -> str:
    """Return four numbers as a row shows them."""
    return " ".join(f"{value:.6g}" for value in values)
