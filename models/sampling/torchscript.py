"""AKConv for TorchScript, by operations whose trace stays valid for any batch, height and width."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from models.sampling.sampling_grid import Neighbours, Padding, SamplingGrid, combine_axes


def _neighbours(position: Tensor, size: int, padding: Padding) -> Neighbours:
    """Return low and high index, int64 in [0, size - 1], and their weights, NaN for a non-finite position."""
    lowest, highest = (0, size - 1) if padding == "border" else (-1, size)
    bounded = position.where(position >= lowest, lowest)  # NaN becomes the lowest as well
    bounded = bounded.where(bounded <= highest, highest)
    floor = bounded.floor()
    high_weight = bounded - floor + position * 0
    low_weight = 1 - high_weight
    low = floor.long()
    high = low + 1
    if padding == "zeros":
        low_weight = low_weight * ((low >= 0) & (low < size))
        high_weight = high_weight * (high < size)
    return _within(low, size), _within(high, size), low_weight, high_weight


def _within(index: Tensor, size: int) -> Tensor:
    """Clamp indices to [0, size - 1]; `clamp` would record the size as a constant of the trace."""
    index = index.where(index >= 0, 0)
    return index.where(index < size, size - 1)


def ak_conv2d_torchscript(x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor | None, grid: SamplingGrid) -> Tensor:
    """Compute `ak_conv2d` with `embedding_bag`, without a custom backward pass: gradients are one-sided."""
    batch, channels, height, width = x.shape
    out_channels, _, num_points, _ = weight.shape
    out_h, out_w = offset.shape[2:]
    rows, columns = grid.positions(offset)
    row_neighbours = _neighbours(rows, height, grid.padding)
    column_neighbours = _neighbours(columns, width, grid.padding)
    first = torch.arange(batch, device=x.device).view(-1, 1, 1, 1) * (height * width)
    index, blend = combine_axes(row_neighbours, column_neighbours, first, width)  # (B, h, w, N, 4)
    if grid.modulated:
        blend = blend * grid.factors(offset).unsqueeze(-1)
    pixels = x.permute(0, 2, 3, 1).reshape(-1, channels).to(blend.dtype)
    samples = F.embedding_bag(index.view(-1, 4), pixels, per_sample_weights=blend.view(-1, 4), mode="sum")
    columns_of_samples = samples.to(x.dtype).view(batch * out_h * out_w, num_points * channels)
    y = F.linear(columns_of_samples, weight.squeeze(3).transpose(1, 2).reshape(out_channels, -1), bias)
    return y.view(batch, out_h, out_w, out_channels).permute(0, 3, 1, 2)
