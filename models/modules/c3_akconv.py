"""The family's residual blocks with AKConv in the place of the 3x3 convolution."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from models.common import C3, Activation, Bottleneck
from models.modules.akconv import AKConv
from models.registry import register
from models.sampling.sampling_grid import Padding

NUM_POINTS = 3
PASSES_ON = {"AKConv": ("num_param", "points", "padding")}


@register("in_out", aliases=("Bottleneck_LDConv",), passes_on=PASSES_ON)
class Bottleneck_AKConv(Bottleneck):  # noqa: N801 - the name users know
    """Bottleneck whose second convolution is AKConv, with three points unless told otherwise."""

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
    ) -> None:
        """Make the block; `g` is accepted for the row's sake and must be 1; the last three are AKConv's.

        Raises:
            ValueError: groups were asked for, or AKConv refuses its arguments.
        """
        if g != 1:
            raise ValueError(f"AKConv has no groups, got g={g}")
        super().__init__(c1, c2, shortcut, e=e, act=act)
        self.cv2 = AKConv(int(c2 * e), c2, num_param, 1, points=points, padding=padding, act=act)


@register("in_out", repeats=True, aliases=("C3_LDConv",), passes_on=PASSES_ON)
class C3_AKConv(C3):  # noqa: N801 - the name users know
    """C3 made of Bottleneck_AKConv."""

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
    ) -> None:
        """Make the block of n bottlenecks; the last three arguments are those of their AKConv.

        Raises:
            ValueError: groups were asked for, or AKConv refuses its arguments.
        """
        super().__init__(c1, c2, 0, shortcut, g, e, act)
        hidden = int(c2 * e)
        self.m = nn.Sequential(
            *(
                Bottleneck_AKConv(
                    hidden, hidden, shortcut, g, e=1.0, act=act, num_param=num_param, points=points, padding=padding
                )
                for _ in range(n)
            )
        )


Bottleneck_LDConv = Bottleneck_AKConv
C3_LDConv = C3_AKConv
