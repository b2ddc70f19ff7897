"""Who is taken for whom, background included."""

from __future__ import annotations

import numpy as np

from utils.boxes import pairwise_iou

CONFIDENCE = 0.25
OVERLAP = 0.45


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
        """Count one picture: pairs of largest overlap first, each box used once, then what is left over."""
        background = len(self.counts) - 1
        sure = scores > self.confidence
        boxes, predicted = boxes_xyxy[sure], classes[sure].astype(np.int64)
        labels = label_classes.astype(np.int64)
        iou = pairwise_iou(label_boxes_xyxy, boxes)  # (m, n)
        label_free, box_free = np.ones(len(labels), bool), np.ones(len(predicted), bool)
        pairs = np.argwhere(iou > self.overlap)
        for label, box in pairs[np.argsort(-iou[tuple(pairs.T)], kind="stable")]:
            if label_free[label] and box_free[box]:
                label_free[label] = box_free[box] = False
                self.counts[predicted[box], labels[label]] += 1
        self.counts[background] += np.bincount(labels[label_free], minlength=background + 1)
        self.counts[:, background] += np.bincount(predicted[box_free], minlength=background + 1)

    def normalised(self) -> np.ndarray:
        """Return the shares of each true class's labels, (c + 1, c + 1); columns without labels are 0."""
        return self.counts / np.maximum(self.counts.sum(0, keepdims=True), 1)
