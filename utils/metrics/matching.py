"""Match the detections of one image with its ground truth, at ten IoU thresholds at once."""

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
    iou_thresholds: np.ndarray = IOU_THRESHOLDS,
) -> tuple[np.ndarray, np.ndarray]:
    """Match detections with labels.

    A detection claims the label of its class with the largest IoU. It is a true positive if that IoU reaches the
    threshold and no earlier detection has claimed the label at that threshold.

    Args:
        boxes_xyxy: (n, 4) detections by descending confidence.
        classes: (n,).
        label_boxes_xyxy: (m, 4).
        label_classes: (m,).
        iou_thresholds: (t,).

    Returns:
        (n, t) bool, the true positives; and the (n,) indices of the labels claimed, -1 without overlap.
    """
    tp = np.zeros((len(boxes_xyxy), len(iou_thresholds)), dtype=bool)
    if not len(boxes_xyxy) or not len(label_boxes_xyxy):
        return tp, np.full(len(boxes_xyxy), -1)
    iou = pairwise_iou(label_boxes_xyxy, boxes_xyxy)  # (m, n)
    iou = np.where(label_classes[:, None] == classes[None], iou, -1)
    claimed = iou.argmax(0)
    claimed_iou = iou[claimed, np.arange(len(boxes_xyxy))]
    near = np.flatnonzero(claimed_iou >= iou_thresholds.min())  # few of an untrained model's hundreds
    reached = claimed_iou[near, None] >= iou_thresholds  # (k, t)
    position = np.where(reached, np.arange(len(near))[:, None], len(near))
    first = np.full((len(label_boxes_xyxy), len(iou_thresholds)), len(near))
    np.minimum.at(first, claimed[near], position)
    tp[near] = reached & (first[claimed[near]] == position)
    return tp, np.where(claimed_iou > 0, claimed, -1)
