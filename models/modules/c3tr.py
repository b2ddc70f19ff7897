"""C3TR: C3 whose inner block is a transformer over the pixels of a map.

Source: attention arXiv 1706.03762; on image patches arXiv 2010.11929, here without layer norms.
"""

from __future__ import annotations

from einops import rearrange
from torch import Tensor, nn

from models.common import C3, Activation, Conv
from models.registry import register


class TransformerLayer(nn.Module):
    """Self-attention and two linear layers with residual connections; tokens are (L, B, C)."""

    def __init__(self, c: int, num_heads: int) -> None:
        super().__init__()
        self.q = nn.Linear(c, c, bias=False)
        self.k = nn.Linear(c, c, bias=False)
        self.v = nn.Linear(c, c, bias=False)
        self.ma = nn.MultiheadAttention(embed_dim=c, num_heads=num_heads)
        self.fc1 = nn.Linear(c, c, bias=False)
        self.fc2 = nn.Linear(c, c, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (L, B, C) to the same shape."""
        x = self.ma(self.q(x), self.k(x), self.v(x), need_weights=False)[0] + x
        return self.fc2(self.fc1(x)) + x


class TransformerBlock(nn.Module):
    """Transformer layers over the pixels of a map; a learned linear layer is added to the tokens."""

    def __init__(self, c1: int, c2: int, num_heads: int, num_layers: int) -> None:
        super().__init__()
        self.conv: nn.Module | None = Conv(c1, c2) if c1 != c2 else None
        self.linear = nn.Linear(c2, c2)
        self.tr = nn.Sequential(*(TransformerLayer(c2, num_heads) for _ in range(num_layers)))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, c1, H, W) to (B, c2, H, W)."""
        x = x if self.conv is None else self.conv(x)
        tokens = rearrange(x, "b c h w -> (h w) b c")
        return rearrange(self.tr(tokens + self.linear(tokens)), "(h w) b c -> b c h w", h=x.shape[2])


@register("in_out", repeats=True)
class C3TR(C3):
    """C3 with a transformer of n layers and 4 heads."""

    def __init__(
        self, c1: int, c2: int, n: int = 1, shortcut: bool = True, g: int = 1, e: float = 0.5, act: Activation = True
    ) -> None:
        super().__init__(c1, c2, 0, shortcut, g, e, act)
        hidden = int(c2 * e)
        self.m = TransformerBlock(hidden, hidden, 4, n)
