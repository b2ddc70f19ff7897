"""Non-maximum suppression: decoded predictions to detections, by the compiled kernel or by torch, to the same bits."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from utils import thresholds
from utils.boxes import cxcywh_to_xyxy
from utils.compiled import load
from utils.structures import Detections
from utils.threads import thread_count

if TYPE_CHECKING:
    from torch import Tensor

Item = TypeVar("Item")
MAX_CANDIDATES = 30_000
FIRST_POOL = 2048
CHUNK = 512  # candidates suppressed at a time
MAX_PAIRS = 2**20  # of boxes, compared at a time


@dataclass(frozen=True, kw_only=True)
class NmsSettings:
    """Settings of non-maximum suppression; the default thresholds are those of detect.py."""

    conf_threshold: float = thresholds.CONF_THRESHOLD  # keep predictions with a confidence above it, in [0, 1)
    iou_threshold: float = (
        thresholds.IOU_THRESHOLD
    )  # a box is dropped if its IoU with a better box exceeds it, in (0, 1]
    max_detections: int = thresholds.EVAL_MAX_DETECTIONS  # per image
    classes: Sequence[int] | None = None  # keep these class ids only; None keeps all
    agnostic: bool = False  # boxes of different classes suppress each other
    multi_label: bool = False  # a box is a candidate for every class above the threshold, not for its best only


EVALUATION_NMS = NmsSettings(
    conf_threshold=thresholds.EVAL_CONF_THRESHOLD, iou_threshold=thresholds.EVAL_IOU_THRESHOLD, multi_label=True
)


def non_max_suppression(predictions: Tensor | np.ndarray, settings: NmsSettings) -> list[Detections]:
    """Apply NMS to (B, n, 5 + classes) predictions: cx, cy, w, h in pixels, objectness and class probabilities.

    Returns the detections of each image, best first, boxes as x1, y1, x2, y2 in the same pixels. There is no time
    limit: the result never depends on the machine's speed.
    """
    cpu = isinstance(predictions, np.ndarray) or predictions.device.type == "cpu"
    if cpu and str(predictions.dtype).endswith("float32") and predictions.shape[2] > 5 and load("nms"):
        return _in_threads(partial(_nms_compiled, settings=settings), np.ascontiguousarray(predictions))
    import torch  # here and below, since arrays do not need it if the kernel is compiled

    predictions = torch.as_tensor(predictions)
    probabilities, objectness = predictions[..., 5:], predictions[..., 4]
    allowed = _allowed_classes(settings, probabilities)
    best_class = None
    if settings.multi_label:
        best = (probabilities if allowed is None else probabilities.where(allowed, 0)).amax(2)
    else:
        best, best_class = probabilities.max(2)
    best = best * objectness  # rounding is monotonic: bitwise equal to the maximum of the row's scores
    confident = (best > settings.conf_threshold) & (objectness > settings.conf_threshold)
    if allowed is not None and best_class is not None:
        confident &= allowed[best_class]
    best = best.where(confident, -1)

    def nms_of_image(index: int) -> Detections:
        return _nms_torch(predictions[index], best[index], None if best_class is None else best_class[index], settings)

    indices = range(len(predictions))
    return _in_threads(nms_of_image, indices) if cpu else [nms_of_image(index) for index in indices]


def _in_threads(function: Callable[[Item], Detections], items: Iterable[Item]) -> list[Detections]:
    """Apply a function to several images in parallel: most of the time is spent outside the interpreter lock."""
    items = list(items)
    workers = min(thread_count(), len(items))
    if workers < 2:
        return [function(item) for item in items]
    with ThreadPoolExecutor(workers) as threads:
        return list(threads.map(function, items))


def _nms_torch(prediction: Tensor, best: Tensor, best_class: Tensor | None, settings: NmsSettings) -> Detections:
    """Apply NMS to one (n, 5 + classes) prediction.

    An untrained model yields millions of candidates, but usually only the best few thousand matter: these are tried
    first, and all of them only if fewer than the maximum remain. `best` (n,) is the best score of each row, -1 below
    the confidence threshold, and `best_class` (n,) its class; None makes every class of a row a candidate.
    """
    import torch

    for pool in (FIRST_POOL, MAX_CANDIDATES):
        floor = best.topk(pool).values[-1] if len(best) > pool else best.new_tensor(-1)
        rows = (best >= floor.clamp(min=0)).nonzero()[:, 0]  # at least `pool` scores reach the floor, or all are here
        if best_class is None:
            row, classes, score = _all_classes(prediction[rows], floor, settings)
            row = rows[row]
        else:
            row, classes, score = rows, best_class[rows], best[rows]
        order = score.argsort(descending=True, stable=True)[:MAX_CANDIDATES]
        # Double precision, as in nms.c: the IoU of small boxes far from the origin is inexact in single precision.
        precision = torch.float32 if prediction.device.type == "mps" else torch.float64
        boxes = cxcywh_to_xyxy(prediction[row[order], :4].to(precision))
        classes, score = classes[order], score[order]
        finite = boxes.float().isfinite().all(1)
        if not finite.all():
            boxes, classes, score = boxes[finite], classes[finite], score[finite]
        groups = torch.zeros_like(classes) if settings.agnostic else classes
        kept = greedy_nms(boxes, groups, iou_threshold=settings.iou_threshold, limit=settings.max_detections)
        if floor < 0 or len(kept) == settings.max_detections:
            break
    kept_columns = (boxes[kept].float(), score[kept].float(), classes[kept])
    corners, scores, class_ids = (column.cpu().numpy() for column in kept_columns)
    return Detections(boxes=corners, scores=scores, classes=class_ids)


def _all_classes(rows: Tensor, floor: Tensor, settings: NmsSettings) -> tuple[Tensor, Tensor, Tensor]:
    """Return row, class and score of every (row, class) pair that passes the threshold and reaches the floor."""
    scores = rows[:, 5:] * rows[:, 4:5]
    passing = (scores > settings.conf_threshold) & (scores >= floor)
    allowed = _allowed_classes(settings, scores)
    row, classes = (passing if allowed is None else passing & allowed).nonzero(as_tuple=True)
    return row, classes, scores[row, classes]


def _allowed_classes(settings: NmsSettings, scores: Tensor) -> Tensor | None:
    """Return a (classes,) bool mask of the classes to keep for scores (..., classes); None if all are kept."""
    if settings.classes is None:
        return None
    import torch

    class_ids = torch.arange(scores.shape[-1], device=scores.device)
    return torch.isin(class_ids, torch.as_tensor(list(settings.classes), device=scores.device))


def greedy_nms(boxes_xyxy: Tensor, groups: Tensor, *, iou_threshold: float, limit: int) -> Tensor:
    """Return the (k,) indices of at most `limit` kept boxes, best first. `boxes_xyxy` (n, 4) are sorted by score.

    A box is dropped if its IoU with a better box that is kept and of the same group (n,) exceeds the threshold. Few
    boxes are kept, so most pairs never need to be compared: candidates come in chunks, each compared with the boxes
    kept so far and with each other.
    """
    import torch

    kept = torch.empty(0, dtype=torch.int64, device=boxes_xyxy.device)
    start = 0
    while start < len(boxes_xyxy) and len(kept) < limit:
        stop = min(start + CHUNK, start + MAX_PAIRS // max(len(kept), 1) + 1, len(boxes_xyxy))
        chunk = torch.arange(start, stop, device=kept.device)
        chunk = chunk[~_overlaps(boxes_xyxy, groups, kept, chunk, iou_threshold).any(0)]
        suppresses = _overlaps(boxes_xyxy, groups, chunk, chunk, iou_threshold).triu(1)
        stays, before = torch.ones_like(chunk, dtype=torch.bool), None
        while before is None or not torch.equal(stays, before):  # after n rounds, at least the best n are settled
            before, stays = stays, ~(suppresses & stays[:, None]).any(0)
        kept = torch.cat((kept, chunk[stays]))
        start = stop
    return kept[:limit]


def _overlaps(boxes_xyxy: Tensor, groups: Tensor, first: Tensor, second: Tensor, iou_threshold: float) -> Tensor:
    """Return the (n, m) mask of the pairs of indices (n,) and (m,) of one group whose IoU exceeds the threshold."""
    import torch

    left, top, right, bottom = boxes_xyxy[first, :, None].unbind(1)  # (n, 1) each
    left_2, top_2, right_2, bottom_2 = boxes_xyxy[second].unbind(1)  # (m,) each
    width = (torch.minimum(right, right_2) - torch.maximum(left, left_2)).clamp(min=0)
    height = (torch.minimum(bottom, bottom_2) - torch.maximum(top, top_2)).clamp(min=0)
    shared = width * height
    union = (right - left) * (bottom - top) + (right_2 - left_2) * (bottom_2 - top_2) - shared
    return (shared / union > iou_threshold) & (groups[first, None] == groups[second])  # not for 0 / 0


class _KernelSettings(ctypes.Structure):
    """`Settings` of nms.c."""

    _fields_ = [
        *((name, ctypes.c_ssize_t) for name in ("rows", "classes", "limit", "candidates", "agnostic", "multi_label")),
        *((name, ctypes.c_double) for name in ("conf_threshold", "iou_threshold")),
    ]


def _nms_compiled(prediction: np.ndarray, *, settings: NmsSettings) -> Detections:
    """Apply NMS to one image, a contiguous (n, 5 + classes) float32 prediction, with the compiled kernel."""
    rows, columns = prediction.shape
    limit = min(settings.max_detections, MAX_CANDIDATES)
    kernel_settings = _KernelSettings(
        *(rows, columns - 5, limit, MAX_CANDIDATES, settings.agnostic, settings.multi_label),
        *(settings.conf_threshold, settings.iou_threshold),
    )
    mask = None if settings.classes is None else np.isin(np.arange(columns - 5), settings.classes).view(np.uint8)
    boxes, scores = np.empty((limit, 4), np.float32), np.empty(limit, np.float32)
    classes = np.empty(limit, np.int64)
    suppress = load("nms").suppress  # type: ignore[union-attr]  # the caller has loaded it
    suppress.restype = ctypes.c_ssize_t
    addresses = [None if array is None else array.ctypes.data for array in (prediction, mask, boxes, scores, classes)]
    kept = suppress(ctypes.byref(kernel_settings), *map(ctypes.c_void_p, addresses))
    if kept < 0:
        raise MemoryError(f"not enough memory for NMS of {rows} predictions of {columns - 5} classes")
    return Detections(boxes=boxes[:kept].copy(), scores=scores[:kept].copy(), classes=classes[:kept].copy())
