"""YOLOv5's standard blocks under their usual names, each registered for model yamls.

All maps are (B, C, H, W). `act` is True for SiLU, False for none, or a module that each block copies. Arguments in
YOLOv5's order: c1, c2 channels in and out, k kernel, s stride, p padding (None keeps the size), g groups, d dilation,
n repeats, e expansion of the hidden channels. Sources: CSP arXiv 1911.11929; SPP arXiv 1406.4729.

Rarer blocks (GhostConv, CrossConv, Contract, ...) live in models/modules and can be imported from here as well.
"""

from __future__ import annotations

import copy
import importlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.registry import register

Activation = bool | nn.Module
Kernel = int | Sequence[int]  # one side, or height and width
Size = int | tuple[int, int]
ELSEWHERE = {
    **dict.fromkeys(("GhostConv", "GhostBottleneck", "C3Ghost"), "models.modules.ghost"),
    **dict.fromkeys(("CrossConv", "C3x"), "models.modules.cross_conv"),
    **dict.fromkeys(("Contract", "Expand"), "models.modules.contract"),
    **dict.fromkeys(("MixConv2d", "DWConvTranspose2d"), "models.modules.grouped_conv"),
    **dict.fromkeys(("TransformerLayer", "TransformerBlock", "C3TR"), "models.modules.c3tr"),
}


def __getattr__(name: str) -> type[nn.Module]:
    """Import a block that has a file of its own, so that `from models.common import GhostConv` works."""
    if name not in ELSEWHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(ELSEWHERE[name]), name)


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """Return a batch norm with YOLOv5's epsilon and momentum."""
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.03)


def make_activation(act: Activation) -> nn.Module:
    """Return a new activation: SiLU for True, identity for False, or a copy of a given module; else ValueError."""
    if isinstance(act, nn.Module):
        return copy.deepcopy(act)
    if not isinstance(act, bool):
        fix = "set another activation by `activation:` at the top of the yaml"
        raise ValueError(f"act must be true or false, got {act!r}; {fix}")
    return nn.SiLU() if act else nn.Identity()


def autopad(kernel: Kernel, padding: int | None = None, dilation: int = 1) -> Size:
    """Return `padding`, or by default the padding that keeps the size at stride 1 for an odd kernel, from 1."""
    if not isinstance(kernel, int):
        height, width = (dilation * (side - 1) // 2 for side in kernel)
        return (height, width) if padding is None else padding
    if kernel < 1:
        raise ValueError(f"kernel must be at least 1, got {kernel}")
    return dilation * (kernel - 1) // 2 if padding is None else padding


def _kernel_size(kernel: Kernel) -> Size:
    if isinstance(kernel, int):
        return kernel
    height, width = kernel
    return height, width


@register("in_out")
class Conv(nn.Module):
    """Convolution, batch norm, activation: (B, c1, H, W) -> (B, c2, H / s, W / s)."""

    def __init__(
        self,
        c1: int,
        c2: int,
        k: Kernel = 1,
        s: int = 1,
        p: int | None = None,
        g: int = 1,
        d: int = 1,
        act: Activation = True,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c1, c2, _kernel_size(k), s, autopad(k, p, d), groups=g, dilation=d, bias=False)
        self.bn: nn.Module = batch_norm(c2)
        self.act = make_activation(act)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, c1, H, W) to (B, c2, H / s, W / s)."""
        return self.act(self.bn(self.conv(x)))


@register("in_out")
class DWConv(Conv):
    """Depthwise convolution: gcd(c1, c2) groups."""

    def __init__(self, c1: int, c2: int, k: int = 1, s: int = 1, d: int = 1, act: Activation = True) -> None:
        super().__init__(c1, c2, k, s, g=math.gcd(c1, c2), d=d, act=act)


@register("in_out")
class Bottleneck(nn.Module):
    """1x1 convolution to c2 * e channels, 3x3 to c2; with `shortcut` the input is added if c1 == c2."""

    def __init__(
        self, c1: int, c2: int, shortcut: bool = True, g: int = 1, e: float = 0.5, act: Activation = True
    ) -> None:
        super().__init__()
        hidden = int(c2 * e)
        self.cv1 = Conv(c1, hidden, 1, 1, act=act)
        self.cv2: nn.Module = Conv(hidden, c2, 3, 1, g=g, act=act)
        self.add = shortcut and c1 == c2

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, c1, H, W) to (B, c2, H, W)."""
        y = self.cv2(self.cv1(x))
        return x + y if self.add else y


