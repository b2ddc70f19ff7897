"""The convolutions that predict AKConv's offsets, and the factors of modulated samples."""

from __future__ import annotations

from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn

from models.sampling.sampling_grid import SamplingGrid

Offsets = Literal["conv", "depthwise"]


def offset_convolution(channels: int, outputs: int, stride: int, offsets: Offsets) -> nn.Module:
    """Return a 3x3 convolution, or a depthwise 3x3 and a 1x1 convolution, whose output starts at zero.

    Source of the depthwise form: DCNv4 (arXiv 2401.06197).

    Raises:
        ValueError: `offsets` is unknown.
    """
    if offsets not in get_args(Offsets):
        raise ValueError(f"offsets must be one of {get_args(Offsets)}, got {offsets!r}")
    if offsets == "conv":
        convolution: nn.Module = nn.Conv2d(channels, outputs, 3, stride, 1)
    else:
        depthwise = nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False)
        convolution = nn.Sequential(depthwise, nn.Conv2d(channels, outputs, 1))
    # The depthwise weights stay random: with zeros in both convolutions neither would get a gradient.
    for parameter in last_convolution(convolution).parameters():
        nn.init.zeros_(parameter)
    return convolution


def last_convolution(convolution: nn.Module) -> nn.Conv2d:
    """Return the convolution, or the last one of a sequence, whose outputs are the offsets."""
    return cast(nn.Conv2d, convolution[-1] if isinstance(convolution, nn.Sequential) else convolution)


def predict_offsets(x: Tensor, convolution: nn.Module, grid: SamplingGrid) -> Tensor:
    """Return the offsets, (B, 2N, h, w), and after them, if `grid` is modulated, the factors, (B, N, h, w).

    Factors are twice a sigmoid, 1 where the convolution gives 0.

    Source of the factors: DCNv2 (arXiv 1811.11168).
    """
    predicted = convolution(x)
    if grid.modulated:
        offset, logits = predicted[:, : 2 * grid.num_points], predicted[:, 2 * grid.num_points :]
        return torch.cat((offset, 2 * logits.sigmoid()), 1)
    return predicted
