"""The standard blocks of the family, under their usual names, each registered for model yamls.

Letters: B batch, C channels, H height, W width. All maps are (B, C, H, W). `act` is True for SiLU, False for none, or a
module of which each block takes a copy. Sources: CSP arXiv 1911.11929; SPP 1406.4729; GhostNet 1911.11907.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from models.registry import LayerArgs, Row, register

Activation = bool | nn.Module


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """Return a batch norm with the family's constants."""
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.03)


def make_activation(act: Activation) -> nn.Module:
    """Return a fresh activation module for True (SiLU), False (none) or an example to copy.

    Raises:
        ValueError: it is something else.
    """
    if isinstance(act, nn.Module):
        return copy.deepcopy(act)
    if not isinstance(act, bool):
        raise ValueError(f"act must be true or false, got {act!r}; `activation:` on top of the yaml names another")
    return nn.SiLU() if act else nn.Identity()


def autopad(kernel: int, padding: int | None = None, dilation: int = 1) -> int:
    """Return the padding that keeps the size at stride 1 for an odd kernel, unless one is given.

    Raises:
        ValueError: there is no such kernel.
    """
    if kernel < 1:
        raise ValueError(f"kernel must be at least 1, got {kernel}")
    return dilation * (kernel - 1) // 2 if padding is None else padding


@register("in_out")
class Conv(nn.Module):
    """Convolution, batch norm, activation: (B, c1, H, W) -> (B, c2, H / s, W / s)."""

    def __init__(
        self,
        c1: int,
        c2: int,
        k: int = 1,
        s: int = 1,
        p: int | None = None,
        g: int = 1,
        d: int = 1,
        act: Activation = True,
    ) -> None:
        """Make the layer: kernel k, stride s, padding p (None keeps the size), groups g, dilation d."""
        super().__init__()
        self.conv = nn.Conv2d(c1, c2, k, s, autopad(k, p, d), groups=g, dilation=d, bias=False)
        self.bn: nn.Module = batch_norm(c2)
        self.act = make_activation(act)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, c1, H, W) to (B, c2, H / s, W / s)."""
        return self.act(self.bn(self.conv(x)))


@register("in_out")
class DWConv(Conv):
    """Depth-wise convolution: as many groups as channels allow."""

    def __init__(self, c1: int, c2: int, k: int = 1, s: int = 1, d: int = 1, act: Activation = True) -> None:
        """Make the layer with gcd(c1, c2) groups."""
        super().__init__(c1, c2, k, s, g=math.gcd(c1, c2), d=d, act=act)


@register("in_out")
class Bottleneck(nn.Module):
    """1x1 down to c2 * e channels, 3x3 up to c2, and the input added when channels agree."""

    def __init__(
        self, c1: int, c2: int, shortcut: bool = True, g: int = 1, e: float = 0.5, act: Activation = True
    ) -> None:
        """Make the block; `shortcut` asks for the addition."""
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
    """Cross-stage partial block of the first releases, with plain convolutions on its two ends."""

    def __init__(
        self,
        c1: int,
        c2: int,
        n: int = 1,
        shortcut: bool = True,
        g: int = 1,
        e: float = 0.5,
        act: Activation = True,
    ) -> None:
        """Make the block of n bottlenecks."""
        super().__init__()
        hidden = int(c2 * e)
        self.cv1 = Conv(c1, hidden, 1, 1, act=act)
        self.cv2 = nn.Conv2d(c1, hidden, 1, 1, bias=False)
        self.cv3 = nn.Conv2d(hidden, hidden, 1, 1, bias=False)
        self.cv4 = Conv(2 * hidden, c2, 1, 1, act=act)
        self.bn = batch_norm(2 * hidden)
        self.act = make_activation(act)
        self.m = nn.Sequential(*(Bottleneck(hidden, hidden, shortcut, g, e=1.0, act=act) for _ in range(n)))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, c1, H, W) to (B, c2, H, W)."""
        both = torch.cat((self.cv3(self.m(self.cv1(x))), self.cv2(x)), 1)
        return self.cv4(self.act(self.bn(both)))


@register("in_out", repeats=True)
class C3(nn.Module):
    """Cross-stage partial block with three convolutions: n inner blocks on one half, the other half passed by.

    A variant overrides `inner`, which makes one inner block of `hidden` channels.
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
    ) -> None:
        """Make the block; the inner blocks have c2 * e channels."""
        super().__init__()
        hidden = int(c2 * e)
        self.cv1 = Conv(c1, hidden, 1, 1, act=act)
        self.cv2 = Conv(c1, hidden, 1, 1, act=act)
        self.cv3 = Conv(2 * hidden, c2, 1, act=act)
        self.m: nn.Module = nn.Sequential(*(self.inner(hidden, shortcut, g, act) for _ in range(n)))

    def inner(self, hidden: int, shortcut: bool, g: int, act: Activation) -> nn.Module:
        """Make one inner block, (B, hidden, H, W) to the same shape."""
        return Bottleneck(hidden, hidden, shortcut, g, e=1.0, act=act)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, c1, H, W) to (B, c2, H, W)."""
        return self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), 1))


