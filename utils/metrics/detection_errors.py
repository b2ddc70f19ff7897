"""What a detector got most wrong: labels it did not see, and boxes it was sure of where there is nothing of the kind.

Paired as the confusion matrix pairs, so that each miss and false alarm stands for one count of its last row or column.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from utils.boxes import pairwise_iou
from utils.metrics.confusion import CONFIDENCE, OVERLAP, pair_boxes


@dataclass(frozen=True, kw_only=True)
class DetectionError:
    """One miss or false alarm.

    Attributes:
        box: (4,) x1, y1, x2, y2 in pixels of the image: of the label, or of the false alarm.
        number: class of that box.
        is_miss: a miss, not a false alarm.
        score: confidence of the false alarm; of a miss, that of the best box of its class on it, 0 without one. One
            that is sure has been paired with another label, of which it has more.
        seen_as: class of the label under a false alarm, -1 if there is none.
        twice: the false alarm lies on a label of its class that a better box has found.
    """

    box: np.ndarray
    number: int
    is_miss: bool
    score: float
    seen_as: int = -1
    twice: bool = False

    @property
    def matched_to_other(self) -> bool:
        """Whether this is a miss for the only reason that a sure box on it counts for another label."""
        return self.is_miss and self.score > CONFIDENCE

    @property
    def area(self) -> float:
        """Area of the box in square pixels."""
        return float((self.box[2] - self.box[0]) * (self.box[3] - self.box[1]))


def find_mistakes(
    boxes_xyxy: np.ndarray,
    scores: np.ndarray,
    classes: np.ndarray,
    label_boxes_xyxy: np.ndarray,
    label_classes: np.ndarray,
) -> tuple[list[DetectionError], list[DetectionError]]:
    """Return misses and false alarms of one image, in no particular order.

    A label taken for another class is a false alarm of that class, not a miss.

    Args:
        boxes_xyxy: (n, 4).
        scores: (n,).
        classes: (n,).
        label_boxes_xyxy: (m, 4).
        label_classes: (m,).
    """
    sure = np.flatnonzero(scores > CONFIDENCE)
    partner = pair_boxes(boxes_xyxy[sure], label_boxes_xyxy)
    iou = pairwise_iou(label_boxes_xyxy, boxes_xyxy)  # (m, n)
    on_own = (iou > OVERLAP) & (label_classes[:, None] == classes[None])
    misses = [
        DetectionError(
            box=label_boxes_xyxy[label],
            number=int(label_classes[label]),
            is_miss=True,
            score=float(np.where(on_own[label], scores, 0).max(initial=0)),
        )
        for label in np.setdiff1d(np.arange(len(label_classes)), partner)
    ]
    alarms = [
        DetectionError(
            box=boxes_xyxy[box],
            number=int(classes[box]),
            is_miss=False,
            score=float(scores[box]),
            seen_as=int(label_classes[label]) if label >= 0 else -1,
            twice=bool(label < 0 and on_own[:, box].any()),
        )
        for box, label in zip(sure, partner, strict=True)
        if label < 0 or label_classes[label] != classes[box]
    ]
    return misses, alarms
