"""Bottleneck and C3 with AKConv in place of the 3x3 convolution."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from models.common import C3, Activation, Bottleneck
from models.modules.akconv import AKConv
from models.registry import register
from models.sampling.offset_convolution import Offsets
from models.sampling.sampling_grid import Gradient, Padding

NUM_POINTS = 3
FORWARDS = {"AKConv": ("num_param", "points", "padding", "offsets", "modulated", "gradient", "jitter")}


@register("in_out", aliases=("Bottleneck_LDConv",), forwards=FORWARDS)
class Bottleneck_AKConv(Bottleneck):  # noqa: N801 - the published name
    """Bottleneck whose second convolution is AKConv, by default with three points."""

    def __init__(
        self,
        c1: int,
        c2: int,
        shortcut: bool = True,
        g: int = 1,
        e: float = 0.5,
        act: Activation = True,
        *,
        num_param: int = NUM_POINTS,
        points: str | Sequence[Sequence[float]] | None = None,
        padding: Padding = "border",
        offsets: Offsets = "conv",
        modulated: bool = False,
        gradient: Gradient = "one_sided",
        jitter: float = 0.0,
    ) -> None:
        """Build the block; `g` must be 1 (ValueError), and keywords are those of AKConv."""
        if g != 1:
            raise ValueError(f"AKConv does not support groups, got g={g}")
        super().__init__(c1, c2, shortcut, e=e, act=act)
        self.cv2 = AKConv(
            int(c2 * e),
            c2,
            num_param,
            points=points,
            padding=padding,
            offsets=offsets,
            modulated=modulated,
            gradient=gradient,
            jitter=jitter,
            act=act,
        )


@register("in_out", repeats=True, aliases=("C3_LDConv",), forwards=FORWARDS)
class C3_AKConv(C3):  # noqa: N801 - the published name
    """C3 of Bottleneck_AKConv blocks."""

    def __init__(
        self,
        c1: int,
        c2: int,
        n: int = 1,
        shortcut: bool = True,
        g: int = 1,
        e: float = 0.5,
        act: Activation = True,
        *,
        num_param: int = NUM_POINTS,
        points: str | Sequence[Sequence[float]] | None = None,
        padding: Padding = "border",
        offsets: Offsets = "conv",
        modulated: bool = False,
        gradient: Gradient = "one_sided",
        jitter: float = 0.0,
    ) -> None:
        """Build the block of n bottlenecks; `g` and keywords are as in Bottleneck_AKConv."""
        super().__init__(c1, c2, 0, shortcut, g, e, act)
        hidden = int(c2 * e)
        blocks = (
            Bottleneck_AKConv(
                hidden,
                hidden,
                shortcut,
                g,
                1.0,
                act,
                num_param=num_param,
                points=points,
                padding=padding,
                offsets=offsets,
                modulated=modulated,
                gradient=gradient,
                jitter=jitter,
            )
            for _ in range(n)
        )
        self.m = nn.Sequential(*blocks)


Bottleneck_LDConv = Bottleneck_AKConv
C3_LDConv = C3_AKConv