@register("in_out", repeats=True)
class BottleneckCSP(nn.Module):
    """CSP block of n bottlenecks as in YOLOv5's first releases: cv2 and cv3 are plain convolutions.

    `csp_act` is the activation after the concatenation, by default `act`: releases up to 6.0 have nn.LeakyReLU(0.1).
    """

    def __init__(
        self,
        c1: int,
        c2: int,
        n: int = 1,
        shortcut: bool = True,
        g: int = 1,
        e: float = 0.5,
        act: Activation = True,
        csp_act: Activation | None = None,
    ) -> None:
        super().__init__()
        hidden = int(c2 * e)
        self.cv1 = Conv(c1, hidden, 1, 1, act=act)
        self.cv2 = nn.Conv2d(c1, hidden, 1, 1, bias=False)
        self.cv3 = nn.Conv2d(hidden, hidden, 1, 1, bias=False)
        self.cv4 = Conv(2 * hidden, c2, 1, 1, act=act)
        self.bn = batch_norm(2 * hidden)
        self.act = make_activation(act if csp_act is None else csp_act)
        self.m = nn.Sequential(*(Bottleneck(hidden, hidden, shortcut, g, e=1.0, act=act) for _ in range(n)))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, c1, H, W) to (B, c2, H, W)."""
        both = torch.cat((self.cv3(self.m(self.cv1(x))), self.cv2(x)), 1)
        return self.cv4(self.act(self.bn(both)))


@register("in_out", repeats=True)
class C3(nn.Module):
    """CSP block with three convolutions: n inner blocks on one branch, a 1x1 convolution on the other.

    The branches have c2 * e channels each. Variants override `inner`, which builds one inner block.
    """

    def __init__(
        self, c1: int, c2: int, n: int = 1, shortcut: bool = True, g: int = 1, e: float = 0.5, act: Activation = True
    ) -> None:
        super().__init__()
        hidden = int(c2 * e)
        self.cv1 = Conv(c1, hidden, 1, 1, act=act)
        self.cv2 = Conv(c1, hidden, 1, 1, act=act)
        self.cv3 = Conv(2 * hidden, c2, 1, act=act)
        self.m: nn.Module = nn.Sequential(*(self.inner(hidden, shortcut, g, act) for _ in range(n)))

    def inner(self, hidden: int, shortcut: bool, g: int, act: Activation) -> nn.Module:
        """Build one inner block, which keeps the shape (B, hidden, H, W)."""
        return Bottleneck(hidden, hidden, shortcut, g, e=1.0, act=act)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, c1, H, W) to (B, c2, H, W)."""
        return self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), 1))


@register("in_out")
class SPP(nn.Module):
    """Spatial pyramid pooling: parallel max pools of the odd sizes k, concatenated."""

    def __init__(self, c1: int, c2: int, k: tuple[int, ...] = (5, 9, 13), act: Activation = True) -> None:
        super().__init__()
        hidden = c1 // 2
        self.cv1 = Conv(c1, hidden, 1, 1, act=act)
        self.cv2 = Conv(hidden * (len(k) + 1), c2, 1, 1, act=act)
        self.m = nn.ModuleList(nn.MaxPool2d(size, 1, size // 2) for size in k)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, c1, H, W) to (B, c2, H, W)."""
        x = self.cv1(x)
        return self.cv2(torch.cat([x, *(pool(x) for pool in self.m)], 1))


@register("in_out")
class SPPF(nn.Module):
    """SPP as one pool of size k applied three times: SPPF(k=5) equals SPP(k=(5, 9, 13)) at a lower cost."""

    def __init__(self, c1: int, c2: int, k: int = 5, act: Activation = True) -> None:
        super().__init__()
        hidden = c1 // 2
        self.cv1 = Conv(c1, hidden, 1, 1, act=act)
        self.cv2 = Conv(hidden * 4, c2, 1, 1, act=act)
        self.m = nn.MaxPool2d(k, 1, k // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, c1, H, W) to (B, c2, H, W)."""
        maps = [self.cv1(x)]
        for _ in range(3):
            maps.append(self.m(maps[-1]))
        return self.cv2(torch.cat(maps, 1))


@register("in_out")
class C3SPP(C3):
    """C3 whose inner block is one SPP with pool sizes k."""

    def __init__(
        self,
        c1: int,
        c2: int,
        k: tuple[int, ...] = (5, 9, 13),
        n: int = 1,
        shortcut: bool = True,
        g: int = 1,
        e: float = 0.5,
        act: Activation = True,
    ) -> None:
        super().__init__(c1, c2, n, shortcut, g, e, act)
        hidden = int(c2 * e)
        self.m = SPP(hidden, hidden, tuple(k), act)


@register("in_out")
class Focus(nn.Module):
    """Space-to-depth by 2, then a convolution: (B, c1, H, W) -> (B, c2, H / 2, W / 2)."""

    def __init__(
        self, c1: int, c2: int, k: int = 1, s: int = 1, p: int | None = None, g: int = 1, act: Activation = True
    ) -> None:
        super().__init__()
        self.conv = Conv(c1 * 4, c2, k, s, p, g, act=act)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, c1, H, W) to (B, c2, H / 2, W / 2)."""
        corners = [x[..., row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.conv(torch.cat(corners, 1))


@register("sum")
class Concat(nn.Module):
    """Concatenate maps along a dimension, by default the channels."""

    def __init__(self, dimension: int = 1) -> None:
        super().__init__()
        self.d = dimension

    def forward(self, x: list[Tensor]) -> Tensor:
        """Map [(B, C_i, H, W), ...] to (B, sum C_i, H, W)."""
        return torch.cat(x, self.d)
