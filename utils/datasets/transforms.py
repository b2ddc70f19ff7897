"""Augmentations of one sample: pure functions of the sample and of parameters drawn before.

Drawing from a generator is separate from applying; nothing is modified in place.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, replace

import cv2
import numpy as np

from utils.datasets.letterbox import PAD_VALUE
from utils.datasets.polygons import join, scale_and_shift, select, transform, visible_boxes
from utils.structures import Sample

MIN_SIDE = 2.0
MIN_AREA_RATIO = 0.1
MIN_AREA_RATIO_POLYGON = 0.01
MAX_ASPECT = 100.0
_BUFFERS = threading.local()  # large arrays are slow to allocate: the system provides their memory page by page


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Strengths of the augmentations; the field names are those of the hyperparameter yaml."""

    hsv_h: float = 0.0  # hue gain: a factor between 1 - hsv_h and 1 + hsv_h
    hsv_s: float = 0.0  # saturation gain
    hsv_v: float = 0.0  # value gain
    degrees: float = 0.0  # maximum rotation, in either direction
    translate: float = 0.0  # maximum shift in either direction, a fraction of the output's size
    scale: float = 0.0  # the scale is between 1 - `scale` and 1 + `scale`
    shear: float = 0.0  # maximum shear along each axis, in degrees
    perspective: float = 0.0  # maximum of the projective terms, per pixel
    flipud: float = 0.0  # probability of a vertical flip
    fliplr: float = 0.0  # probability of a horizontal flip
    mosaic: float = 0.0  # probability of joining four images
    mixup: float = 0.0  # probability of mixing a mosaic with another
    copy_paste: float = 0.0  # probability, for each object with a polygon, of pasting a mirrored copy


def flip(sample: Sample, *, axis: int) -> Sample:
    """Mirror along x (axis 0: left and right) or y (axis 1: top and bottom)."""
    length = sample.image.shape[1 - axis]
    boxes = sample.boxes.copy()
    boxes[:, [axis, axis + 2]] = length - sample.boxes[:, [axis + 2, axis]]
    scale_xy, shift_xy = ((1, -1), (0, length)) if axis else ((-1, 1), (length, 0))
    polygons = sample.polygons and scale_and_shift(sample.polygons, scale_xy=scale_xy, shift_xy=shift_xy)
    return replace(sample, image=cv2.flip(sample.image, 1 - axis), boxes=boxes, polygons=polygons)


def hsv_jitter(image: np.ndarray, gains_hsv: tuple[float, float, float]) -> np.ndarray:
    """Multiply hue (modulo 360 degrees), saturation and value (both clipped) of an (H, W, 3) uint8 RGB image."""
    levels = np.arange(256, dtype=np.float64)
    hue = (levels * gains_hsv[0]) % 180  # OpenCV stores hue in half degrees
    saturation, value = ((levels * gain).clip(0, 255) for gain in gains_hsv[1:])
    channels = cv2.split(cv2.cvtColor(image, cv2.COLOR_RGB2HSV))  # three lookups: faster than one table of three
    tables = (table.astype(np.uint8) for table in (hue, saturation, value))
    changed = [cv2.LUT(channel, table) for channel, table in zip(channels, tables, strict=True)]
    return cv2.cvtColor(cv2.merge(changed), cv2.COLOR_HSV2RGB)


def draw_hsv_gains(rng: np.random.Generator, strength: Augmentation) -> tuple[float, float, float]:
    """Draw gains for `hsv_jitter`, each uniform."""
    hue, saturation, value = 1 + rng.uniform(-1, 1, 3) * (strength.hsv_h, strength.hsv_s, strength.hsv_v)
    return float(hue), float(saturation), float(value)


def draw_perspective(
    rng: np.random.Generator, strength: Augmentation, *, size_hw: tuple[int, int], out_hw: tuple[int, int]
) -> np.ndarray:
    """Draw a 3x3 matrix that maps pixels of an image to pixels of the output. Every parameter is drawn uniformly.

    The image rotates around its centre, which without translation maps to the centre of the output.
    """
    centre = np.eye(3)
    centre[0, 2], centre[1, 2] = -size_hw[1] / 2, -size_hw[0] / 2
    projection = np.eye(3)
    projection[2, :2] = rng.uniform(-strength.perspective, strength.perspective, 2)
    angle = math.radians(rng.uniform(-strength.degrees, strength.degrees))
    zoom = rng.uniform(1 - strength.scale, 1 + strength.scale)
    rotation = np.eye(3)
    rotation[:2, :2] = zoom * np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    skew = np.eye(3)
    skew[0, 1], skew[1, 0] = np.tan(np.radians(rng.uniform(-strength.shear, strength.shear, 2)))
    shift = np.eye(3)
    low, high = 0.5 - strength.translate, 0.5 + strength.translate
    shift[0, 2], shift[1, 2] = rng.uniform(low, high, 2) * (out_hw[1], out_hw[0])
    return shift @ skew @ rotation @ projection @ centre


