"""Confusion matrix of detected and true classes, background included."""

from __future__ import annotations

import numpy as np

from utils.boxes import pairwise_iou
from utils.metrics.evaluated_set import EvaluatedSet, ImageEvaluation
from utils.thresholds import CONF_THRESHOLD, IOU_THRESHOLD


def pair_boxes(
    boxes_xyxy: np.ndarray, label_boxes_xyxy: np.ndarray, *, iou_threshold: float = IOU_THRESHOLD
) -> np.ndarray:
    """Pair (n, 4) boxes with (m, 4) labels regardless of class, by descending IoU, each box and label at most once.

    Returns:
        (n,) index of the label with which a box has an IoU above the threshold, -1 without one.
    """
    partner = np.full(len(boxes_xyxy), -1, np.int64)
    if not len(boxes_xyxy) or not len(label_boxes_xyxy):
        return partner
    iou = pairwise_iou(label_boxes_xyxy, boxes_xyxy)  # (m, n)
    labels, boxes = (iou > iou_threshold).nonzero()
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
        conf_threshold: detections count above this confidence.
        iou_threshold: pairs count above this IoU.
    """

    def __init__(
        self, num_classes: int, *, conf_threshold: float = CONF_THRESHOLD, iou_threshold: float = IOU_THRESHOLD
    ) -> None:
        """Start with zero counts."""
        self.counts = np.zeros((num_classes + 1, num_classes + 1), np.int64)
        self.conf_threshold = conf_threshold
        self.iou_threshold = iou_threshold

    def add(self, image: ImageEvaluation) -> None:
        """Count the pairs of one image, then the labels and detections without a partner."""
        self._count(image.boxes, image.confidences, image.classes, image.label_boxes, image.label_classes)

    def add_set(self, evaluated: EvaluatedSet) -> None:
        """Count every image of a set."""
        ids = np.arange(evaluated.num_images + 1)
        starts = np.searchsorted(evaluated.image_ids, ids)
        label_starts = np.searchsorted(evaluated.label_image_ids, ids)
        for image in range(evaluated.num_images):
            of, labels = slice(*starts[image : image + 2]), slice(*label_starts[image : image + 2])
            detections = evaluated.boxes[of], evaluated.confidences[of], evaluated.classes[of]
            self._count(*detections, evaluated.label_boxes[labels], evaluated.label_classes[labels])

    def _count(
        self,
        boxes: np.ndarray,
        confidences: np.ndarray,
        classes: np.ndarray,
        label_boxes: np.ndarray,
        label_classes: np.ndarray,
    ) -> None:
        background = len(self.counts) - 1
        confident = confidences > self.conf_threshold
        predicted, labels = classes[confident].astype(np.int64), label_classes.astype(np.int64)
        partner = pair_boxes(boxes[confident], label_boxes, iou_threshold=self.iou_threshold)
        paired = partner >= 0
        np.add.at(self.counts, (predicted[paired], labels[partner[paired]]), 1)
        missed = np.ones(len(labels), bool)
        missed[partner[paired]] = False
        self.counts[background] += np.bincount(labels[missed], minlength=background + 1)
        self.counts[:, background] += np.bincount(predicted[~paired], minlength=background + 1)

    def normalized(self) -> np.ndarray:
        """Return (c + 1, c + 1) fractions of each column's sum, 0 in an empty column."""
        return self.counts / np.maximum(self.counts.sum(0, keepdims=True), 1)
