"""What a class activation map explains: a detection, a class, or all that is detected in an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from utils.boxes import cxcywh_to_xyxy, pairwise_iou
from utils.plots.fonts import display_name
from utils.structures import Sample
from utils.thresholds import CONF_THRESHOLD

MIN_SCORE = 1e-30  # below it a logarithm would be taken of 0
MIN_IOU = 1e-6  # weighs a box apart from the object, so that the most confident one is chosen if all are


@dataclass(frozen=True, kw_only=True)
class Target:
    """Predictions whose summed score is explained: k pairs of a row of the predictions and a class."""

    rows: Tensor  # (k,) int64
    classes: Tensor  # (k,) int64
    score: str  # `confidence`, objectness times class probability, or `class`, the class probability alone
    truth: np.ndarray  # (m, 4) boxes of the labelled objects that are meant, in pixels of the input; m = 0: unlabelled

    def log_score(self, predictions: Tensor) -> Tensor:
        """Return the logarithm of the summed score, from one image's predictions (n, 5 + classes)."""
        of_rows = predictions[self.rows]
        scores = of_rows.gather(1, 5 + self.classes[:, None])[:, 0]
        if self.score == "confidence":
            scores = scores * of_rows[:, 4]
        return scores.clamp(min=MIN_SCORE).sum().log()

    def box(self, predictions: Tensor) -> np.ndarray:
        """Return x1, y1, x2, y2 of the first prediction."""
        return cxcywh_to_xyxy(predictions[self.rows[:1], :4])[0].cpu().numpy()

    def describe(self, predictions: Tensor, names: Sequence[str]) -> str:
        """Return the class, or the number of classes, and the score, with the number of predictions if several."""
        found = self.classes.unique().tolist()
        what = display_name(names[found[0]], found[0]) if len(found) == 1 else f"{len(found)} classes"
        several = f" in {len(self.rows)} predictions" if len(self.rows) > 1 else ""
        return f"{what} {float(self.log_score(predictions).exp()):.2f}{several}"


def choose_target(
    kind: str,
    predictions: Tensor,
    *,
    labels: Sample | None,
    class_id: int | None = None,
    position_xy: tuple[float, float] | None = None,
    score: str = "confidence",
) -> Target | None:
    """Choose the predictions to explain in one image; None if the image has nothing to explain.

    With labels, the object is the largest one (of the class, around the position), whatever the model finds, so that
    models are compared on the same object. The detection is the prediction with the highest product of confidence in
    the object's class and IoU. Without labels it is the most confident one. A class, by default that of this object or
    prediction, and an image are explained by the sum of all predictions above the confidence threshold of detect.py, or
    the most confident one if there are none.

    Args:
        kind: `detection`, `class` or `image`.
        predictions: (n, 5 + classes), boxes cx, cy, w, h in pixels of the input.
        labels: in pixels of the input; None if they are unknown.
        class_id: only this class; not for `image`.
        position_xy: only what is around this position, in pixels of the input; for `detection`.
        score: see `Target`.
    """
    confidences = predictions[:, 4:5] * predictions[:, 5:]  # (n, classes)
    truth = np.zeros((0, 4))
    if labels is not None:
        wanted = _covers(labels.boxes, position_xy)
        if class_id is not None:
            wanted &= labels.classes == class_id
        if not wanted.any():
            return None
        areas = (labels.boxes[:, 2:] - labels.boxes[:, :2]).prod(1)
        largest = int(np.where(wanted, areas, -1).argmax())
        if kind != "image":
            class_id = int(labels.classes[largest])
        of_class = labels.classes == class_id
        truth = labels.boxes[{"image": slice(None), "class": of_class, "detection": [largest]}[kind]]
    elif kind == "class" and class_id is None:
        class_id = int(confidences.max(0).values.argmax())
    if kind == "detection":
        boxes = cxcywh_to_xyxy(predictions[:, :4].double()).cpu().numpy()
        weights = pairwise_iou(boxes, truth)[:, 0] + MIN_IOU if len(truth) else _covers(boxes, position_xy)
        if not weights.any():
            return None
        confidences = confidences * torch.from_numpy(weights[:, None]).to(confidences)
    first, last = (0, None) if class_id is None else (class_id, class_id + 1)
    scores, classes = confidences[:, first:last].max(1)
    rows = scores.argmax()[None]
    if kind != "detection" and (scores > CONF_THRESHOLD).any():
        rows = (scores > CONF_THRESHOLD).nonzero()[:, 0]
    return Target(rows=rows, classes=classes[rows] + first, score=score, truth=truth)


def _covers(boxes_xyxy: np.ndarray, position_xy: tuple[float, float] | None) -> np.ndarray:
    """Return which (n, 4) boxes cover a position; all do if it is None."""
    if position_xy is None:
        return np.ones(len(boxes_xyxy), bool)
    (x1, y1, x2, y2), (x, y) = boxes_xyxy.T, position_xy
    return np.asarray((x1 <= x) & (x < x2) & (y1 <= y) & (y < y2))
