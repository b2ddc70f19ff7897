"""GhostConv, GhostBottleneck and C3Ghost. Source: GhostNet, arXiv 1911.11907."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.common import C3, Activation, Conv, DWConv
from models.registry import register


@register("in_out")
class GhostConv(nn.Module):
    """Half of the output channels by a convolution, half by a cheap 5x5 depthwise convolution of the first half."""

    def __init__(self, c1: int, c2: int, k: int = 1, s: int = 1, g: int = 1, act: Activation = True) -> None:
        super().__init__()
        half = c2 // 2
        self.cv1 = Conv(c1, half, k, s, None, g, act=act)
        self.cv2 = Conv(half, half, 5, 1, None, half, act=act)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, c1, H, W) to (B, c2, H / s, W / s)."""
        y = self.cv1(x)
        return torch.cat((y, self.cv2(y)), 1)


@register("in_out")
class GhostBottleneck(nn.Module):
    """Two ghost convolutions with a shortcut; at stride 2 a depthwise convolution between them."""

    def __init__(self, c1: int, c2: int, k: int = 3, s: int = 1, act: Activation = True) -> None:
        super().__init__()
        half = c2 // 2
        between: nn.Module = DWConv(half, half, k, s, act=False) if s == 2 else nn.Identity()
        self.conv = nn.Sequential(GhostConv(c1, half, 1, 1, act=act), between, GhostConv(half, c2, 1, 1, act=False))
        self.shortcut: nn.Module = (
            nn.Sequential(DWConv(c1, c1, k, s, act=False), Conv(c1, c2, 1, 1, act=False)) if s == 2 else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, c1, H, W) to (B, c2, H / s, W / s)."""
        return self.conv(x) + self.shortcut(x)


@register("in_out", repeats=True)
class C3Ghost(C3):
    """C3 of ghost bottlenecks."""

    def inner(self, hidden: int, shortcut: bool, g: int, act: Activation) -> nn.Module:
        """Build one ghost bottleneck."""
        return GhostBottleneck(hidden, hidden, act=act)
