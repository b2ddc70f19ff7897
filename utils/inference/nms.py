"""Decoded predictions -> detections: confidence, then non-maximum suppression. No limit by clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from utils.boxes import cxcywh_to_xyxy
from utils.compiled import load
from utils.inference.nms_kernel import MAX_CANDIDATES, suppress_natively
from utils.structures import Detections

Item = TypeVar("Item")
CLASS_OFFSET = 7680.0
FIRST_POOL = 2048
FIRST_CHUNK = 512
ROUNDING = 1e-3
SMALL_OVERLAP = 0.05


@dataclass(frozen=True, kw_only=True)
class NmsSettings:
    """How predictions are thinned out.

    Attributes:
        confidence: keep predictions above this.
        overlap: of two boxes with more IoU than this the better stays.
        max_detections: the best so many of each image.
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
    """Thin out the predictions of each image.

    Args:
        predictions: (B, n, 5 + classes): cx, cy, w, h in pixels, objectness and class probabilities.
        settings: thresholds and limits.

    Returns:
        For each image what remains, best first, boxes as x1, y1, x2, y2 in the predictions' pixels.
    """
    plain = predictions.device.type == "cpu" and predictions.dtype == torch.float32 and predictions.shape[2] > 5
    if plain and load("nms"):
        return _in_threads(partial(suppress_natively, settings=settings), predictions.contiguous().unbind())
    chances, objectness = predictions[..., 5:], predictions[..., 4]
    wanted = _wanted(settings, chances)
    column = None
    if settings.multi_label:
        best = (chances if wanted is None else chances.where(wanted, 0)).amax(2)
    else:
        best, column = chances.max(2)
    best = best * objectness  # rounding keeps order: to the bit the best of a row's scores
    sure = (best > settings.confidence) & (objectness > settings.confidence)
    if wanted is not None and column is not None:
        sure &= wanted[column]
    best = best.where(sure, -1)

    def one(number: int) -> Detections:
        classes = None if column is None else column[number]
        return _suppress(predictions[number], best[number], classes, settings)

    numbers = range(len(predictions))
    return _in_threads(one, numbers) if predictions.device.type == "cpu" else [one(number) for number in numbers]


def _in_threads(one: Callable[[Item], Detections], items: Iterable[Item]) -> list[Detections]:
    """Thin out images side by side: most of the time is spent outside Python's lock."""
    items = list(items)
    workers = min(torch.get_num_threads(), len(items))
    if workers < 2:
        return [one(item) for item in items]
    with ThreadPoolExecutor(workers) as threads:
        return list(threads.map(one, items))


def _suppress(prediction: Tensor, best: Tensor, column: Tensor | None, settings: NmsSettings) -> Detections:
    """Thin out the predictions of one image.

    An untrained model has millions of candidates, of which the best few thousand decide as a rule: these are tried
    first, and all only when they leave room.

    Args:
        prediction: (n, 5 + classes).
        best: (n,) best score of each row, -1 where it is not sure enough.
        column: (n,) class of the best score; None lets every class of a row be a candidate.
        settings: thresholds and limits.
    """
    for pool in (FIRST_POOL, MAX_CANDIDATES):
        floor = best.topk(pool).values[-1] if len(best) > pool else best.new_tensor(-1)
        rows = (best >= floor.clamp(min=0)).nonzero()[:, 0]  # at least `pool` scores reach the floor, or all are here
        if column is None:
            row, classes, score = _all_classes(prediction[rows], floor, settings)
            row = rows[row]
        else:
            row, classes, score = rows, column[rows], best[rows]
        order = score.argsort(descending=True, stable=True)[:MAX_CANDIDATES]
        boxes, classes, score = cxcywh_to_xyxy(prediction[row[order], :4]).float(), classes[order], score[order]
        finite = boxes.isfinite().all(1)
        if not finite.all():
            boxes, classes, score = boxes[finite], classes[finite], score[finite]
        shifted = boxes if settings.agnostic else boxes + (classes * CLASS_OFFSET)[:, None]
        kept = greedy_nms(shifted, score, overlap=settings.overlap, limit=settings.max_detections)
        if floor < 0 or len(kept) == settings.max_detections:
            break
    return Detections(boxes=boxes[kept], scores=score[kept].float(), classes=classes[kept])


