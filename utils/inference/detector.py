"""The interface that checkpoints, exported files, ensembles and wrappers share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar, cast

import torch
from torch import Tensor, nn

from models.fuse import fused
from utils.runtime import to_device

Forward = Callable[[Tensor], tuple[Tensor, Any]]  # the call of a `Detector`


class Detector(Protocol):
    """A module in evaluation mode that maps images to predictions."""

    @property
    def num_classes(self) -> int:
        """Number of classes."""

    @property
    def max_stride(self) -> int:
        """Image sides must be multiples of it, in pixels."""

    def __call__(self, images: Tensor, /) -> tuple[Tensor, list[Tensor]]:
        """Map (B, 3, H, W) in [0, 1] to (B, n, 5 + classes) predictions in pixels, and the raw maps, if any."""


AnyDetector = TypeVar("AnyDetector", bound=Detector)


def prepare(detector: AnyDetector, *, device: torch.device, dtype: torch.dtype = torch.float32) -> AnyDetector:
    """Return a copy for inference: batch norms folded, cast and moved to the device."""
    return cast(AnyDetector, to_device(fused(cast(nn.Module, detector)).to(dtype), device))
