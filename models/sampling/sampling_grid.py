"""The definition of AKConv's sampling: positions, the four pixels around each, and their bilinear weights.

Letters: B batch, (H, W) input size, (h, w) output size, N points.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

Padding = Literal["border", "zeros"]
Gradient = Literal["one_sided", "symmetric"]
MAX_SIDE = 2**30  # pixels of a map's height or width, which are counted in int32; `MAX_SIDE` of vectors.c
PADDINGS, GRADIENTS = get_args(Padding), get_args(Gradient)
# Along one axis: low and high index, low and high weight; for a symmetric gradient also the index before the low one
# and its weight, which is 0 but has a gradient.
Neighbours = tuple[Tensor, ...]


@dataclass(frozen=True)
class SamplingGrid:
    """The constants of AKConv's sampling, which all implementations take."""

    points: Tensor  # (N, 2) initial points (row, column) in input pixels
    stride: int = 1  # distance of neighbouring output pixels in input pixels
    padding: Padding = "border"  # value outside the map: the nearest border pixel (`border`) or zero (`zeros`)
    modulated: bool = False  # whether N factors, one for each sample, follow the 2N offsets
    gradient: Gradient = "one_sided"  # of an integer position: towards the next pixel, or the mean of both sides

    def __post_init__(self) -> None:
        if self.padding not in PADDINGS:
            raise ValueError(f"padding must be one of {PADDINGS}, got {self.padding!r}")
        if self.gradient not in GRADIENTS:
            raise ValueError(f"gradient must be one of {GRADIENTS}, got {self.gradient!r}")

    @property
    def num_points(self) -> int:
        """Number of sampling points N."""
        return self.points.shape[0]

    @property
    def offset_channels(self) -> int:
        """Number of channels of the offsets: 2N, or with factors 3N."""
        return (3 if self.modulated else 2) * self.num_points

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Return (h, w) of the output for a map of (H, W)."""
        return (height - 1) // self.stride + 1, (width - 1) // self.stride + 1

    def positions(self, offset: Tensor) -> tuple[Tensor, Tensor]:
        """Return the positions in the input that each output pixel samples.

        Args:
            offset: (B, 2N or more, h, w) in input pixels, N row offsets before N column offsets.

        Returns:
            Rows and columns, each (B, h, w, N); float32, or float64 for float64 offsets: half precision cannot
            represent positions on a map of 160 pixels.
        """
        offset = offset.to(torch.promote_types(offset.dtype, torch.float32))
        height, width = offset.shape[-2:]
        row_offset, column_offset = offset.permute(0, 2, 3, 1).split(self.num_points, -1)[:2]
        rows = torch.arange(height, device=offset.device, dtype=offset.dtype) * self.stride
        columns = torch.arange(width, device=offset.device, dtype=offset.dtype) * self.stride
        points = self.points.to(offset.dtype)
        return row_offset + (rows[:, None, None] + points[:, 0]), column_offset + (columns[:, None] + points[:, 1])

    def factors(self, offset: Tensor) -> Tensor:
        """Return the factor of each sample, (B, h, w, N), in the precision of the positions."""
        factors = offset[:, 2 * self.num_points :].permute(0, 2, 3, 1)
        return factors.to(torch.promote_types(offset.dtype, torch.float32))


class _Axis(torch.autograd.Function):
    """Positions along one axis to their two neighbours and weights, with the same gradient in all versions of torch.

    At an integer position the gradient is that towards the next pixel, or `symmetric`: the mean of this and that from
    the previous one. At a position clamped to the border it is 0.
    """

    @staticmethod
    def forward(ctx: Any, position: Tensor, size: int, zeros: bool, symmetric: bool) -> Neighbours:  # noqa: ANN401
        """Return the indices, int32 in [0, size - 1], and the weights of the neighbours."""
        lowest, highest = (-1, size) if zeros else (0, size - 1)
        # fmax and fmin replace NaN by the bound, so that an index is never out of range.
        bounded = torch.fmin(torch.fmax(position, position.new_tensor(lowest)), position.new_tensor(highest))
        floor = bounded.floor()
        # Adding 0 times the position makes the weight of a non-finite position NaN, and changes no other.
        high_weight = torch.add(bounded - floor, position, alpha=0)
        low_weight = 1 - high_weight
        low = floor.int()
        high = low + 1
        previous = low - 1
        unclamped = low_counts = high_counts = previous_counts = position == bounded
        if zeros:
            low_inside, high_inside = (low >= 0) & (low < size), high < size
            low_weight, high_weight = low_weight * low_inside, high_weight * high_inside
            low_counts, high_counts = unclamped & low_inside, unclamped & high_inside
            previous_counts = unclamped & (previous >= 0) & (previous < size)
        # Beyond 2^24 pixels `highest` may be rounded up to a pixel outside the map.
        low, high = low.clamp_(0, size - 1), high.clamp_(max=size - 1)
        if not symmetric:
            ctx.save_for_backward(low_counts, high_counts)
            ctx.mark_non_differentiable(low, high)
            return low, high, low_weight, high_weight
        ctx.save_for_backward(low_counts, high_counts, previous_counts, floor == bounded)
        previous = previous.clamp_(0, size - 1)
        ctx.mark_non_differentiable(low, high, previous)
        return low, high, low_weight, high_weight, previous, torch.zeros_like(low_weight)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        """Return the gradient of the position."""
        low_counts, high_counts, *symmetric = ctx.saved_tensors
        gradient = gradients[3] * high_counts - gradients[2] * low_counts
        if symmetric:
            previous_counts, is_integer = symmetric
            both_sides = (gradients[3] * high_counts - gradients[5] * previous_counts) / 2
            gradient = torch.where(is_integer, both_sides, gradient)
        return gradient, None, None, None


def corners(rows: Tensor, columns: Tensor, size_hw: tuple[int, int], grid: SamplingGrid) -> tuple[Tensor, Tensor]:
    """Return the four pixels around each position (rows and columns, each (B, h, w, N)) and their weights.

    `size_hw` is the size of the map; `border` clamps positions to it, `zeros` gives pixels outside it zero weight.

    Returns:
        Indices into the B H W pixels of the map, (B, h, w, N, 4) int32 or int64, always in range; and weights of the
        same shape, which sum to 1 except outside the map in `zeros` mode. The weights of a non-finite position are
        NaN. With a symmetric gradient, four more pixels per position with weight 0, which only have gradients.
    """
    height, width = size_hw
    batch, num_points = rows.shape[0], rows.shape[3]
    options = grid.padding == "zeros", grid.gradient == "symmetric"
    by_row, by_column = _Axis.apply(rows, height, *options), _Axis.apply(columns, width, *options)
    # `embedding_bag` counts a row for each point of a pixel, and the entries of this index, eight for each position.
    largest = max(batch * height * width * num_points, 8 * rows.numel())
    dtype = torch.int64 if largest > torch.iinfo(torch.int32).max else torch.int32
    first = torch.arange(batch, device=rows.device, dtype=dtype).view(-1, 1, 1, 1) * (height * width)
    return combine_axes(by_row, by_column, first, width)


def combine_axes(rows: Neighbours, columns: Neighbours, first: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Return index and weight, (B, h, w, N, 4 or 8), from neighbours along both axes and each image's first pixel."""
    (top, bottom, top_weight, bottom_weight, *above), (left, right, left_weight, right_weight, *before) = rows, columns
    top, bottom = (row.to(first.dtype) * width + first for row in (top, bottom))
    index = [top + left, top + right, bottom + left, bottom + right]
    weights = [row * column for row in (top_weight, bottom_weight) for column in (left_weight, right_weight)]
    if above:
        row = above[0].to(first.dtype) * width + first
        index += [row + left, row + right, top + before[0], bottom + before[0]]
        weights += [above[1] * left_weight, above[1] * right_weight, top_weight * before[1], bottom_weight * before[1]]
    return torch.stack(index, -1), torch.stack(weights, -1)