def _all_classes(rows: Tensor, floor: Tensor, settings: NmsSettings) -> tuple[Tensor, Tensor, Tensor]:
    """Return row, class and score of what is sure and reaches the floor in (n, 5 + classes) rows, row by row."""
    scores = rows[:, 5:] * rows[:, 4:5]
    sure = (scores > settings.confidence) & (scores >= floor)
    wanted = _wanted(settings, scores)
    row, classes = (sure if wanted is None else sure & wanted).nonzero(as_tuple=True)
    return row, classes, scores[row, classes]


def _wanted(settings: NmsSettings, scores: Tensor) -> Tensor | None:
    """Return which of the (..., classes) scores may count, (classes,) bool; None if all may."""
    if settings.classes is None:
        return None
    columns = torch.arange(scores.shape[-1], device=scores.device)
    return torch.isin(columns, torch.as_tensor(list(settings.classes), device=scores.device))


def greedy_nms(boxes_xyxy: Tensor, scores: Tensor, *, overlap: float, limit: int) -> Tensor:
    """Non-maximum suppression that stops once `limit` boxes are kept; equal to torchvision's, cut at `limit`.

    Only the best few hundred boxes of an image are kept, so most pairs need never be compared: candidates come in
    growing chunks, each first compared with the boxes kept so far, and then only what is left of it with itself.

    Args:
        boxes_xyxy: (n, 4), best first.
        scores: (n,), falling.
        overlap: IoU above which the worse box goes.
        limit: how many to keep at most.

    Returns:
        (k,) int64 indices of the kept boxes, best first.
    """
    from torchvision.ops import nms  # takes seconds to import, and the compiled kernel does without

    device = boxes_xyxy.device
    corners = np.ascontiguousarray(boxes_xyxy.numpy().T) if device.type == "cpu" else None
    kept = torch.empty(0, dtype=torch.int64, device=device)
    start, size = 0, FIRST_CHUNK
    while start < len(boxes_xyxy) and len(kept) < limit:
        stop = min(start + size, len(boxes_xyxy))
        if corners is not None:
            fresh = torch.from_numpy(start + _not_suppressed(corners[:, start:stop], corners[:, kept.numpy()], overlap))
            fresh = fresh[nms(boxes_xyxy[fresh], scores[fresh], overlap)]
            kept = torch.cat((kept, fresh))[:limit]
        else:  # a GPU compares all pairs at once; the kept ones stay
            rivals = torch.cat((kept, torch.arange(start, stop, device=device)))
            kept = rivals[nms(boxes_xyxy[rivals], scores[rivals], overlap)][:limit]
        start, size = stop, max(FIRST_CHUNK, stop // 2)
    return kept


def _not_suppressed(corners: np.ndarray, kept: np.ndarray, overlap: float) -> np.ndarray:
    """Return which boxes overlap none of the kept ones by more than `overlap`, to the bit as torchvision compares.

    An IoU above t needs widths within a factor of t, and so left sides closer than (1 - t) / t of a box's width; the
    same of tops and heights. With the kept boxes sorted from left to right, most pairs are never looked at.

    Args:
        corners: (4, n) float32.
        kept: (4, k) float32.
        overlap: IoU in (0, 1].

    Returns:
        Indices, rising.
    """
    factor = np.float32((1 - overlap) / overlap + ROUNDING if overlap > SMALL_OVERLAP else np.inf)
    with np.errstate(invalid="ignore"):  # a box without width and an endless reach
        reach_x, reach_y = np.nan_to_num((corners[2:] - corners[:2]) * factor, nan=0, posinf=np.inf) + ROUNDING
    order = kept[0].argsort()
    lefts = kept[0][order]
    first = lefts.searchsorted(corners[0] - reach_x)
    count = lefts.searchsorted(corners[0] + reach_x, side="right") - first
    box = np.repeat(np.arange(len(count)), count)
    rival = order[np.arange(len(box)) - np.repeat(count.cumsum() - count - first, count)]
    near = np.abs(corners[1][box] - kept[1][rival]) <= reach_y[box]
    box, rival = box[near], rival[near]
    x1, y1, x2, y2 = corners[:, box]
    left, top, right, bottom = kept[:, rival]
    shared = np.maximum(np.minimum(x2, right) - np.maximum(x1, left), 0)
    shared *= np.maximum(np.minimum(y2, bottom) - np.maximum(y1, top), 0)
    with np.errstate(divide="ignore", invalid="ignore"):  # boxes without area (0 / 0) suppress nothing
        iou = shared / ((right - left) * (bottom - top) + (x2 - x1) * (y2 - y1) - shared)
    left_over = np.ones(corners.shape[1], bool)
    left_over[box[iou.astype(np.float64) > overlap]] = False
    return left_over.nonzero()[0]
