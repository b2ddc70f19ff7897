"""Contract and Expand: space-to-depth and depth-to-space by a gain."""

from __future__ import annotations

from torch import Tensor, nn

from models.registry import LayerArgs, LayerContext, register


def _contracted(row: LayerContext) -> LayerArgs:
    gain = row.positive(0, "gain") if row.args else 2
    return LayerArgs((gain,), row.single_input() * gain**2)


def _expanded(row: LayerContext) -> LayerArgs:
    gain = row.positive(0, "gain") if row.args else 2
    if row.single_input() % gain**2:
        raise ValueError(f"needs channels divisible by {gain**2}, got {row.single_input()}")
    return LayerArgs((gain,), row.single_input() // gain**2)


@register(_contracted)
class Contract(nn.Module):
    """Space-to-depth: (B, C, H, W) -> (B, C g g, H / g, W / g), g the gain."""

    def __init__(self, gain: int = 2) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C g g, H / g, W / g); the neighbourhood varies slowest over the channels."""
        b, c, h, w = x.shape
        g = self.gain
        x = x.view(b, c, h // g, g, w // g, g).permute(0, 3, 5, 1, 2, 4)  # (B, g, g, C, H / g, W / g)
        return x.reshape(b, c * g * g, h // g, w // g)


@register(_expanded)
class Expand(nn.Module):
    """Depth-to-space, the inverse of Contract: (B, C, H, W) -> (B, C / g / g, H g, W g), g the gain."""

    def __init__(self, gain: int = 2) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C / g / g, H g, W g)."""
        b, c, h, w = x.shape
        g = self.gain
        x = x.view(b, g, g, c // g**2, h, w).permute(0, 3, 4, 1, 5, 2)  # (B, C / g / g, H, g, W, g)
        return x.reshape(b, c // g**2, h * g, w * g)
