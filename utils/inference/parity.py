"""How far the outputs of an export are from torch's, on random images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

TOLERANCE = 1e-4


def random_images(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Return images (B, C, H, W) in [0, 1] with coarse and fine structure."""
    batch, channels, height, width = shape
    coarse = torch.rand(batch, channels, max(height // 16, 1), max(width // 16, 1), generator=generator)
    smooth = F.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=False)
    return (0.8 * smooth + 0.2 * torch.rand(shape, generator=generator)).clamp(0, 1)


@torch.inference_mode()
def max_difference(expected: Tensor, actual: Tensor) -> float:
    """Return the largest difference of two outputs: absolute for values up to 1, relative above.

    Boxes are in pixels: the float32 next to 1000 is 6e-5 away. Infinite if shapes or non-finite entries differ.
    """
    if expected.shape != actual.shape or not torch.equal(expected.isfinite(), actual.isfinite()):
        return float("inf")
    finite = expected.isfinite()
    expected, actual = expected[finite].double(), actual[finite].double()
    return float(((actual - expected).abs() / expected.abs().clamp(min=1)).max()) if expected.numel() else 0.0
