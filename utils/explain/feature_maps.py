"""The feature maps of a layer: what its channels show of an image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from utils.explain.layers import record_maps


@torch.no_grad()
def feature_maps(network: nn.Module, pixels: Tensor, *, layers: Sequence[str]) -> dict[str, Tensor]:
    """Return the output (C, h, w) of each layer for one image (1, 3, H, W) in [0, 1], on the CPU."""
    with record_maps(network, layers) as maps:
        network(pixels)
    return {name: maps[name][0].float().cpu() for name in layers}


def strongest_channels(maps: Tensor, count: int) -> list[int]:
    """Return the channels of (C, h, w) maps that vary most over the image, the most variable first."""
    order = maps.flatten(1).var(1, unbiased=False).argsort(descending=True, stable=True)
    return [int(channel) for channel in order[:count]]
