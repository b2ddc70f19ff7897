"""The interface that checkpoints, exported files, ensembles and wrappers share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from models.fuse import fused
from utils.runtime import scale_pixels, to_device

CPU = torch.device("cpu")


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


@dataclass(frozen=True, kw_only=True)
class TorchNetwork:
    """A detector that torch runs: the `Network` of checkpoints, exported files, ensembles and wrappers."""

    detector: Detector
    device: torch.device = CPU  # where the detector is
    dtype: torch.dtype = torch.float32  # of its input
    amp: bool = False  # mixed precision, ignored on the CPU

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.detector.num_classes

    @property
    def max_stride(self) -> int:
        """Image sides must be multiples of it, in pixels."""
        return self.detector.max_stride

    def scale(self, images: Tensor | np.ndarray) -> Tensor:
        """Move (B, 3, H, W) uint8 images to the device and scale them to [0, 1], keeping their memory layout."""
        return scale_pixels(torch.as_tensor(images), self.device, self.dtype)

    def convert(self, pixels: Tensor) -> Tensor:
        """Return scaled images (B, 3, H, W) as `__call__` takes them."""
        return pixels.to(self.device, self.dtype)

    @torch.inference_mode()
    def __call__(self, pixels: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return predictions and raw maps of scaled images; on CUDA they are complete."""
        with torch.autocast(self.device.type, enabled=self.amp and self.device.type != "cpu"):
            predictions, raw = self.detector(pixels)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return predictions, raw


def torch_network(detector: Detector, *, device: torch.device, half: bool = False) -> TorchNetwork:
    """Return the network of a copy of a detector, prepared for inference."""
    dtype = torch.float16 if half else torch.float32
    return TorchNetwork(detector=prepare(detector, device=device, dtype=dtype), device=device, dtype=dtype)
