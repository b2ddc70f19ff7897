"""The definition of AKConv's sampling: positions, the four pixels around each, and their bilinear weights.

Letters: B batch, (H, W) input size, (h, w) output size, N points.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

Padding = Literal["border", "zeros"]
Neighbours = tuple[Tensor, Tensor, Tensor, Tensor]  # along one axis: low and high index, low and high weight


@dataclass(frozen=True)
class SamplingGrid:
    """The constants of AKConv's sampling, which all implementations take."""

    points: Tensor  # (N, 2) initial points (row, column) in input pixels
    stride: int = 1  # distance of neighbouring output pixels in input pixels
    padding: Padding = "border"  # value outside the map: the nearest border pixel (`border`) or zero (`zeros`)

    def __post_init__(self) -> None:
        if self.padding not in get_args(Padding):
            raise ValueError(f"padding must be one of {get_args(Padding)}, got {self.padding!r}")

    @property
    def num_points(self) -> int:
        """Number of sampling points N."""
        return self.points.shape[0]

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Return (h, w) of the output for a map of (H, W)."""
        return (height - 1) // self.stride + 1, (width - 1) // self.stride + 1

    def positions(self, offset: Tensor) -> tuple[Tensor, Tensor]:
        """Return the positions in the input that each output pixel samples.

        Args:
            offset: (B, 2N, h, w) in input pixels, N row offsets before N column offsets.

        Returns:
            Rows and columns, each (B, h, w, N); float32, or float64 for float64 offsets: half precision cannot
            represent positions on a map of 160 pixels.
        """
        offset = offset.to(torch.promote_types(offset.dtype, torch.float32))
        height, width = offset.shape[-2:]
        row_offset, column_offset = offset.permute(0, 2, 3, 1).chunk(2, -1)
        rows = torch.arange(height, device=offset.device, dtype=offset.dtype) * self.stride
        columns = torch.arange(width, device=offset.device, dtype=offset.dtype) * self.stride
        points = self.points.to(offset.dtype)
        return row_offset + (rows[:, None, None] + points[:, 0]), column_offset + (columns[:, None] + points[:, 1])


class _Axis(torch.autograd.Function):
    """Positions along one axis to their two neighbours and weights, with the same gradient in all versions of torch.

    At an integer position the gradient is that towards the next pixel; at a position clamped to the border it is 0.
    """

    @staticmethod
    def forward(ctx: Any, position: Tensor, size: int, zeros: bool) -> Neighbours:  # noqa: ANN401
        """Return low and high index, int32 in [0, size - 1], and low and high weight."""
        lowest, highest = (-1, size) if zeros else (0, size - 1)
        # fmax and fmin replace NaN by the bound, so that an index is never out of range.
        bounded = torch.fmin(torch.fmax(position, position.new_tensor(lowest)), position.new_tensor(highest))
        floor = bounded.floor()
        # Adding 0 times the position makes the weight of a non-finite position NaN, and changes no other.
        high_weight = torch.add(bounded - floor, position, alpha=0)
        low_weight = 1 - high_weight
        low = floor.int()
        high = low + 1
        unclamped = position == bounded
        if zeros:
            low_inside, high_inside = (low >= 0) & (low < size), high < size
            low_weight, high_weight = low_weight * low_inside, high_weight * high_inside
            ctx.save_for_backward(unclamped & low_inside, unclamped & high_inside)
        else:
            ctx.save_for_backward(unclamped, unclamped)
        # Beyond 2^24 pixels `highest` may be rounded up to a pixel outside the map.
        low, high = low.clamp_(0, size - 1), high.clamp_(max=size - 1)
        ctx.mark_non_differentiable(low, high)
        return low, high, low_weight, high_weight

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        """Return the gradient of the position."""
        low_counts, high_counts = ctx.saved_tensors
        return gradients[3] * high_counts - gradients[2] * low_counts, None, None


def corners(rows: Tensor, columns: Tensor, size_hw: tuple[int, int], *, padding: Padding) -> tuple[Tensor, Tensor]:
    """Return the four pixels around each position (rows and columns, each (B, h, w, N)) and their weights.

    `size_hw` is the size of the map; `border` clamps positions to it, `zeros` gives pixels outside it zero weight.

    Returns:
        Indices into the B H W pixels of the map, (B, h, w, N, 4) int32 or int64, always in range; and weights of the
        same shape, which sum to 1 except outside the map in `zeros` mode. The weights of a non-finite position are
        NaN.
    """
    height, width = size_hw
    batch = rows.shape[0]
    top, bottom, *row_weights = _Axis.apply(rows, height, padding == "zeros")
    if batch * height * width > torch.iinfo(torch.int32).max:
        top, bottom = top.long(), bottom.long()
    first = torch.arange(batch, device=top.device, dtype=top.dtype).view(-1, 1, 1, 1) * (height * width)
    return combine_axes((top, bottom, *row_weights), _Axis.apply(columns, width, padding == "zeros"), first, width)


def combine_axes(rows: Neighbours, columns: Neighbours, first: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Return index and weight, (B, h, w, N, 4), from the neighbours along both axes and each image's first pixel."""
    (top, bottom, top_weight, bottom_weight), (left, right, left_weight, right_weight) = rows, columns
    top, bottom = top * width + first, bottom * width + first
    index = torch.stack((top + left, top + right, bottom + left, bottom + right), -1)
    weights = [row * column for row in (top_weight, bottom_weight) for column in (left_weight, right_weight)]
    return index, torch.stack(weights, -1)
