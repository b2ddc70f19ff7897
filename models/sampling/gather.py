"""AKConv by four gathers and elementwise arithmetic: slow, but every exporter supports its operations.

Used by `torch.export`, as the second oracle of the tests, and as the baseline of the benchmarks.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.sampling.sampling_grid import Padding, SamplingGrid


def _gathered(x: Tensor, rows: Tensor, columns: Tensor, padding: Padding) -> Tensor:
    """Read pixels of (B, C, H, W) at integer positions (B, h, w, N); return (B, C, h, w, N)."""
    batch, channels, height, width = x.shape
    inside = (rows >= 0) & (rows <= height - 1) & (columns >= 0) & (columns <= width - 1)
    rows = rows.where(rows >= 0, 0).where(rows <= height - 1, height - 1)
    columns = columns.where(columns >= 0, 0).where(columns <= width - 1, width - 1)
    index = (rows * width + columns).reshape(batch, 1, -1).expand(-1, channels, -1)
    pixels = x.reshape(batch, channels, -1).gather(2, index).view(batch, channels, *rows.shape[1:])
    return pixels * inside[:, None] if padding == "zeros" else pixels


def _blended(x: Tensor, rows: Tensor, columns: Tensor, top: Tensor, left: Tensor, padding: Padding) -> Tensor:
    """Interpolate (B, C, H, W) at positions (B, h, w, N) in the cells from (top, left); return (B, C, h, w, N)."""
    down, right = (rows - top)[:, None], (columns - left)[:, None]
    top, left = top.long(), left.long()
    return (
        _gathered(x, top, left, padding) * (1 - down) * (1 - right)
        + _gathered(x, top, left + 1, padding) * (1 - down) * right
        + _gathered(x, top + 1, left, padding) * down * (1 - right)
        + _gathered(x, top + 1, left + 1, padding) * down * right
    )


def ak_conv2d_gather(x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor | None, grid: SamplingGrid) -> Tensor:
    """Compute `ak_conv2d` by four gathers."""
    height, width = x.shape[2:]
    rows, columns = grid.positions(offset)
    finite = (rows - rows == 0) & (columns - columns == 0)  # isfinite, in operations that can be exported
    rows, columns = rows.where(finite, 0), columns.where(finite, 0)
    low, beyond = (0, 0) if grid.padding == "border" else (-1, 1)
    rows = rows.where(rows >= low, low).where(rows <= height - 1 + beyond, height - 1 + beyond)
    columns = columns.where(columns >= low, low).where(columns <= width - 1 + beyond, width - 1 + beyond)
    samples = _blended(x, rows, columns, rows.detach().floor(), columns.detach().floor(), grid.padding)
    if grid.gradient == "symmetric" and rows.requires_grad:
        # An integer position lies on the edge of two cells, with equal values and the two one-sided gradients.
        cell = rows.detach().ceil() - 1, columns.detach().ceil() - 1
        samples = (samples + _blended(x, rows, columns, *cell, grid.padding)) / 2
    if grid.modulated:
        samples = samples * grid.factors(offset)[:, None]
    samples = samples.where(finite[:, None], torch.nan).to(x.dtype)
    y = torch.einsum("bchwn,ocn->bohw", samples, weight.squeeze(3).to(x.dtype))
    return y if bias is None else y + bias.to(x.dtype).view(-1, 1, 1)
