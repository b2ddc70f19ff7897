"""MixConv2d, kernels of several sizes in one layer (arXiv 1907.09595), and a depthwise transposed convolution."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.common import Activation, batch_norm, make_activation
from models.registry import register


@register("in_out")
class MixConv2d(nn.Module):
    """Convolutions with kernels k side by side, each with gcd of its channels groups; then batch norm and activation.

    The output channels are shared equally, or with `equal_ch` false so that every kernel has as many weights.
    """

    def __init__(
        self,
        c1: int,
        c2: int,
        k: Sequence[int] = (1, 3),
        s: int = 1,
        equal_ch: bool = True,
        act: Activation = True,
    ) -> None:
        super().__init__()
        channels = equal_channels(c2, len(k)) if equal_ch else channels_of_equal_weights(c2, k)
        if not all(channels):
            raise ValueError(f"{c2} channels are too few for kernels {list(k)}")
        self.m = nn.ModuleList(
            nn.Conv2d(c1, width, size, s, size // 2, groups=math.gcd(c1, width), bias=False)
            for width, size in zip(channels, k, strict=True)
        )
        self.bn = batch_norm(c2)
        self.act = make_activation(act)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, c1, H, W) to (B, c2, H / s, W / s)."""
        return self.act(self.bn(torch.cat([conv(x) for conv in self.m], 1)))


def equal_channels(channels: int, kernels: int) -> list[int]:
    """Share channels among kernels as evenly as YOLOv5 does: channel i belongs to kernel ceil(i n / (c - 1)) - 1."""
    owners = [max(i * kernels - 1, 0) // max(channels - 1, 1) for i in range(channels)]
    return [owners.count(kernel) for kernel in range(kernels)]


def channels_of_equal_weights(channels: int, kernels: Sequence[int]) -> list[int]:
    """Share channels in proportion to 1 / k^2, rounded; what rounding leaves goes to the first kernel."""
    total = sum(1 / size**2 for size in kernels)
    widths = [round(channels / size**2 / total) for size in kernels]
    return [widths[0] + channels - sum(widths), *widths[1:]]


@register("in_out")
class DWConvTranspose2d(nn.ConvTranspose2d):
    """Transposed convolution with gcd(c1, c2) groups and a bias; p1 is its padding, p2 its output padding."""

    def __init__(self, c1: int, c2: int, k: int = 1, s: int = 1, p1: int = 0, p2: int = 0) -> None:
        super().__init__(c1, c2, k, s, p1, p2, groups=math.gcd(c1, c2))
