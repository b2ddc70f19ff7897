"""Small, medium and large objects, as COCO draws the lines, and which detections count for which."""

from __future__ import annotations

import numpy as np

from utils.boxes import pairwise_iou

SIZES = ("small", "medium", "large")
AREA_LIMITS = (32.0**2, 96.0**2)  # square pixels of the image file: small below the first, large from the second
UNCLAIMED = -1


def size_of(boxes_xyxy: np.ndarray) -> np.ndarray:
    """Return (n,) int: 0 small, 1 medium, 2 large, by the area of (n, 4) boxes in pixels of the file."""
    area = (boxes_xyxy[:, 2] - boxes_xyxy[:, 0]) * (boxes_xyxy[:, 3] - boxes_xyxy[:, 1])
    return np.searchsorted(np.array(AREA_LIMITS), area, side="right").astype(np.int8)


def assign_size_bins(
    boxes_xyxy: np.ndarray, classes: np.ndarray, label_boxes_xyxy: np.ndarray, label_classes: np.ndarray
) -> np.ndarray:
    """Return (n,) int: the size of the label that each detection claims, the one of its class that it overlaps most.

    Args:
        boxes_xyxy: (n, 4) detections.
        classes: (n,).
        label_boxes_xyxy: (m, 4).
        label_classes: (m,).

    Returns:
        -1 for a detection that overlaps no label of its class.
    """
    if not len(boxes_xyxy) or not len(label_boxes_xyxy):
        return np.full(len(boxes_xyxy), UNCLAIMED, np.int8)
    iou = pairwise_iou(label_boxes_xyxy, boxes_xyxy)  # (m, n)
    iou = np.where(label_classes[:, None] == classes[None], iou, -1)
    claimed = iou.argmax(0)
    overlaps = iou[claimed, np.arange(len(boxes_xyxy))] > 0
    return np.where(overlaps, size_of(label_boxes_xyxy)[claimed], UNCLAIMED).astype(np.int8)


def in_size_bin(
    number: int, *, correct: np.ndarray, own_sizes: np.ndarray, claimed: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Tell which detections are right, and which count at all, when only objects of one size are asked for.

    A right detection counts if its object has the size; a wrong one if it has the size itself. So a model is neither
    praised nor blamed for what it finds of other sizes.

    Args:
        number: 0 small, 1 medium, 2 large.
        correct: (n, t) bool.
        own_sizes: (n,) of the detections.
        claimed: (n,) of `assign_size_bins`.

    Returns:
        Two (n, t) bool.
    """
    right = correct & (claimed == number)[:, None]
    return right, np.where(correct, right, (own_sizes == number)[:, None])
