"""Two models on the same image: which detections they share, and which only one of them has."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from utils.app.detect import line_width
from utils.app.models import LoadedModel
from utils.boxes import pairwise_iou
from utils.inference.annotations import box_labels
from utils.plots.boxes import draw_boxes
from utils.structures import Detections

MIN_IOU = 0.5
SHARED_COLOUR = (110, 110, 110)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A detection of the first model, of the second, or of both: row indices, -1 for none."""

    first: int
    second: int
    iou: float  # 0 without a partner
    same_class: bool

    @property
    def kind(self) -> str:
        """Return `both`, `class` (both at this place, of different classes), `first` or `second`."""
        if -1 in (self.first, self.second):
            return "first" if self.second == -1 else "second"
        return "both" if self.same_class else "class"


def match_detections(models: tuple[LoadedModel, LoadedModel], detections: tuple[Detections, Detections]) -> list[Pair]:
    """Match detections at an IoU of at least 0.5, those of equal class names first and the largest IoU first."""
    first, second = detections
    names = [
        np.array([model.metadata.names[class_id] for class_id in of_model.classes.tolist()], dtype=object)
        for model, of_model in zip(models, detections, strict=True)
    ]
    iou = pairwise_iou(first.boxes, second.boxes)
    same = names[0][:, None] == names[1][None]
    pairs, free = [], (set(range(len(first))), set(range(len(second))))
    order = np.argsort(-(iou + 2 * same), axis=None, kind="stable")
    for row, column in zip(*(index.tolist() for index in np.unravel_index(order, iou.shape)), strict=True):
        if iou[row, column] >= MIN_IOU and row in free[0] and column in free[1]:
            free[0].remove(row)
            free[1].remove(column)
            equal = bool(same[row, column])
            pairs.append(Pair(first=row, second=column, iou=float(iou[row, column]), same_class=equal))
    only = [Pair(first=row, second=-1, iou=0.0, same_class=False) for row in sorted(free[0])]
    return [*pairs, *only, *(Pair(first=-1, second=row, iou=0.0, same_class=False) for row in sorted(free[1]))]


def draw_differences(image: np.ndarray, model: LoadedModel, detections: Detections, shared: set[int]) -> np.ndarray:
    """Return an (H, W, 3) image with shared detections in thin grey, and the others thick with their labels."""
    canvas = np.ascontiguousarray(image).copy()
    width = line_width(image)
    for row in sorted(shared):
        x1, y1, x2, y2 = (round(value) for value in detections.boxes[row].tolist())
        cv2.rectangle(canvas, (x1, y1), (x2, y2), SHARED_COLOUR, max(width // 2, 1), cv2.LINE_AA)
    rows = [row for row in range(len(detections)) if row not in shared]
    others = Detections(boxes=detections.boxes[rows], scores=detections.scores[rows], classes=detections.classes[rows])
    labels = box_labels(others, model.metadata.names)
    return draw_boxes(canvas, others.boxes, labels, others.classes.tolist(), thickness=width + 1)
