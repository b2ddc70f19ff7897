"""Who is taken for whom, background included."""

from __future__ import annotations

import numpy as np

from utils.boxes import pairwise_iou

CONFIDENCE = 0.25
OVERLAP = 0.45


def pair_boxes(boxes_xyxy: np.ndarray, label_boxes_xyxy: np.ndarray, *, overlap: float = OVERLAP) -> np.ndarray:
    """Pair boxes with labels whatever their classes, pairs of largest overlap first, each used once.

    Args:
        boxes_xyxy: (n, 4).
        label_boxes_xyxy: (m, 4).
        overlap: what the IoU of a pair must exceed.

    Returns:
        (n,) each box's label, -1 without one.
    """
    partner = np.full(len(boxes_xyxy), -1, np.int64)
    if not len(boxes_xyxy) or not len(label_boxes_xyxy):
        return partner
    iou = pairwise_iou(label_boxes_xyxy, boxes_xyxy)  # (m, n)
    labels, boxes = (iou > overlap).nonzero()
    order = np.argsort(-iou[labels, boxes], kind="stable")
    free_labels, free_boxes = set(labels.tolist()), set(boxes.tolist())
    for label, box in zip(labels[order].tolist(), boxes[order].tolist(), strict=True):
        if label in free_labels and box in free_boxes:
            free_labels.remove(label)
            free_boxes.remove(box)
            partner[box] = label
    return partner


class ConfusionMatrix:
    """Counts of (predicted class, true class); the last row and column are background.

    Attributes:
        counts: (c + 1, c + 1) int64, rows predicted, columns true.
    """

    def __init__(self, num_classes: int, *, confidence: float = CONFIDENCE, overlap: float = OVERLAP) -> None:
        """Make an empty matrix; detections below `confidence` do not count, pairs need more than `overlap`."""
        self.counts = np.zeros((num_classes + 1, num_classes + 1), np.int64)
        self.confidence = confidence
        self.overlap = overlap

    def add(
        self,
        boxes_xyxy: np.ndarray,
        scores: np.ndarray,
        classes: np.ndarray,
        label_boxes_xyxy: np.ndarray,
        label_classes: np.ndarray,
    ) -> None:
        """Count one image: pairs of largest overlap first, each box used once, then what is left over."""
        background = len(self.counts) - 1
        sure = scores > self.confidence
        predicted, labels = classes[sure].astype(np.int64), label_classes.astype(np.int64)
        partner = pair_boxes(boxes_xyxy[sure], label_boxes_xyxy, overlap=self.overlap)
        paired = partner >= 0
        np.add.at(self.counts, (predicted[paired], labels[partner[paired]]), 1)
        missed = np.ones(len(labels), bool)
        missed[partner[paired]] = False
        self.counts[background] += np.bincount(labels[missed], minlength=background + 1)
        self.counts[:, background] += np.bincount(predicted[~paired], minlength=background + 1)

    def normalised(self) -> np.ndarray:
        """Return each column's shares, (c + 1, c + 1), 0 where it is empty.

        A class's column tells what became of its labels; background's, what the false alarms were taken for.
        """
        return self.counts / np.maximum(self.counts.sum(0, keepdims=True), 1)
