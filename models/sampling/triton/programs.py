"""The three Triton kernels of AKConv: forward, input gradient, weight gradient. See device.py for letters and `tl`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.sampling.triton.device import add_rows, blend, corner_gradients, corners, dot_rows, positions

if TYPE_CHECKING:
    import triton.language as tl


def forward_kernel(
    x: tl.tensor,  # (B H W, C), rows x_stride apart
    offset: tl.tensor,  # (B, 2N, h, w), with factors (B, 3N, h, w), any strides
    points: tl.tensor,  # (N, 2) in the precision of the positions
    weight: tl.tensor,  # (N, C, O)
    bias: tl.tensor,  # (O,)
    y: tl.tensor,  # (M, O)
    num_pixels: tl.tensor, height: tl.tensor, width: tl.tensor, out_height: tl.tensor, out_width: tl.tensor,
    channels: tl.tensor, out_channels: tl.tensor, num_points: tl.tensor, stride: tl.tensor, x_stride: tl.tensor,
    offset_batch: tl.tensor, offset_point: tl.tensor, offset_row: tl.tensor, offset_column: tl.tensor,
    border: tl.constexpr, modulated: tl.constexpr, wide: tl.constexpr, double: tl.constexpr, precision: tl.constexpr,
    has_bias: tl.constexpr,
    block_m: tl.constexpr, block_o: tl.constexpr, block_c: tl.constexpr,
) -> None:  # fmt: skip
    """Write a tile (block_m, block_o) of the output."""
    # Neighbouring programs share pixels, so that the rows they gather are still in the cache.
    tiles = (out_channels + block_o - 1) // block_o
    tile = tl.program_id(0) // tiles
    if wide:
        tile = tile.to(tl.int64)
    pixel = tile * block_m + tl.arange(0, block_m)
    o = (tl.program_id(0) % tiles) * block_o + tl.arange(0, block_o)
    pixel_mask = pixel < num_pixels
    o_mask = o < out_channels
    total = tl.zeros((block_m, block_o), tl.float64 if double else tl.float32)
    for n in range(num_points):
        row, column, first, finite, factor = positions(
            offset, points, pixel, pixel_mask, n, height, width, out_height, out_width, num_points, stride,
            offset_batch, offset_point, offset_row, offset_column, modulated,
        )  # fmt: skip
        top, bottom, top_weight, bottom_weight = corners(row, height, border)
        left, right, left_weight, right_weight = corners(column, width, border)
        top_weight = factor * tl.where(finite, top_weight, float("nan"))
        bottom_weight = factor * bottom_weight
        top, bottom = first + top * width, first + bottom * width
        for start in range(0, channels, block_c):
            c = start + tl.arange(0, block_c)
            c_mask = c < channels
            samples = blend(
                x, top + left, top + right, bottom + left, bottom + right,
                top_weight, bottom_weight, left_weight, right_weight,
                x_stride, c, pixel_mask[:, None] & c_mask[None, :],
            )  # fmt: skip
            matrix = tl.load(
                weight + (n * channels + c)[:, None] * out_channels + o[None, :],
                mask=c_mask[:, None] & o_mask[None, :],
                other=0,
            )
            total = tl.dot(samples.to(matrix.dtype), matrix, total, input_precision=precision, out_dtype=total.dtype)
    if has_bias:
        total += tl.load(bias + o, mask=o_mask, other=0).to(total.dtype)[None, :]
    at = y + pixel[:, None] * out_channels + o[None, :]
    tl.store(at, total.to(y.dtype.element_ty), mask=pixel_mask[:, None] & o_mask[None, :])


def input_gradient_kernel(
    grad_y: tl.tensor,  # (M, O), rows grad_stride apart
    x: tl.tensor,
    offset: tl.tensor,
    points: tl.tensor,
    weight: tl.tensor,  # (N, O, C)
    grad_x: tl.tensor,  # (B H W, C), zeros; deterministic: the gradient of the columns, (M, N, C)
    grad_offset: tl.tensor,  # (B, 2N or 3N, h, w), any strides
    corner: tl.tensor,  # deterministic: (M, N, 4) int64, the pixels that each column reads
    corner_weight: tl.tensor,  # deterministic: (M, N, 4), the weight of each of these pixels
    num_pixels: tl.tensor, height: tl.tensor, width: tl.tensor, out_height: tl.tensor, out_width: tl.tensor,
    channels: tl.tensor, out_channels: tl.tensor, num_points: tl.tensor, stride: tl.tensor, x_stride: tl.tensor,
    offset_batch: tl.tensor, offset_point: tl.tensor, offset_row: tl.tensor, offset_column: tl.tensor,
    grad_stride: tl.tensor, grad_offset_batch: tl.tensor, grad_offset_point: tl.tensor, grad_offset_row: tl.tensor,
    grad_offset_column: tl.tensor,
    border: tl.constexpr, modulated: tl.constexpr, wide: tl.constexpr, double: tl.constexpr, precision: tl.constexpr,
    symmetric: tl.constexpr, needs_x: tl.constexpr, needs_offset: tl.constexpr, deterministic: tl.constexpr,
    block_m: tl.constexpr, block_o: tl.constexpr, block_c: tl.constexpr,
) -> None:  # fmt: skip
    """For one point of a tile of pixels, add to the gradient of the map and write the gradient of the offsets."""
    n = tl.program_id(0) % num_points
    tile = tl.program_id(0) // num_points
    if wide:
        tile = tile.to(tl.int64)
    pixel = tile * block_m + tl.arange(0, block_m)
    pixel_mask = pixel < num_pixels
    row, column, first, finite, factor = positions(
        offset, points, pixel, pixel_mask, n, height, width, out_height, out_width, num_points, stride,
        offset_batch, offset_point, offset_row, offset_column, modulated,
    )  # fmt: skip
    top, bottom, top_weight, bottom_weight = corners(row, height, border)
    left, right, left_weight, right_weight = corners(column, width, border)
    top_left, top_right = first + top * width + left, first + top * width + right
    bottom_left, bottom_right = first + bottom * width + left, first + bottom * width + right
    # Non-finite positions contribute nothing to the gradient of the map.
    spread_left = factor * tl.where(finite, left_weight, 0.0)
    spread_right = factor * tl.where(finite, right_weight, 0.0)
    if needs_x and deterministic:
        entry = (pixel * num_points + n) * 4
        tl.store(corner + entry, top_left.to(tl.int64), mask=pixel_mask)
        tl.store(corner + entry + 1, top_right.to(tl.int64), mask=pixel_mask)
        tl.store(corner + entry + 2, bottom_left.to(tl.int64), mask=pixel_mask)
        tl.store(corner + entry + 3, bottom_right.to(tl.int64), mask=pixel_mask)
        tl.store(corner_weight + entry, top_weight * spread_left, mask=pixel_mask)
        tl.store(corner_weight + entry + 1, top_weight * spread_right, mask=pixel_mask)
        tl.store(corner_weight + entry + 2, bottom_weight * spread_left, mask=pixel_mask)
        tl.store(corner_weight + entry + 3, bottom_weight * spread_right, mask=pixel_mask)
    # Gradient times map at each corner; the derivative by the position is assembled from these at the end.
    dot_top_left = tl.zeros((block_m,), tl.float64 if double else tl.float32)
    dot_top_right = tl.zeros((block_m,), tl.float64 if double else tl.float32)
    dot_bottom_left = tl.zeros((block_m,), tl.float64 if double else tl.float32)
    dot_bottom_right = tl.zeros((block_m,), tl.float64 if double else tl.float32)
    top_derivative, bottom_derivative, above, above_derivative = corner_gradients(row, height, border, symmetric)
    left_derivative, right_derivative, before, before_derivative = corner_gradients(column, width, border, symmetric)
    # For a symmetric gradient: the pixels above and before the four corners.
    above_left, above_right = first + above * width + left, first + above * width + right
    before_top, before_bottom = first + top * width + before, first + bottom * width + before
    dot_above = tl.zeros((block_m,), tl.float64 if double else tl.float32)
    dot_before = tl.zeros((block_m,), tl.float64 if double else tl.float32)
    for start in range(0, channels, block_c):
        c = start + tl.arange(0, block_c)
        c_mask = c < channels
        mask = pixel_mask[:, None] & c_mask[None, :]
        channel = c[None, :]
        gradient = tl.zeros((block_m, block_c), tl.float64 if double else tl.float32)  # of the columns
        for o_start in range(0, out_channels, block_o):
            o = o_start + tl.arange(0, block_o)
            o_mask = o < out_channels
            matrix = tl.load(
                weight + (n * out_channels + o)[:, None] * channels + channel,
                mask=o_mask[:, None] & c_mask[None, :],
                other=0,
            )
            upper = tl.load(
                grad_y + (pixel * grad_stride)[:, None] + o[None, :],
                mask=pixel_mask[:, None] & o_mask[None, :],
                other=0,
            )
            gradient = tl.dot(upper, matrix, gradient, input_precision=precision, out_dtype=gradient.dtype)
        if needs_x:
            if deterministic:
                place = grad_x + ((pixel * num_points + n) * channels)[:, None] + channel
                tl.store(place, gradient, mask=mask)
            else:
                place = grad_x + channel
                add_rows(place + (top_left * channels)[:, None], gradient, top_weight * spread_left, mask)
                add_rows(place + (top_right * channels)[:, None], gradient, top_weight * spread_right, mask)
                add_rows(place + (bottom_left * channels)[:, None], gradient, bottom_weight * spread_left, mask)
                add_rows(place + (bottom_right * channels)[:, None], gradient, bottom_weight * spread_right, mask)
        if needs_offset:
            dot_top_left += dot_rows(gradient, x + (top_left * x_stride)[:, None] + channel, mask)
            dot_top_right += dot_rows(gradient, x + (top_right * x_stride)[:, None] + channel, mask)
            dot_bottom_left += dot_rows(gradient, x + (bottom_left * x_stride)[:, None] + channel, mask)
            dot_bottom_right += dot_rows(gradient, x + (bottom_right * x_stride)[:, None] + channel, mask)
        if needs_offset and symmetric:
            dot_above += left_weight * dot_rows(gradient, x + (above_left * x_stride)[:, None] + channel, mask)
            dot_above += right_weight * dot_rows(gradient, x + (above_right * x_stride)[:, None] + channel, mask)
            dot_before += top_weight * dot_rows(gradient, x + (before_top * x_stride)[:, None] + channel, mask)
            dot_before += bottom_weight * dot_rows(gradient, x + (before_bottom * x_stride)[:, None] + channel, mask)
    if needs_offset:
        dot_top = left_weight * dot_top_left + right_weight * dot_top_right
        dot_bottom = left_weight * dot_bottom_left + right_weight * dot_bottom_right
        row_gradient = top_derivative * dot_top
        row_gradient += bottom_derivative * dot_bottom
        column_gradient = left_derivative * (top_weight * dot_top_left + bottom_weight * dot_bottom_left)
        column_gradient += right_derivative * (top_weight * dot_top_right + bottom_weight * dot_bottom_right)
        if symmetric:
            row_gradient += above_derivative * dot_above
            column_gradient += before_derivative * dot_before
        i = (pixel // out_width) % out_height
        at = pixel // out_width // out_height * grad_offset_batch
        at += i * grad_offset_row + pixel % out_width * grad_offset_column
        point = pixel * 0 + n
        dtype = grad_offset.dtype.element_ty
        value = tl.where(finite, factor * row_gradient, 0.0).to(dtype)
        tl.store(grad_offset + at + point * grad_offset_point, value, mask=pixel_mask)
        value = tl.where(finite, factor * column_gradient, 0.0).to(dtype)
        tl.store(grad_offset + at + (point + num_points) * grad_offset_point, value, mask=pixel_mask)
        if modulated:
            value = tl.where(finite, top_weight * dot_top + bottom_weight * dot_bottom, 0.0).to(dtype)
            tl.store(grad_offset + at + (point + 2 * num_points) * grad_offset_point, value, mask=pixel_mask)


def weight_gradient_kernel(
    grad_y: tl.tensor,  # (M, O), rows grad_stride apart
    x: tl.tensor,
    offset: tl.tensor,
    points: tl.tensor,
    partial: tl.tensor,  # (splits, N, C, O)
    num_pixels: tl.tensor, height: tl.tensor, width: tl.tensor, out_height: tl.tensor, out_width: tl.tensor,
    channels: tl.tensor, out_channels: tl.tensor, num_points: tl.tensor, stride: tl.tensor, x_stride: tl.tensor,
    offset_batch: tl.tensor, offset_point: tl.tensor, offset_row: tl.tensor, offset_column: tl.tensor,
    grad_stride: tl.tensor, splits: tl.tensor,
    border: tl.constexpr, modulated: tl.constexpr, wide: tl.constexpr, double: tl.constexpr, precision: tl.constexpr,
    block_m: tl.constexpr, block_o: tl.constexpr, block_c: tl.constexpr,
) -> None:  # fmt: skip
    """Sum columns times gradient over every splits-th tile of pixels, for a tile (block_c, block_o) of one point."""
    o_tiles = (out_channels + block_o - 1) // block_o
    c_tiles = (channels + block_c - 1) // block_c
    program = tl.program_id(0)
    o = (program % o_tiles) * block_o + tl.arange(0, block_o)
    program = program // o_tiles
    c = (program % c_tiles) * block_c + tl.arange(0, block_c)
    program = program // c_tiles
    n = program % num_points
    split = program // num_points
    o_mask = o < out_channels
    c_mask = c < channels
    total = tl.zeros((block_c, block_o), tl.float64 if double else tl.float32)
    for start in range(split * block_m, num_pixels, splits * block_m):
        pixel = start + tl.arange(0, block_m)
        if wide:
            pixel = pixel.to(tl.int64)
        pixel_mask = pixel < num_pixels
        row, column, first, finite, factor = positions(
            offset, points, pixel, pixel_mask, n, height, width, out_height, out_width, num_points, stride,
            offset_batch, offset_point, offset_row, offset_column, modulated,
        )  # fmt: skip
        top, bottom, top_weight, bottom_weight = corners(row, height, border)
        left, right, left_weight, right_weight = corners(column, width, border)
        top_weight = factor * tl.where(finite, top_weight, float("nan"))
        bottom_weight = factor * bottom_weight
        top, bottom = first + top * width, first + bottom * width
        samples = blend(
            x, top + left, top + right, bottom + left, bottom + right,
            top_weight, bottom_weight, left_weight, right_weight,
            x_stride, c, pixel_mask[:, None] & c_mask[None, :],
        )  # fmt: skip
        upper = tl.load(
            grad_y + (pixel * grad_stride)[:, None] + o[None, :], mask=pixel_mask[:, None] & o_mask[None, :], other=0
        )
        samples = tl.trans(samples.to(upper.dtype))
        total = tl.dot(samples, upper, total, input_precision=precision, out_dtype=total.dtype)
    at = partial + ((split * num_points + n) * channels + c)[:, None] * out_channels + o[None, :]
    tl.store(at, total, mask=c_mask[:, None] & o_mask[None, :])
