"""Device functions of AKConv's Triton kernels: sampling positions, bilinear weights and samples.

Letters: B batch, C input channels, O output channels, (H, W) input size, (h, w) output size, N points, M = B h w.

`tl` is triton.language, which launch.py sets at the first call, so that importing this module is cheap and works
without Triton; tl.tensor is a pointer, a number or a block of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import triton.language as tl


def positions(
    offset: tl.tensor, points: tl.tensor, pixel: tl.tensor, mask: tl.tensor, n: tl.tensor,
    height: tl.tensor, width: tl.tensor, out_height: tl.tensor, out_width: tl.tensor,
    num_points: tl.tensor, stride: tl.tensor,
    offset_batch: tl.tensor, offset_point: tl.tensor, offset_row: tl.tensor, offset_column: tl.tensor,
    modulated: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor, tl.tensor]:  # fmt: skip
    """Return rows, columns, first pixel of the image, whether the position is finite, and factor, each (block_m,).

    Positions and factors have the precision of `points`, whatever that of the offsets. A non-finite position is
    returned as 0.
    """
    dtype = points.dtype.element_ty
    j = pixel % out_width
    i = (pixel // out_width) % out_height
    image = pixel // out_width // out_height
    at = image * offset_batch + i * offset_row + j * offset_column
    point = pixel * 0 + n  # as wide as `pixel`, since the product with the stride may need int64
    row_offset = tl.load(offset + at + point * offset_point, mask=mask, other=0).to(dtype)
    column_offset = tl.load(offset + at + (point + num_points) * offset_point, mask=mask, other=0).to(dtype)
    row = row_offset + (i.to(dtype) * stride + tl.load(points + 2 * n))
    column = column_offset + (j.to(dtype) * stride + tl.load(points + 2 * n + 1))
    finite = (tl.abs(row) < float("inf")) & (tl.abs(column) < float("inf"))  # false for NaN
    row = tl.where(finite, row, 0.0)
    column = tl.where(finite, column, 0.0)
    factor = tl.full(row.shape, 1.0, dtype)
    if modulated:
        factor = tl.load(offset + at + (point + 2 * num_points) * offset_point, mask=mask, other=0).to(dtype)
    return row, column, image * (height * width), finite, factor


def corners(
    position: tl.tensor, size: tl.tensor, border: tl.constexpr
) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor]:
    """Return low index, high index, low weight, high weight along one axis; the indices are inside the map."""
    if border:
        position = tl.where(position >= 0, position, 0.0)
        position = tl.where(position <= size - 1, position, size - 1)
        floor = tl.floor(position)
        low = floor.to(tl.int32)
        high_weight = position - floor
        high = tl.where(low + 1 < size, low + 1, size - 1)
        low = tl.where(low < size, low, size - 1)  # beyond 2^24 pixels, `size - 1` may be rounded up
        low_weight = 1 - high_weight
    else:
        # Everything further out is zero, and may not fit into int32.
        position = tl.where(position >= -1, position, -1.0)
        position = tl.where(position <= size, position, size)
        floor = tl.floor(position)
        low = floor.to(tl.int32)
        high = low + 1
        high_weight = position - floor
        low_weight = tl.where((low >= 0) & (low < size), 1 - high_weight, 0.0)
        high_weight = tl.where((high >= 0) & (high < size), high_weight, 0.0)
        low = tl.where(low < 0, 0, tl.where(low < size, low, size - 1))
        high = tl.where(high < size, high, size - 1)
    return low, high, low_weight, high_weight


def corner_gradients(
    position: tl.tensor, size: tl.tensor, border: tl.constexpr, symmetric: tl.constexpr
) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor]:
    """Return the derivatives by the position of the low and the high weight, and the pixel before with its derivative.

    The first two are -1 and 1, or 0 beyond the border. If symmetric, all are 0, 1/2 and -1/2 at an integer position,
    and elsewhere the third one is 0; otherwise it is not to be used.
    """
    if border:
        slope = tl.where((position >= 0) & (position <= size - 1), 1.0, 0.0)
        low_slope = -slope
        high_slope = slope
        previous_slope = -slope
    else:
        # False where a neighbour is outside the map, and where the position is even further out.
        low_slope = tl.where((position >= 0) & (position < size), -1.0, 0.0)
        high_slope = tl.where((position >= -1) & (position < size - 1), 1.0, 0.0)
        previous_slope = tl.where((position >= 1) & (position <= size), -1.0, 0.0)
    if symmetric:
        is_integer = tl.floor(position) == position
        low_slope = tl.where(is_integer, 0.0, low_slope)
        high_slope = tl.where(is_integer, high_slope / 2, high_slope)
        previous_slope = tl.where(is_integer, previous_slope / 2, 0.0)
    previous = tl.where((previous_slope < 0) & (position >= 1), position - 1, 0.0).to(tl.int32)
    return low_slope, high_slope, previous, previous_slope


def blend(
    x: tl.tensor,
    top_left: tl.tensor, top_right: tl.tensor, bottom_left: tl.tensor, bottom_right: tl.tensor,
    top_weight: tl.tensor, bottom_weight: tl.tensor, left_weight: tl.tensor, right_weight: tl.tensor,
    x_stride: tl.tensor, c: tl.tensor, mask: tl.tensor,
) -> tl.tensor:  # fmt: skip
    """Return the samples (block_m, block_c), in the precision of the weights, from four rows of the map."""
    dtype = top_weight.dtype
    channel = c[None, :]
    value = tl.load(x + (top_left * x_stride)[:, None] + channel, mask=mask, other=0).to(dtype)
    total = (top_weight * left_weight)[:, None] * value
    value = tl.load(x + (top_right * x_stride)[:, None] + channel, mask=mask, other=0).to(dtype)
    total += (top_weight * right_weight)[:, None] * value
    value = tl.load(x + (bottom_left * x_stride)[:, None] + channel, mask=mask, other=0).to(dtype)
    total += (bottom_weight * left_weight)[:, None] * value
    value = tl.load(x + (bottom_right * x_stride)[:, None] + channel, mask=mask, other=0).to(dtype)
    total += (bottom_weight * right_weight)[:, None] * value
    return total


def dot_rows(gradient: tl.tensor, at: tl.tensor, mask: tl.tensor) -> tl.tensor:
    """Return the dot products of the rows of `gradient` with the rows of the map at `at`, (block_m,)."""
    return tl.sum(gradient * tl.load(at, mask=mask, other=0).to(gradient.dtype), 1)


def add_rows(at: tl.tensor, gradient: tl.tensor, weight: tl.tensor, mask: tl.tensor) -> None:
    """Add the rows of `gradient`, scaled by their weights, to the rows at `at` atomically."""
    tl.atomic_add(at, gradient * weight.to(gradient.dtype)[:, None], mask=mask, sem="relaxed")


FUNCTIONS = (positions, corners, corner_gradients, blend, dot_rows, add_rows)  # called by the kernels in programs.py
