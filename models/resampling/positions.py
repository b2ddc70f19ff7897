"""Where an alterable kernel samples its map: positions, the four pixels around each, and their weights.

Letters: B batch, (H, W) input size, (h, w) output size, N points.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

Padding = Literal["border", "zeros"]


def sampling_positions(offset: Tensor, points: Tensor, *, stride: int) -> Tensor:
    """Return where each output pixel samples the input.

    Args:
        offset: (B, 2N, h, w) in input pixels, N row offsets before N column offsets.
        points: (N, 2) initial points (row, column).
        stride: distance of output pixels on the input.

    Returns:
        (B, h, w, 2N) rows, then columns; float32, or float64 for float64 offsets: half precision cannot hold positions
        on a map of 160 pixels.
    """
    offset = offset.to(torch.promote_types(offset.dtype, torch.float32)).permute(0, 2, 3, 1)
    height, width, axes = offset.shape[1:]
    rows = torch.arange(height, device=offset.device, dtype=offset.dtype) * stride
    columns = torch.arange(width, device=offset.device, dtype=offset.dtype) * stride
    shape = points.to(offset.dtype).T.reshape(axes)
    is_row = torch.arange(axes, device=offset.device) < axes // 2
    start = torch.where(is_row, rows[:, None, None], columns[:, None])  # (h, w, 2N)
    return offset + (start + shape)


class _Corners(torch.autograd.Function):
    """Positions to corner weights, with a gradient that is the same in every version of torch.

    At a whole position it is that towards the next pixel; where a position was brought back to the border it is 0.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        position: Tensor,
        limit: Tensor,
        zeros: bool,
    ) -> tuple[Tensor, Tensor]:
        """Return indices (B, h, w, 2N, 2) along each axis, int32, and weights of the same shape."""
        lowest, highest = (-1, limit + 1) if zeros else (0, limit)
        # fmax and fmin put the bound in the place of NaN, so that an index is never out of range.
        bounded = torch.fmin(torch.fmax(position, position.new_tensor(lowest)), highest)
        floor = bounded.floor()
        # Adding 0 times the position makes the weight of a non-finite one NaN, and changes no other.
        share = torch.add(bounded - floor, position, alpha=0)
        index = torch.stack((floor, floor + 1), -1)
        weight = torch.stack((1 - share, share), -1)
        limit = limit[:, None]
        inside = position == bounded
        if zeros:
            exists = (index >= 0) & (index <= limit)
            weight = weight * exists
            ctx.save_for_backward(inside, exists)
        else:
            ctx.save_for_backward(inside)
        index = torch.minimum(index.clamp_(min=0), limit).int()
        ctx.mark_non_differentiable(index)
        return index, weight

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, _: Tensor, grad_weight: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        """Return the gradient of the position."""
        inside, *exists = ctx.saved_tensors
        if exists:
            grad_weight = grad_weight * exists[0]
        return (grad_weight[..., 1] - grad_weight[..., 0]) * inside, None, None


def corners(position: Tensor, size_hw: tuple[int, int], *, padding: Padding) -> tuple[Tensor, Tensor]:
    """Return the four pixels around each position and their weights.

    Args:
        position: (B, h, w, 2N) rows, then columns.
        size_hw: height and width of the map.
        padding: `border` brings positions beyond the map back to it, `zeros` gives pixels outside no weight.

    Returns:
        Indices into the B H W pixels of the map, (B, h, w, N, 2, 2) int32 or int64, rows before columns, in range;
        and weights of the same shape, which sum to 1 but for what lies outside in `zeros` mode. The weights of a
        position that is not finite are NaN.
    """
    height, width = size_hw
    batch, axes = position.shape[0], position.shape[-1]
    is_row = torch.arange(axes, device=position.device) < axes // 2
    limit = torch.where(is_row, height - 1, width - 1).to(position.dtype)
    index, weight = _Corners.apply(position, limit, padding == "zeros")
    if batch * height * width > torch.iinfo(torch.int32).max:
        index = index.long()
    row_index, column_index = index.chunk(2, -2)  # (B, h, w, N, 2)
    row_weight, column_weight = weight.chunk(2, -2)
    first = torch.arange(batch, device=index.device, dtype=index.dtype).view(-1, 1, 1, 1, 1) * (height * width)
    pixels = (row_index * width + first)[..., :, None] + column_index[..., None, :]
    return pixels, row_weight[..., :, None] * column_weight[..., None, :]
