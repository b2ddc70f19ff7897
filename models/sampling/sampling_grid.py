"""Where an alterable kernel samples its map: positions, the four pixels around each, and their weights.

Letters: B batch, (H, W) input size, (h, w) output size, N points.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

Padding = Literal["border", "zeros"]


def sampling_positions(offset: Tensor, points: Tensor, *, stride: int) -> tuple[Tensor, Tensor]:
    """Return where each output pixel samples the input.

    Args:
        offset: (B, 2N, h, w) in input pixels, N row offsets before N column offsets.
        points: (N, 2) initial points (row, column).
        stride: distance of output pixels on the input.

    Returns:
        Rows and columns, each (B, h, w, N); float32, or float64 for float64 offsets: half precision cannot hold
        positions on a map of 160 pixels.
    """
    offset = offset.to(torch.promote_types(offset.dtype, torch.float32))
    height, width = offset.shape[-2:]
    row_offset, column_offset = offset.permute(0, 2, 3, 1).chunk(2, -1)
    rows = torch.arange(height, device=offset.device, dtype=offset.dtype) * stride
    columns = torch.arange(width, device=offset.device, dtype=offset.dtype) * stride
    points = points.to(offset.dtype)
    return (
        row_offset + (rows[:, None, None] + points[:, 0]),
        column_offset + (columns[:, None] + points[:, 1]),
    )


class _Axis(torch.autograd.Function):
    """Positions along one axis to the weights of their two neighbours, with a gradient alike in all versions of torch.

    At a whole position it is that towards the next pixel; where a position was brought back to the border it is 0.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        position: Tensor,
        size: int,
        zeros: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return low and high index, int32 in [0, size - 1], and low and high weight."""
        lowest, highest = (-1, size) if zeros else (0, size - 1)
        # fmax and fmin put the bound in the place of NaN, so that an index is never out of range.
        bounded = torch.fmin(torch.fmax(position, position.new_tensor(lowest)), position.new_tensor(highest))
        floor = bounded.floor()
        # Adding 0 times the position makes the weight of a non-finite one NaN, and changes no other.
        high_weight = torch.add(bounded - floor, position, alpha=0)
        low_weight = 1 - high_weight
        low = floor.int()
        high = low + 1
        inside = position == bounded
        if zeros:
            low_exists, high_exists = (low >= 0) & (low < size), high < size
            low_weight, high_weight = low_weight * low_exists, high_weight * high_exists
            low = low.clamp_(0, size - 1)
            ctx.save_for_backward(inside & low_exists, inside & high_exists)
        else:
            ctx.save_for_backward(inside, inside)
        high = high.clamp_(max=size - 1)
        ctx.mark_non_differentiable(low, high)
        return low, high, low_weight, high_weight

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        """Return the gradient of the position."""
        low_counts, high_counts = ctx.saved_tensors
        return gradients[3] * high_counts - gradients[2] * low_counts, None, None


def corners(rows: Tensor, columns: Tensor, size_hw: tuple[int, int], *, padding: Padding) -> tuple[Tensor, Tensor]:
    """Return the four pixels around each position and their weights.

    Args:
        rows: (B, h, w, N) row positions.
        columns: (B, h, w, N) column positions.
        size_hw: height and width of the map.
        padding: `border` brings positions beyond the map back to it, `zeros` gives pixels outside no weight.

    Returns:
        Indices into the B H W pixels of the map, (B, h, w, N, 4) int32 or int64, always in range; and weights of the
        same shape, which sum to 1 but for what lies outside in `zeros` mode. The weights of a position that is not
        finite are NaN.
    """
    height, width = size_hw
    batch = rows.shape[0]
    top, bottom, top_weight, bottom_weight = _Axis.apply(rows, height, padding == "zeros")
    left, right, left_weight, right_weight = _Axis.apply(columns, width, padding == "zeros")
    if batch * height * width > torch.iinfo(torch.int32).max:
        top, bottom = top.long(), bottom.long()
    first = torch.arange(batch, device=top.device, dtype=top.dtype).view(-1, 1, 1, 1) * (height * width)
    top, bottom = top * width + first, bottom * width + first
    index = torch.stack((top + left, top + right, bottom + left, bottom + right), -1)
    weight = torch.stack(
        (
            top_weight * left_weight,
            top_weight * right_weight,
            bottom_weight * left_weight,
            bottom_weight * right_weight,
        ),
        -1,
    )
    return index, weight
