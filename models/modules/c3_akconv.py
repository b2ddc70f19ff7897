"""The family's residual blocks with AKConv in the place of the 3x3 convolution."""

from __future__ import annotations

from torch import nn

from models.common import C3, Activation, Bottleneck
from models.modules.akconv import AKConv
from models.registry import register

NUM_POINTS = 3


@register("in_out", aliases=("Bottleneck_LDConv",))
class Bottleneck_AKConv(Bottleneck):  # noqa: N801 - the name users know
    """Bottleneck whose second convolution is AKConv with three points."""

    def __init__(
        self, c1: int, c2: int, shortcut: bool = True, g: int = 1, e: float = 0.5, act: Activation = True
    ) -> None:
        """Make the block; `g` is accepted for the row's sake and must be 1.

        Raises:
            ValueError: groups were asked for.
        """
        if g != 1:
            raise ValueError(f"AKConv has no groups, got g={g}")
        super().__init__(c1, c2, shortcut, e=e, act=act)
        self.cv2 = AKConv(int(c2 * e), c2, NUM_POINTS, 1, act=act)


@register("in_out", repeats=True, aliases=("C3_LDConv",))
class C3_AKConv(C3):  # noqa: N801 - the name users know
    """C3 made of Bottleneck_AKConv."""

    def inner(self, hidden: int, shortcut: bool, g: int, act: Activation) -> nn.Module:
        """Make one bottleneck with AKConv."""
        return Bottleneck_AKConv(hidden, hidden, shortcut, g, e=1.0, act=act)


Bottleneck_LDConv = Bottleneck_AKConv
C3_LDConv = C3_AKConv
