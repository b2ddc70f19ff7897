"""False negatives and false positives of an image, paired as the confusion matrix pairs.

So each false negative is one count of that matrix's last row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from utils.boxes import pairwise_iou
from utils.metrics.confusion import pair_boxes
from utils.metrics.evaluated_set import ImageEvaluation
from utils.thresholds import CONF_THRESHOLD, IOU_THRESHOLD

BACKGROUND = -1


@dataclass(frozen=True, kw_only=True)
class DetectionError:
    """One false negative or false positive."""

    box: np.ndarray  # (4,) x1, y1, x2, y2 in pixels of the image file, of the label or of the false positive
    class_id: int  # of that box
    is_false_negative: bool  # otherwise it is a false positive
    # of the false positive; for a false negative that of the best detection of its class on it, 0 without one. One
    # above `CONF_THRESHOLD` is paired with another label, with which it has a larger IoU
    confidence: float
    true_class: int = BACKGROUND  # of the label under a false positive, `BACKGROUND` without one
    # the false positive lies on a label of its class that is paired with another detection
    is_duplicate: bool = False

    @property
    def matched_to_other(self) -> bool:
        """Whether a confident detection lies on this false negative but is paired with another label."""
        return self.is_false_negative and self.confidence > CONF_THRESHOLD


def detection_errors(image: ImageEvaluation) -> tuple[list[DetectionError], list[DetectionError]]:
    """Return the false negatives and false positives of an image, in no particular order.

    A label that is detected as another class is a false positive of that class, not a false negative.
    """
    confident = np.flatnonzero(image.confidences > CONF_THRESHOLD)
    partner = pair_boxes(image.boxes[confident], image.label_boxes)
    iou = pairwise_iou(image.label_boxes, image.boxes)  # (m, n)
    on_same_class = (iou > IOU_THRESHOLD) & (image.label_classes[:, None] == image.classes[None])
    false_negatives = [
        DetectionError(
            box=image.label_boxes[label],
            class_id=int(image.label_classes[label]),
            is_false_negative=True,
            confidence=float(np.where(on_same_class[label], image.confidences, 0).max(initial=0)),
        )
        for label in np.setdiff1d(np.arange(len(image.label_classes)), partner)
    ]
    false_positives = [
        DetectionError(
            box=image.boxes[box],
            class_id=int(image.classes[box]),
            is_false_negative=False,
            confidence=float(image.confidences[box]),
            true_class=int(image.label_classes[label]) if label >= 0 else BACKGROUND,
            is_duplicate=bool(label < 0 and on_same_class[:, box].any()),
        )
        for box, label in zip(confident, partner, strict=True)
        if label < 0 or image.label_classes[label] != image.classes[box]
    ]
    return false_negatives, false_positives
