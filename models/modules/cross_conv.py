"""CrossConv, a k x k convolution factorised into 1 x k and k x 1, and C3x."""

from __future__ import annotations

from torch import Tensor, nn

from models.common import C3, Activation, Conv
from models.registry import register


@register("in_out")
class CrossConv(nn.Module):
    """A 1 x k convolution to c2 * e channels, then k x 1 to c2; with `shortcut` the input is added."""

    def __init__(
        self,
        c1: int,
        c2: int,
        k: int = 3,
        s: int = 1,
        g: int = 1,
        e: float = 1.0,
        shortcut: bool = False,
        act: Activation = True,
    ) -> None:
        super().__init__()
        hidden = int(c2 * e)
        self.cv1 = Conv(c1, hidden, act=act)
        self.cv1.conv = nn.Conv2d(c1, hidden, (1, k), (1, s), (0, k // 2), bias=False)
        self.cv2 = Conv(hidden, c2, act=act)
        self.cv2.conv = nn.Conv2d(hidden, c2, (k, 1), (s, 1), (k // 2, 0), groups=g, bias=False)
        self.add = shortcut and c1 == c2 and s == 1

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, c1, H, W) to (B, c2, H / s, W / s)."""
        y = self.cv2(self.cv1(x))
        return x + y if self.add else y


@register("in_out", repeats=True)
class C3x(C3):
    """C3 of CrossConv blocks."""

    def inner(self, hidden: int, shortcut: bool, g: int, act: Activation) -> nn.Module:
        """Build one CrossConv."""
        return CrossConv(hidden, hidden, 3, 1, g, 1.0, shortcut, act)
