"""Non-maximum suppression by the compiled kernel nms.c, where there is one: the same detections, sooner."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from utils.compiled import load
from utils.structures import Detections

if TYPE_CHECKING:
    from utils.inference.nms import NmsSettings

MAX_CANDIDATES = 30_000


class _Settings(ctypes.Structure):
    """The kernel's `Settings`."""

    _fields_ = [
        *((name, ctypes.c_ssize_t) for name in ("rows", "classes", "limit", "candidates", "agnostic", "multi_label")),
        *((name, ctypes.c_double) for name in ("confidence", "overlap")),
    ]


def suppress_natively(prediction: Tensor, *, settings: NmsSettings) -> Detections:
    """Thin out the predictions of one image.

    Args:
        prediction: (n, 5 + classes) float32 on the CPU, contiguous.
        settings: thresholds and limits.

    Raises:
        MemoryError: there is none left.
    """
    rows, columns = prediction.shape
    limit = min(settings.max_detections, MAX_CANDIDATES)
    numbers = _Settings(
        *(rows, columns - 5, limit, MAX_CANDIDATES, settings.agnostic, settings.multi_label),
        *(settings.confidence, settings.overlap),
    )
    wanted = None
    if settings.classes is not None:
        chosen = torch.as_tensor(list(settings.classes), dtype=torch.int64)
        wanted = torch.isin(torch.arange(columns - 5), chosen).to(torch.uint8)
    boxes, scores = prediction.new_empty(limit, 4), prediction.new_empty(limit)
    classes = torch.empty(limit, dtype=torch.int64)
    suppress = load("nms").suppress  # type: ignore[union-attr]  # whoever calls has loaded it
    suppress.restype = ctypes.c_ssize_t
    addresses = [None if t is None else t.data_ptr() for t in (prediction, wanted, boxes, scores, classes)]
    kept = suppress(ctypes.byref(numbers), *map(ctypes.c_void_p, addresses))
    if kept < 0:
        raise MemoryError(f"suppression found no memory for {rows} predictions of {columns - 5} classes")
    return Detections(boxes=boxes[:kept].clone(), scores=scores[:kept].clone(), classes=classes[:kept].clone())