@register("in_out")
class CrossConv(nn.Module):
    """A k x k convolution as 1 x k then k x 1."""

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
        """Make the block with c2 * e channels in between."""
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
    """C3 with CrossConv inside."""

    def inner(self, hidden: int, shortcut: bool, g: int, act: Activation) -> nn.Module:
        """Make one CrossConv."""
        return CrossConv(hidden, hidden, 3, 1, g, 1.0, shortcut, act)


@register("in_out")
class SPP(nn.Module):
    """Spatial pyramid pooling: max pools of several sizes side by side."""

    def __init__(self, c1: int, c2: int, k: tuple[int, ...] = (5, 9, 13), act: Activation = True) -> None:
        """Make the block with odd pool sizes k."""
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
    """SPP by one pool applied three times: SPPF(k=5) equals SPP(k=(5, 9, 13)) at a lower cost."""

    def __init__(self, c1: int, c2: int, k: int = 5, act: Activation = True) -> None:
        """Make the block with pool size k."""
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
    """C3 with one SPP inside."""

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
        """Make the block; `k` are the pool sizes."""
        super().__init__(c1, c2, n, shortcut, g, e, act)
        hidden = int(c2 * e)
        self.m = SPP(hidden, hidden, tuple(k), act)


@register("in_out")
class Focus(nn.Module):
    """Move 2x2 neighbourhoods into channels, then convolve: (B, c1, H, W) -> (B, c2, H / 2, W / 2)."""

    def __init__(
        self,
        c1: int,
        c2: int,
        k: int = 1,
        s: int = 1,
        p: int | None = None,
        g: int = 1,
        act: Activation = True,
    ) -> None:
        """Make the layer."""
        super().__init__()
        self.conv = Conv(c1 * 4, c2, k, s, p, g, act=act)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, c1, H, W) to (B, c2, H / 2, W / 2)."""
        corners = [x[..., row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.conv(torch.cat(corners, 1))


@register("in_out")
class GhostConv(nn.Module):
    """Half of the output by a convolution, half by a cheap 5x5 depth-wise one on top of it."""

    def __init__(self, c1: int, c2: int, k: int = 1, s: int = 1, g: int = 1, act: Activation = True) -> None:
        """Make the layer."""
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
    """Two ghost convolutions, a depth-wise one between them at stride 2, and a shortcut."""

    def __init__(self, c1: int, c2: int, k: int = 3, s: int = 1, act: Activation = True) -> None:
        """Make the block."""
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
    """C3 with ghost bottlenecks inside."""

    def inner(self, hidden: int, shortcut: bool, g: int, act: Activation) -> nn.Module:
        """Make one ghost bottleneck."""
        return GhostBottleneck(hidden, hidden, act=act)


@register("sum")
class Concat(nn.Module):
    """Join maps along a dimension, channels by default."""

    def __init__(self, dimension: int = 1) -> None:
        """Make the layer."""
        super().__init__()
        self.d = dimension

    def forward(self, x: list[Tensor]) -> Tensor:
        """Map [(B, C_i, H, W), ...] to (B, sum C_i, H, W)."""
        return torch.cat(x, self.d)


def _contracted(row: Row) -> LayerArgs:
    gain = row.positive(0, "gain") if row.args else 2
    return LayerArgs((gain,), row.single_input() * gain**2)


def _expanded(row: Row) -> LayerArgs:
    gain = row.positive(0, "gain") if row.args else 2
    if row.single_input() % gain**2:
        raise ValueError(f"needs channels divisible by {gain**2}, got {row.single_input()}")
    return LayerArgs((gain,), row.single_input() // gain**2)


@register(_contracted)
class Contract(nn.Module):
    """Move gain x gain neighbourhoods into channels: (B, C, H, W) -> (B, C g g, H / g, W / g)."""

    def __init__(self, gain: int = 2) -> None:
        """Make the layer."""
        super().__init__()
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C g g, H / g, W / g); the neighbour's place varies slowest over the channels."""
        b, c, h, w = x.shape
        g = self.gain
        x = x.view(b, c, h // g, g, w // g, g).permute(0, 3, 5, 1, 2, 4)  # (B, g, g, C, H / g, W / g)
        return x.reshape(b, c * g * g, h // g, w // g)


@register(_expanded)
class Expand(nn.Module):
    """Move channels into gain x gain neighbourhoods: (B, C, H, W) -> (B, C / g / g, H g, W g); undoes Contract."""

    def __init__(self, gain: int = 2) -> None:
        """Make the layer."""
        super().__init__()
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C / g / g, H g, W g)."""
        b, c, h, w = x.shape
        g = self.gain
        x = x.view(b, g, g, c // g**2, h, w).permute(0, 3, 4, 1, 5, 2)  # (B, C / g / g, H, g, W, g)
        return x.reshape(b, c // g**2, h * g, w * g)
