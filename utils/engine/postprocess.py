"""Decoded predictions -> detections: confidence, then non-maximum suppression. No limit by clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import box_iou, nms

from utils.boxes import cxcywh_to_xyxy
from utils.structures import Detections

CLASS_SHIFT = 7680.0
MAX_CANDIDATES = 30_000
FIRST_CHUNK = 512


@dataclass(frozen=True, kw_only=True)
class NmsSettings:
    """How predictions are thinned out.

    Attributes:
        confidence: keep predictions above this.
        overlap: of two boxes with more IoU than this the better stays.
        max_detections: the best so many of each picture.
        classes: keep these classes only; None keeps all.
        agnostic: let boxes of different classes suppress each other.
        multi_label: a box may stand for every class above the confidence, not only for its best.
    """

    confidence: float = 0.25
    overlap: float = 0.45
    max_detections: int = 300
    classes: Sequence[int] | None = None
    agnostic: bool = False
    multi_label: bool = False


def non_max_suppression(predictions: Tensor, settings: NmsSettings) -> list[Detections]:
    """Thin out the predictions of each picture.

    Args:
        predictions: (B, n, 5 + classes): cx, cy, w, h in pixels, objectness and class probabilities.
        settings: thresholds and limits.

    Returns:
        For each picture what remains, best first, boxes as x1, y1, x2, y2 in the predictions' pixels.
    """
    return [_suppress(picture, settings) for picture in predictions]


def _suppress(prediction: Tensor, settings: NmsSettings) -> Detections:
    """Thin out the (n, 5 + classes) predictions of one picture."""
    rows = prediction[(prediction[:, 4] > settings.confidence) & prediction[:, :4].isfinite().all(1)]
    scores = rows[:, 5:] * rows[:, 4:5]  # (n, classes)
    if settings.multi_label and scores.shape[1] > 1:
        index, classes = (scores > settings.confidence).nonzero(as_tuple=True)
        score = scores[index, classes]
    else:
        score, classes = scores.max(1)
        index = (score > settings.confidence).nonzero(as_tuple=True)[0]
        score, classes = score[index], classes[index]
    if settings.classes is not None:
        wanted = torch.isin(classes, torch.as_tensor(list(settings.classes), device=classes.device))
        index, score, classes = index[wanted], score[wanted], classes[wanted]
    order = score.argsort(descending=True, stable=True)[:MAX_CANDIDATES]
    index, score, classes = index[order], score[order], classes[order]
    boxes = cxcywh_to_xyxy(rows[index, :4]).float()
    shifted = boxes if settings.agnostic else boxes + (classes * CLASS_SHIFT)[:, None]
    kept = greedy_nms(shifted, score, overlap=settings.overlap, limit=settings.max_detections)
    return Detections(boxes=boxes[kept], scores=score[kept].float(), classes=classes[kept])


def greedy_nms(boxes_xyxy: Tensor, scores: Tensor, *, overlap: float, limit: int) -> Tensor:
    """Non-maximum suppression that stops once `limit` boxes are kept; equal to torchvision's, cut at `limit`.

    Only the best few hundred boxes of a picture are kept, so most pairs need never be compared: candidates come in
    growing chunks, each first compared with the boxes kept so far.

    Args:
        boxes_xyxy: (n, 4), best first.
        scores: (n,), falling.
        overlap: IoU above which the worse box goes.
        limit: how many to keep at most.

    Returns:
        (k,) int64 indices of the kept boxes, best first.
    """
    kept = torch.empty(0, dtype=torch.int64, device=boxes_xyxy.device)
    start, size = 0, FIRST_CHUNK
    while start < len(boxes_xyxy) and len(kept) < limit:
        stop = min(start + size, len(boxes_xyxy))
        alive = torch.arange(start, stop, device=boxes_xyxy.device)
        if len(kept):
            # In double and by "more than", as torchvision does: boxes without area (0 / 0) suppress nothing.
            suppressed = (box_iou(boxes_xyxy[start:stop], boxes_xyxy[kept]).double() > overlap).any(1)
            alive = alive[~suppressed]
        alive = alive[nms(boxes_xyxy[alive], scores[alive], overlap)]
        kept = torch.cat((kept, alive))[:limit]
        start, size = stop, size * 2
    return kept
