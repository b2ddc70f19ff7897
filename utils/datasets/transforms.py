"""Augmentations of one Sample: pure functions of the sample and of numbers already drawn.

Each transform has a part that draws from a generator and a part that only computes; nothing is changed in place.
"""

from __future__ import annotations

import math
import threading
from dataclasses import replace

import cv2
import numpy as np

from utils.datasets.letterbox import PAD_VALUE
from utils.datasets.polygons import boxes_within, join, moved, select, warped
from utils.structures import Sample

MIN_SIDE = 2.0
MIN_AREA_SHARE = 0.1
MIN_AREA_SHARE_OUTLINED = 0.01
MAX_ASPECT = 100.0
_KEPT = threading.local()  # a large array is dear to allocate: its memory comes from the system page by page


def flip_horizontally(sample: Sample) -> Sample:
    """Mirror left and right."""
    width = sample.image.shape[1]
    boxes = sample.boxes.copy()
    boxes[:, [0, 2]] = width - sample.boxes[:, [2, 0]]
    outlines = sample.outlines and moved(sample.outlines, scale_xy=(-1, 1), shift_xy=(width, 0))
    return replace(sample, image=cv2.flip(sample.image, 1), boxes=boxes, outlines=outlines)


def flip_vertically(sample: Sample) -> Sample:
    """Mirror top and bottom."""
    height = sample.image.shape[0]
    boxes = sample.boxes.copy()
    boxes[:, [1, 3]] = height - sample.boxes[:, [3, 1]]
    outlines = sample.outlines and moved(sample.outlines, scale_xy=(1, -1), shift_xy=(0, height))
    return replace(sample, image=cv2.flip(sample.image, 0), boxes=boxes, outlines=outlines)


def hsv_jitter(image: np.ndarray, gains_hsv: tuple[float, float, float]) -> np.ndarray:
    """Multiply hue (turning), saturation and value (both clipped) of an (H, W, 3) uint8 RGB image."""
    levels = np.arange(256, dtype=np.float64)
    hue = (levels * gains_hsv[0]) % 180  # OpenCV keeps hue in half degrees
    saturation, value = ((levels * gain).clip(0, 255) for gain in gains_hsv[1:])
    channels = cv2.split(cv2.cvtColor(image, cv2.COLOR_RGB2HSV))  # looked up apart: faster than in one table of three
    tables = (table.astype(np.uint8) for table in (hue, saturation, value))
    changed = [cv2.LUT(channel, table) for channel, table in zip(channels, tables, strict=True)]
    return cv2.cvtColor(cv2.merge(changed), cv2.COLOR_HSV2RGB)


def draw_colour_gains(
    rng: np.random.Generator, *, hsv_h: float, hsv_s: float, hsv_v: float
) -> tuple[float, float, float]:
    """Draw gains for `hsv_jitter`: 1 plus or minus up to the given shares."""
    hue, saturation, value = 1 + rng.uniform(-1, 1, 3) * (hsv_h, hsv_s, hsv_v)
    return float(hue), float(saturation), float(value)


def draw_perspective(
    rng: np.random.Generator,
    *,
    size_hw: tuple[int, int],
    out_hw: tuple[int, int],
    degrees: float,
    translate: float,
    scale: float,
    shear: float,
    perspective: float,
) -> np.ndarray:
    """Draw a 3x3 matrix that brings pixels of an image to pixels of the output.

    Args:
        rng: the source of randomness.
        size_hw: height and width of the image, whose middle is turned around.
        out_hw: height and width of the output, onto whose middle it falls, but for the translation.
        degrees: rotation up to this, either way.
        translate: shift up to this share of the output's size, either way.
        scale: magnification between 1 minus and 1 plus this.
        shear: up to this many degrees along each axis.
        perspective: up to this much of the projective terms, per pixel.
    """
    centre = np.eye(3)
    centre[0, 2], centre[1, 2] = -size_hw[1] / 2, -size_hw[0] / 2
    project = np.eye(3)
    project[2, :2] = rng.uniform(-perspective, perspective, 2)
    angle = math.radians(rng.uniform(-degrees, degrees))
    zoom = rng.uniform(1 - scale, 1 + scale)
    turn = np.eye(3)
    turn[:2, :2] = zoom * np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    slant = np.eye(3)
    slant[0, 1], slant[1, 0] = np.tan(np.radians(rng.uniform(-shear, shear, 2)))
    move = np.eye(3)
    move[0, 2], move[1, 2] = rng.uniform(0.5 - translate, 0.5 + translate, 2) * (out_hw[1], out_hw[0])
    return move @ slant @ turn @ project @ centre


