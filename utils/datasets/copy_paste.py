"""Copy-paste: mirrored copies of objects with polygons, pasted where they cover little of other objects.

Source: arXiv 2012.07177, sec. 3.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from utils.datasets.polygons import join, scale_and_shift, select
from utils.structures import Sample

MAX_IOA = 0.3
_FRACTION_BITS = 4


def copy_paste(sample: Sample, mask: np.ndarray) -> Sample:
    """Paste copies, after all other objects, of those in an (n,) bool mask, mirrored about the centre of the image.

    An object is skipped if it has no polygon, or if the box of its copy would cover 30 % or more of any box, those of
    earlier copies included. Polygons lie within the image.
    """
    if sample.polygons is None:
        return sample
    width = sample.image.shape[1]
    image = sample.image.copy()
    boxes, pasted = [*sample.boxes], np.zeros(len(mask), bool)
    for index in np.flatnonzero(mask & sample.polygons.known):
        x1, y1, x2, y2 = sample.boxes[index]
        box = np.array((width - x2, y1, width - x1, y2), np.float32)
        if ioa(box, np.stack(boxes)).max() < MAX_IOA:
            _paste(image, sample.image[:, ::-1], sample.polygons.of(int(index)) * (-1, 1) + (width, 0))
            boxes.append(box)
            pasted[index] = True
    if not pasted.any():
        return sample
    selected = select(sample.polygons, pasted)
    mirrored = selected and scale_and_shift(selected, scale_xy=(-1, 1), shift_xy=(width, 0))
    copies = replace(
        sample, boxes=np.stack(boxes[len(sample.boxes) :]), classes=sample.classes[pasted], polygons=mirrored
    )
    return Sample(
        image=image,
        boxes=np.stack(boxes),
        classes=np.concatenate((sample.classes, copies.classes)),
        polygons=join((sample, copies)),
    )


def ioa(box_xyxy: np.ndarray, others_xyxy: np.ndarray) -> np.ndarray:
    """Return the intersection of a (4,) box with each of (n, 4) boxes over the area of the latter, (n,) in [0, 1]."""
    low = np.maximum(box_xyxy[:2], others_xyxy[:, :2])
    high = np.minimum(box_xyxy[2:], others_xyxy[:, 2:])
    areas = (others_xyxy[:, 2:] - others_xyxy[:, :2]).prod(1)
    return np.asarray((high - low).clip(0).prod(1) / (areas + 1e-9))


def _paste(image: np.ndarray, source: np.ndarray, points: np.ndarray) -> None:
    """Copy the interior of a (k, 2) polygon from `source` to the same place in `image`, in place."""
    height, width = image.shape[:2]
    left, top = np.floor(points.min(0)).astype(int).clip(0, (width - 1, height - 1))
    right, bottom = np.ceil(points.max(0)).astype(int).clip((left + 1, top + 1), (width, height))
    mask = np.zeros((bottom - top, right - left), np.uint8)
    # The centre of the first pixel is at 0.5 in box coordinates, but at 0 for OpenCV's drawing functions.
    corners = ((points - (left, top) - 0.5) * 2**_FRACTION_BITS).round().astype(np.int32)
    cv2.fillPoly(mask, [corners], 1, shift=_FRACTION_BITS)
    part = np.s_[top:bottom, left:right]
    np.copyto(image[part], source[part], where=mask[..., None] == 1)
