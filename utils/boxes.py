"""Box arithmetic. A function's name is its conversion; x points right, y down, in pixels unless noted."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, TypeVar, get_args

import numpy as np

if TYPE_CHECKING:  # arrays do not need torch, whose import takes more than a second
    from torch import Tensor

ArrayOrTensor = TypeVar("ArrayOrTensor", np.ndarray, "Tensor")
IoUKind = Literal["iou", "giou", "diou", "ciou"]


def _stack_last(parts: list[ArrayOrTensor]) -> ArrayOrTensor:
    """Stack arrays or tensors along a new last axis."""
    if isinstance(parts[0], np.ndarray):
        return np.stack(parts, -1)
    import torch

    return torch.stack(parts, -1)


def cxcywh_to_xyxy(boxes: ArrayOrTensor) -> ArrayOrTensor:
    """Convert (..., 4) boxes from centre and size to left, top, right, bottom."""
    cx, cy, w, h = (boxes[..., i] for i in range(4))
    return _stack_last([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2])


def xyxy_to_cxcywh(boxes: ArrayOrTensor) -> ArrayOrTensor:
    """Convert (..., 4) boxes from left, top, right, bottom to centre and size."""
    x1, y1, x2, y2 = (boxes[..., i] for i in range(4))
    return _stack_last([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1])


def paired_iou(boxes1: Tensor, boxes2: Tensor, *, kind: IoUKind = "iou", eps: float = 1e-7) -> Tensor:
    """Return the IoU of boxes, pair by pair: two (..., 4) as cx, cy, w, h in any unit -> (...).

    IoU is in [0, 1]. The other kinds subtract a penalty, down to -1 (GIoU) or below, and have a gradient even for
    disjoint boxes. `eps` keeps the denominators positive.

    Source: GIoU: arXiv 1902.09630, eq. 3; DIoU and CIoU: arXiv 1911.08287, eqs. 6 and 8 to 11. As in the paper, CIoU's
    trade-off alpha is constant in the gradient.
    """
    import torch

    if kind not in get_args(IoUKind):
        raise ValueError(f"kind must be one of {get_args(IoUKind)}, got {kind!r}")
    cx1, cy1, w1, h1 = boxes1.unbind(-1)
    cx2, cy2, w2, h2 = boxes2.unbind(-1)
    left1, right1, top1, bottom1 = cx1 - w1 / 2, cx1 + w1 / 2, cy1 - h1 / 2, cy1 + h1 / 2
    left2, right2, top2, bottom2 = cx2 - w2 / 2, cx2 + w2 / 2, cy2 - h2 / 2, cy2 + h2 / 2
    overlap_w = (torch.minimum(right1, right2) - torch.maximum(left1, left2)).clamp(min=0)
    overlap_h = (torch.minimum(bottom1, bottom2) - torch.maximum(top1, top2)).clamp(min=0)
    intersection = overlap_w * overlap_h
    union = w1 * h1 + w2 * h2 - intersection + eps
    iou = intersection / union
    if kind == "iou":
        return iou
    hull_w = torch.maximum(right1, right2) - torch.minimum(left1, left2)
    hull_h = torch.maximum(bottom1, bottom2) - torch.minimum(top1, top2)
    if kind == "giou":
        hull = hull_w * hull_h + eps
        return iou - (hull - union) / hull
    diagonal_squared = hull_w**2 + hull_h**2 + eps
    distance_squared = (cx2 - cx1) ** 2 + (cy2 - cy1) ** 2
    diou = iou - distance_squared / diagonal_squared
    if kind == "diou":
        return diou
    aspect = (4 / math.pi**2) * (torch.atan(w2 / (h2 + eps)) - torch.atan(w1 / (h1 + eps))) ** 2
    with torch.no_grad():
        alpha = aspect / (1 - iou + aspect + eps)
    return diou - alpha * aspect


def pairwise_iou(boxes1_xyxy: np.ndarray, boxes2_xyxy: np.ndarray, *, eps: float = 1e-7) -> np.ndarray:
    """Return the IoU of all pairs of two sets: corners (n, 4) and (m, 4) -> (n, m) in [0, 1]."""
    # Split by side, so that whole rows are contiguous.
    left1, top1, right1, bottom1 = (side[:, None] for side in boxes1_xyxy.T)
    left2, top2, right2, bottom2 = boxes2_xyxy.T
    width = (np.minimum(right1, right2) - np.maximum(left1, left2)).clip(0)
    height = (np.minimum(bottom1, bottom2) - np.maximum(top1, top2)).clip(0)
    intersection = width * height
    area1 = (right1 - left1) * (bottom1 - top1)
    area2 = (right2 - left2) * (bottom2 - top2)
    return intersection / (area1 + area2 - intersection + eps)