def warp(sample: Sample, matrix: np.ndarray, out_hw: tuple[int, int]) -> Sample:
    """Send a sample through a 3x3 matrix.

    Boxes become the boxes around their warped corners, or around what is seen of the warped outline where that is
    known. A box is kept if, cut at the borders, it is wider and higher than 2 px, has more than a tenth (with an
    outline a hundredth) of the area it would have if only scaled, and is less than 100 times longer than thick.
    """
    height, width = out_hw
    affine = bool(np.array_equal(matrix[2], (0, 0, 1)))
    image = _warp_pixels(sample.image, matrix, out_hw, affine=affine)
    if not len(sample.boxes):
        return replace(sample, image=image)
    boxes = warp_boxes(sample.boxes, matrix)
    clipped = np.stack(
        (*(boxes[:, i].clip(0, (width, height)[i % 2]) for i in range(4)),),
        -1,
    ).astype(np.float32)
    least_shares: np.ndarray | float = MIN_AREA_SHARE
    outlines = sample.outlines and warped(sample.outlines, matrix)
    if outlines is not None:
        clipped = np.where(outlines.known[:, None], boxes_within(outlines, out_hw), clipped)
        least_shares = np.where(outlines.known, MIN_AREA_SHARE_OUTLINED, MIN_AREA_SHARE)
    zoom = math.sqrt(abs(np.linalg.det(matrix[:2, :2]))) if affine else 1.0
    kept = valid_after_transform(sample.boxes * zoom, clipped, least_shares=least_shares)
    return Sample(image=image, boxes=clipped[kept], classes=sample.classes[kept], outlines=select(outlines, kept))


def _warp_pixels(image: np.ndarray, matrix: np.ndarray, out_hw: tuple[int, int], *, affine: bool) -> np.ndarray:
    """Warp an (H, W, 3) image by way of four channels, which OpenCV moves three times as fast as three."""
    four = cv2.cvtColor(image, cv2.COLOR_RGB2RGBA, dst=_scratch((*image.shape[:2], 4)))
    size_wh, border = (out_hw[1], out_hw[0]), (PAD_VALUE,) * 4
    if affine:
        moved_four = cv2.warpAffine(four, matrix[:2], size_wh, borderValue=border)
    else:
        moved_four = cv2.warpPerspective(four, matrix, size_wh, borderValue=border)
    return cv2.cvtColor(moved_four, cv2.COLOR_RGBA2RGB)


def _scratch(shape: tuple[int, ...]) -> np.ndarray:
    """Return a uint8 array of any content, the same memory at each call of a thread."""
    size = math.prod(shape)
    held: np.ndarray | None = getattr(_KEPT, "held", None)
    if held is None or held.size < size:
        held = _KEPT.held = np.empty(size, np.uint8)
    return held[:size].reshape(shape)


def warp_boxes(boxes_xyxy: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return the (n, 4) boxes around the corners of (n, 4) boxes sent through a 3x3 matrix."""
    corners = boxes_xyxy[:, [0, 1, 2, 3, 0, 3, 2, 1]].reshape(-1, 2)
    points = np.concatenate((corners, np.ones((len(corners), 1))), 1) @ matrix.T
    points = (points[:, :2] / points[:, 2:]).reshape(-1, 4, 2)
    return np.concatenate((points.min(1), points.max(1)), 1)


def valid_after_transform(
    before_xyxy: np.ndarray, after_xyxy: np.ndarray, *, least_shares: np.ndarray | float = MIN_AREA_SHARE
) -> np.ndarray:
    """Tell which (n, 4) boxes are still worth learning from after a warp and a cut; (n,) bool.

    `least_shares` is what must be left of the area, for all boxes or (n,) for each.
    """
    width, height = (after_xyxy[:, i + 2] - after_xyxy[:, i] for i in (0, 1))
    area_before = (before_xyxy[:, 2] - before_xyxy[:, 0]) * (before_xyxy[:, 3] - before_xyxy[:, 1])
    aspect = np.maximum(width / (height + 1e-16), height / (width + 1e-16))
    large = (width > MIN_SIDE) & (height > MIN_SIDE)
    return large & (width * height / (area_before + 1e-16) > least_shares) & (aspect < MAX_ASPECT)


def blend(first: Sample, second: Sample, share: float) -> Sample:
    """Mix two samples of one size: pixels by share, labels of both. Source: mixup, arXiv 1710.09412."""
    image = cv2.addWeighted(first.image, share, second.image, 1 - share, 0)
    return Sample(
        image=image,
        boxes=np.concatenate((first.boxes, second.boxes)),
        classes=np.concatenate((first.classes, second.classes)),
        outlines=join((first, second)),
    )
