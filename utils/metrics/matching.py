"""Pair the detections of one image with its labels, at ten overlaps at once."""

from __future__ import annotations

import numpy as np

from utils.boxes import pairwise_iou

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)


def match_detections(
    boxes_xyxy: np.ndarray,
    classes: np.ndarray,
    label_boxes_xyxy: np.ndarray,
    label_classes: np.ndarray,
    *,
    thresholds: np.ndarray = IOU_THRESHOLDS,
) -> np.ndarray:
    """Tell which detections are right.

    A detection claims the label of its class that it overlaps most, if by at least the threshold; a label claimed by
    several goes to the best of them, the others are wrong.

    Args:
        boxes_xyxy: (n, 4) detections, best first.
        classes: (n,) their classes.
        label_boxes_xyxy: (m, 4).
        label_classes: (m,).
        thresholds: (t,) overlaps.

    Returns:
        (n, t) bool.
    """
    correct = np.zeros((len(boxes_xyxy), len(thresholds)), dtype=bool)
    if not len(boxes_xyxy) or not len(label_boxes_xyxy):
        return correct
    iou = pairwise_iou(label_boxes_xyxy, boxes_xyxy)  # (m, n)
    iou = np.where(label_classes[:, None] == classes[None], iou, -1)
    claimed = iou.argmax(0)
    overlap = iou[claimed, np.arange(len(boxes_xyxy))]
    near = np.flatnonzero(overlap >= thresholds.min())  # few of an untrained model's hundreds
    hit = overlap[near, None] >= thresholds  # (k, t)
    place = np.where(hit, np.arange(len(near))[:, None], len(near))
    first = np.full((len(label_boxes_xyxy), len(thresholds)), len(near))
    np.minimum.at(first, claimed[near], place)
    correct[near] = hit & (first[claimed[near]] == place)
    return correct