def warp(sample: Sample, matrix: np.ndarray, out_hw: tuple[int, int]) -> Sample:
    """Transform a sample by a 3x3 projective matrix.

    A box becomes the bounding box of its transformed corners, or of the visible part of the transformed polygon if the
    object has one. A box is kept if, clipped to the output, it is wider and higher than 2 px, has more than a tenth
    (with a polygon a hundredth) of the area that scaling alone would give, and an aspect ratio below 100.
    """
    height, width = out_hw
    affine = bool(np.array_equal(matrix[2], (0, 0, 1)))
    image = _warp_pixels(sample.image, matrix, out_hw, affine=affine)
    if not len(sample.boxes):
        return replace(sample, image=image)
    boxes = warp_boxes(sample.boxes, matrix)
    clipped = boxes.clip(0, (width, height, width, height)).astype(np.float32)
    min_area_ratio: np.ndarray | float = MIN_AREA_RATIO
    polygons = sample.polygons and transform(sample.polygons, matrix)
    if polygons is not None:
        clipped = np.where(polygons.known[:, None], visible_boxes(polygons, out_hw), clipped)
        min_area_ratio = np.where(polygons.known, MIN_AREA_RATIO_POLYGON, MIN_AREA_RATIO)
    zoom = math.sqrt(abs(np.linalg.det(matrix[:2, :2]))) if affine else 1.0
    valid = valid_after_transform(sample.boxes * zoom, clipped, min_area_ratio=min_area_ratio)
    return Sample(image=image, boxes=clipped[valid], classes=sample.classes[valid], polygons=select(polygons, valid))


def _warp_pixels(image: np.ndarray, matrix: np.ndarray, out_hw: tuple[int, int], *, affine: bool) -> np.ndarray:
    """Warp an (H, W, 3) image as four channels, which OpenCV does three times as fast as three."""
    rgba = cv2.cvtColor(image, cv2.COLOR_RGB2RGBA, dst=_buffer((*image.shape[:2], 4)))
    size_wh, border = (out_hw[1], out_hw[0]), (PAD_VALUE,) * 4
    if affine:
        warped = cv2.warpAffine(rgba, matrix[:2], size_wh, borderValue=border)
    else:
        warped = cv2.warpPerspective(rgba, matrix, size_wh, borderValue=border)
    return cv2.cvtColor(warped, cv2.COLOR_RGBA2RGB)


def _buffer(shape: tuple[int, ...]) -> np.ndarray:
    """Return an uninitialized uint8 array; every call in a thread returns the same memory."""
    size = math.prod(shape)
    buffer: np.ndarray | None = getattr(_BUFFERS, "buffer", None)
    if buffer is None or buffer.size < size:
        buffer = _BUFFERS.buffer = np.empty(size, np.uint8)
    return buffer[:size].reshape(shape)


def warp_boxes(boxes_xyxy: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return the bounding boxes, (n, 4), of the corners of (n, 4) boxes transformed by a 3x3 matrix."""
    corners = boxes_xyxy[:, [0, 1, 2, 3, 0, 3, 2, 1]].reshape(-1, 2)
    points = np.concatenate((corners, np.ones((len(corners), 1))), 1) @ matrix.T
    points = (points[:, :2] / points[:, 2:]).reshape(-1, 4, 2)
    return np.concatenate((points.min(1), points.max(1)), 1)


def valid_after_transform(
    before_xyxy: np.ndarray, after_xyxy: np.ndarray, *, min_area_ratio: np.ndarray | float = MIN_AREA_RATIO
) -> np.ndarray:
    """Return which of (n, 4) boxes are still useful labels after a transform and clipping, (n,) bool.

    The boxes before are scaled as the transform scales; `min_area_ratio` of their area must be left.
    """
    width, height = (after_xyxy[:, i + 2] - after_xyxy[:, i] for i in (0, 1))
    area_before = (before_xyxy[:, 2] - before_xyxy[:, 0]) * (before_xyxy[:, 3] - before_xyxy[:, 1])
    aspect = np.maximum(width / (height + 1e-16), height / (width + 1e-16))
    is_large = (width > MIN_SIDE) & (height > MIN_SIDE)
    return is_large & (width * height / (area_before + 1e-16) > min_area_ratio) & (aspect < MAX_ASPECT)


def mixup(first: Sample, second: Sample, ratio: float) -> Sample:
    """Mix two samples of the same size: `ratio` of the first image, 1 - `ratio` of the second, labels of both.

    Source: mixup, arXiv 1710.09412.
    """
    image = cv2.addWeighted(first.image, ratio, second.image, 1 - ratio, 0)
    return Sample(
        image=image,
        boxes=np.concatenate((first.boxes, second.boxes)),
        classes=np.concatenate((first.classes, second.classes)),
        polygons=join((first, second)),
    )
