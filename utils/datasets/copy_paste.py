"""Copy-paste: outlined objects are cut out, mirrored, and pasted where they hide little of what is there.

Source: arXiv 2012.07177, sec. 3.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from utils.datasets.polygons import join, moved, select
from utils.structures import Sample

MAX_HIDDEN_SHARE = 0.3
_FRACTION_BITS = 4


def copy_paste(sample: Sample, chosen: np.ndarray) -> Sample:
    """Paste chosen objects once more, mirrored left and right about the image's middle.

    An object is passed over if its box there would cover 30 % or more of any box, those of earlier pastes included.

    Args:
        sample: with outlines that lie within the image.
        chosen: (n,) bool; objects of which only the box is known are passed over.

    Returns:
        The sample with the pasted objects after its own.
    """
    if sample.outlines is None:
        return sample
    width = sample.image.shape[1]
    image = sample.image.copy()
    boxes, pasted = [*sample.boxes], np.zeros(len(chosen), bool)
    for number in np.flatnonzero(chosen & sample.outlines.known):
        x1, y1, x2, y2 = sample.boxes[number]
        box = np.array((width - x2, y1, width - x1, y2), np.float32)
        if ioa(box, np.stack(boxes)).max() < MAX_HIDDEN_SHARE:
            _paste(image, sample.image[:, ::-1], sample.outlines.of(int(number)) * (-1, 1) + (width, 0))
            boxes.append(box)
            pasted[number] = True
    if not pasted.any():
        return sample
    copies = select(sample.outlines, pasted)
    mirrored = copies and moved(copies, scale_xy=(-1, 1), shift_xy=(width, 0))
    added = replace(
        sample, boxes=np.stack(boxes[len(sample.boxes) :]), classes=sample.classes[pasted], outlines=mirrored
    )
    return Sample(
        image=image,
        boxes=np.stack(boxes),
        classes=np.concatenate((sample.classes, added.classes)),
        outlines=join((sample, added)),
    )


def ioa(box_xyxy: np.ndarray, others_xyxy: np.ndarray) -> np.ndarray:
    """Return which share of each of (n, 4) boxes a (4,) box covers, (n,) from 0 to 1."""
    low = np.maximum(box_xyxy[:2], others_xyxy[:, :2])
    high = np.minimum(box_xyxy[2:], others_xyxy[:, 2:])
    areas = (others_xyxy[:, 2:] - others_xyxy[:, :2]).prod(1)
    return np.asarray((high - low).clip(0).prod(1) / (areas + 1e-9))


def _paste(image: np.ndarray, source: np.ndarray, points: np.ndarray) -> None:
    """Copy what (k, 2) points enclose from `source` into the same place of `image`, which is changed."""
    height, width = image.shape[:2]
    left, top = np.floor(points.min(0)).astype(int).clip(0, (width - 1, height - 1))
    right, bottom = np.ceil(points.max(0)).astype(int).clip((left + 1, top + 1), (width, height))
    mask = np.zeros((bottom - top, right - left), np.uint8)
    # The middle of the first pixel lies at one half, where drawing has it at zero.
    corners = ((points - (left, top) - 0.5) * 2**_FRACTION_BITS).round().astype(np.int32)
    cv2.fillPoly(mask, [corners], 1, shift=_FRACTION_BITS)
    part = np.s_[top:bottom, left:right]
    np.copyto(image[part], source[part], where=mask[..., None] == 1)
