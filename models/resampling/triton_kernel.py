"""AKConv as fused Triton kernels: positions, bilinear sampling and the column product in one pass over the map.

The function is `ak_conv2d_triton`; what it computes is defined in docs/akconv.md, and `bags.py` is
the same in plain torch. The columns (B, h, w, N, C) never reach memory in the forward pass: a program samples a tile
of output pixels, channel chunk by channel chunk, and multiplies it by the weight at once. The backward pass samples
again, for keeping the columns would cost N times the memory of the map.

Letters: B batch, C input channels, O output channels, (H, W) input size, (h, w) output size, N points, M = B h w.

Nothing of Triton is imported before the first call, so that importing this module is cheap and works without Triton.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.resampling.positions import Padding

if TYPE_CHECKING:
    import triton.language as tl

Gradients = tuple[Tensor, Tensor, Tensor]

WIDE_FROM = 2**30  # elements, from which int32 indices could overflow
TARGET_PROGRAMS = 1024  # about 8 for each multiprocessor of a large GPU
MAX_PARTIAL_ELEMENTS = 2**24  # 64 MB of partial sums of the weight gradient

# In the kernels `tl` is triton.language, put here by _kernels(), and tl.tensor a pointer, a number or a block of them.


def _positions(
    offset: tl.tensor,
    points: tl.tensor,
    pixel: tl.tensor,
    mask: tl.tensor,
    n: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    out_height: tl.tensor,
    out_width: tl.tensor,
    num_points: tl.tensor,
    stride: tl.tensor,
    offset_batch: tl.tensor,
    offset_point: tl.tensor,
    offset_row: tl.tensor,
    offset_column: tl.tensor,
) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor]:
    """Return rows, columns, the first map pixel of the image, and whether the position is finite, each (block_m,).

    The precision is that of `points`, whatever that of the offsets. A position that is not finite comes back as 0.
    """
    dtype = points.dtype.element_ty
    j = pixel % out_width
    i = (pixel // out_width) % out_height
    image = pixel // out_width // out_height
    at = image * offset_batch + i * offset_row + j * offset_column
    point = pixel * 0 + n  # in the width of `pixel`, as the product with the stride may need it
    row_offset = tl.load(offset + at + point * offset_point, mask=mask, other=0).to(dtype)
    column_offset = tl.load(offset + at + (point + num_points) * offset_point, mask=mask, other=0).to(dtype)
    row = row_offset + (i.to(dtype) * stride + tl.load(points + 2 * n))
    column = column_offset + (j.to(dtype) * stride + tl.load(points + 2 * n + 1))
    finite = (tl.abs(row) < float("inf")) & (tl.abs(column) < float("inf"))  # false for NaN
    return tl.where(finite, row, 0.0), tl.where(finite, column, 0.0), image * (height * width), finite


def _corners(
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
        low_weight = 1 - high_weight
    else:
        position = tl.where(position >= -1, position, -1.0)  # further out all is zero, and int32 may not hold it
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


def _slopes(position: tl.tensor, size: tl.tensor, border: tl.constexpr) -> tuple[tl.tensor, tl.tensor]:
    """Return the derivatives of the low and the high weight: -1 and 1, but 0 beyond the border."""
    if border:
        slope = tl.where((position >= 0) & (position <= size - 1), 1.0, 0.0)
        low_slope = -slope
        high_slope = slope
    else:
        # The comparisons are false where a neighbour is outside the map, and where the position is still further out.
        low_slope = tl.where((position >= 0) & (position < size), -1.0, 0.0)
        high_slope = tl.where((position >= -1) & (position < size - 1), 1.0, 0.0)
    return low_slope, high_slope


def _blend(
    x: tl.tensor,
    top_left: tl.tensor,
    top_right: tl.tensor,
    bottom_left: tl.tensor,
    bottom_right: tl.tensor,
    top_weight: tl.tensor,
    bottom_weight: tl.tensor,
    left_weight: tl.tensor,
    right_weight: tl.tensor,
    x_stride: tl.tensor,
    c: tl.tensor,
    mask: tl.tensor,
) -> tl.tensor:
    """Return the samples (block_m, block_c) in the precision of the weights, read from four rows of the map."""
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


def _dot_rows(gradient: tl.tensor, at: tl.tensor, mask: tl.tensor) -> tl.tensor:
    """Return the products of the rows of `gradient` with the rows of the map at `at`, (block_m,)."""
    return tl.sum(gradient * tl.load(at, mask=mask, other=0).to(gradient.dtype), 1)


def _add_rows(at: tl.tensor, gradient: tl.tensor, weight: tl.tensor, mask: tl.tensor) -> None:
    """Add the rows of `gradient`, each times its weight, to the rows at `at`."""
    tl.atomic_add(at, gradient * weight.to(gradient.dtype)[:, None], mask=mask, sem="relaxed")


def _forward_kernel(
    x: tl.tensor,  # (B H W, C), rows x_stride apart
    offset: tl.tensor,  # (B, 2N, h, w), any strides
    points: tl.tensor,  # (N, 2) in the precision of the positions
    weight: tl.tensor,  # (N, C, O)
    bias: tl.tensor,  # (O,)
    y: tl.tensor,  # (M, O)
    num_pixels: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    out_height: tl.tensor,
    out_width: tl.tensor,
    channels: tl.tensor,
    out_channels: tl.tensor,
    num_points: tl.tensor,
    stride: tl.tensor,
    x_stride: tl.tensor,
    offset_batch: tl.tensor,
    offset_point: tl.tensor,
    offset_row: tl.tensor,
    offset_column: tl.tensor,
    border: tl.constexpr,
    wide: tl.constexpr,
    double: tl.constexpr,
    precision: tl.constexpr,
    has_bias: tl.constexpr,
    block_m: tl.constexpr,
    block_o: tl.constexpr,
    block_c: tl.constexpr,
) -> None:
    """Write a tile (block_m, block_o) of the output."""
    # Programs that share pixels are neighbours, so that the rows they gather are still in the cache.
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
        row, column, first, finite = _positions(
            offset, points, pixel, pixel_mask, n, height, width, out_height, out_width, num_points, stride,
            offset_batch, offset_point, offset_row, offset_column,
        )  # fmt: skip
        top, bottom, top_weight, bottom_weight = _corners(row, height, border)
        left, right, left_weight, right_weight = _corners(column, width, border)
        top_weight = tl.where(finite, top_weight, float("nan"))
        top, bottom = first + top * width, first + bottom * width
        for start in range(0, channels, block_c):
            c = start + tl.arange(0, block_c)
            c_mask = c < channels
            samples = _blend(
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


def _input_gradient_kernel(
    grad_y: tl.tensor,  # (M, O), rows grad_stride apart
    x: tl.tensor,
    offset: tl.tensor,
    points: tl.tensor,
    weight: tl.tensor,  # (N, O, C)
    grad_x: tl.tensor,  # (B H W, C), zero; deterministic: the gradient of the columns, (M, N, C)
    grad_offset: tl.tensor,  # (B, 2N, h, w), any strides
    corner: tl.tensor,  # deterministic: (M, N, 4) int64, the pixels that each column reads
    corner_weight: tl.tensor,  # deterministic: (M, N, 4), and with which weight
    num_pixels: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    out_height: tl.tensor,
    out_width: tl.tensor,
    channels: tl.tensor,
    out_channels: tl.tensor,
    num_points: tl.tensor,
    stride: tl.tensor,
    x_stride: tl.tensor,
    offset_batch: tl.tensor,
    offset_point: tl.tensor,
    offset_row: tl.tensor,
    offset_column: tl.tensor,
    grad_stride: tl.tensor,
    grad_offset_batch: tl.tensor,
    grad_offset_point: tl.tensor,
    grad_offset_row: tl.tensor,
    grad_offset_column: tl.tensor,
    border: tl.constexpr,
    wide: tl.constexpr,
    double: tl.constexpr,
    precision: tl.constexpr,
    needs_x: tl.constexpr,
    needs_offset: tl.constexpr,
    deterministic: tl.constexpr,
    block_m: tl.constexpr,
    block_o: tl.constexpr,
    block_c: tl.constexpr,
) -> None:
    """For one point of a tile of pixels, spread the gradient over the map, and write the gradient of the offsets."""
    n = tl.program_id(0) % num_points
    tile = tl.program_id(0) // num_points
    if wide:
        tile = tile.to(tl.int64)
    pixel = tile * block_m + tl.arange(0, block_m)
    pixel_mask = pixel < num_pixels
    row, column, first, finite = _positions(
        offset, points, pixel, pixel_mask, n, height, width, out_height, out_width, num_points, stride,
        offset_batch, offset_point, offset_row, offset_column,
    )  # fmt: skip
    top, bottom, top_weight, bottom_weight = _corners(row, height, border)
    left, right, left_weight, right_weight = _corners(column, width, border)
    top_left, top_right = first + top * width + left, first + top * width + right
    bottom_left, bottom_right = first + bottom * width + left, first + bottom * width + right
    # Weights for spreading: nothing comes from a position that is not finite.
    spread_left = tl.where(finite, left_weight, 0.0)
    spread_right = tl.where(finite, right_weight, 0.0)
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
    # Gradient times map at each corner; the derivative by the position is put together from these at the end.
    dot_top_left = tl.zeros((block_m,), tl.float64 if double else tl.float32)
    dot_top_right = tl.zeros((block_m,), tl.float64 if double else tl.float32)
    dot_bottom_left = tl.zeros((block_m,), tl.float64 if double else tl.float32)
    dot_bottom_right = tl.zeros((block_m,), tl.float64 if double else tl.float32)
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
                _add_rows(place + (top_left * channels)[:, None], gradient, top_weight * spread_left, mask)
                _add_rows(place + (top_right * channels)[:, None], gradient, top_weight * spread_right, mask)
                _add_rows(place + (bottom_left * channels)[:, None], gradient, bottom_weight * spread_left, mask)
                _add_rows(place + (bottom_right * channels)[:, None], gradient, bottom_weight * spread_right, mask)
        if needs_offset:
            dot_top_left += _dot_rows(gradient, x + (top_left * x_stride)[:, None] + channel, mask)
            dot_top_right += _dot_rows(gradient, x + (top_right * x_stride)[:, None] + channel, mask)
            dot_bottom_left += _dot_rows(gradient, x + (bottom_left * x_stride)[:, None] + channel, mask)
            dot_bottom_right += _dot_rows(gradient, x + (bottom_right * x_stride)[:, None] + channel, mask)
    if needs_offset:
        top_slope, bottom_slope = _slopes(row, height, border)
        left_slope, right_slope = _slopes(column, width, border)
        row_gradient = top_slope * (left_weight * dot_top_left + right_weight * dot_top_right)
        row_gradient += bottom_slope * (left_weight * dot_bottom_left + right_weight * dot_bottom_right)
        column_gradient = left_slope * (top_weight * dot_top_left + bottom_weight * dot_bottom_left)
        column_gradient += right_slope * (top_weight * dot_top_right + bottom_weight * dot_bottom_right)
        i = (pixel // out_width) % out_height
        at = pixel // out_width // out_height * grad_offset_batch
        at += i * grad_offset_row + pixel % out_width * grad_offset_column
        point = pixel * 0 + n
        dtype = grad_offset.dtype.element_ty
        value = tl.where(finite, row_gradient, 0.0).to(dtype)
        tl.store(grad_offset + at + point * grad_offset_point, value, mask=pixel_mask)
        value = tl.where(finite, column_gradient, 0.0).to(dtype)
        tl.store(grad_offset + at + (point + num_points) * grad_offset_point, value, mask=pixel_mask)


def _weight_gradient_kernel(
    grad_y: tl.tensor,  # (M, O), rows grad_stride apart
    x: tl.tensor,
    offset: tl.tensor,
    points: tl.tensor,
    partial: tl.tensor,  # (splits, N, C, O)
    num_pixels: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    out_height: tl.tensor,
    out_width: tl.tensor,
    channels: tl.tensor,
    out_channels: tl.tensor,
    num_points: tl.tensor,
    stride: tl.tensor,
    x_stride: tl.tensor,
    offset_batch: tl.tensor,
    offset_point: tl.tensor,
    offset_row: tl.tensor,
    offset_column: tl.tensor,
    grad_stride: tl.tensor,
    splits: tl.tensor,
    border: tl.constexpr,
    wide: tl.constexpr,
    double: tl.constexpr,
    precision: tl.constexpr,
    block_m: tl.constexpr,
    block_o: tl.constexpr,
    block_c: tl.constexpr,
) -> None:
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
        row, column, first, finite = _positions(
            offset, points, pixel, pixel_mask, n, height, width, out_height, out_width, num_points, stride,
            offset_batch, offset_point, offset_row, offset_column,
        )  # fmt: skip
        top, bottom, top_weight, bottom_weight = _corners(row, height, border)
        left, right, left_weight, right_weight = _corners(column, width, border)
        top_weight = tl.where(finite, top_weight, float("nan"))
        top, bottom = first + top * width, first + bottom * width
        samples = _blend(
            x, top + left, top + right, bottom + left, bottom + right,
            top_weight, bottom_weight, left_weight, right_weight,
            x_stride, c, pixel_mask[:, None] & c_mask[None, :],
        )  # fmt: skip
        upper = tl.load(
            grad_y + (pixel * grad_stride)[:, None] + o[None, :],
            mask=pixel_mask[:, None] & o_mask[None, :],
            other=0,
        )
        samples = tl.trans(samples.to(upper.dtype))
        total = tl.dot(samples, upper, total, input_precision=precision, out_dtype=total.dtype)
    at = partial + ((split * num_points + n) * channels + c)[:, None] * out_channels + o[None, :]
    tl.store(at, total, mask=c_mask[:, None] & o_mask[None, :])


# A kernel is compiled again for numbers that are 1 or multiples of 16. That helps where rows are read, but for these it
# would only mean that many map sizes, as in multi-scale training, compile many times.
UNSPECIALIZED = (
    *("num_pixels", "height", "width", "out_height", "out_width", "num_points", "stride", "splits"),
    *("offset_batch", "offset_point", "offset_row", "offset_column"),
    *("grad_offset_batch", "grad_offset_point", "grad_offset_row", "grad_offset_column"),
)


class _Tile(NamedTuple):
    """Block sizes of one kernel; `pixels`, `outputs` and `channels` are powers of two from 16."""

    pixels: int
    outputs: int
    channels: int
    warps: int

    def clamped(self, out_channels: int, channels: int) -> _Tile:
        """Return the tile without blocks that would be more than half empty."""
        outputs, channels = (max(16, 1 << (size - 1).bit_length()) for size in (out_channels, channels))
        return self._replace(outputs=min(self.outputs, outputs), channels=min(self.channels, channels))

    def arguments(self) -> dict[str, int]:
        """Return the arguments of the kernel that the tile stands for."""
        return {"block_m": self.pixels, "block_o": self.outputs, "block_c": self.channels}


# The first of each is taken where nothing is tuned, the others are tried once for each (C, O, N, dtype).
FORWARD_TILES = (
    _Tile(64, 64, 32, 4),
    _Tile(64, 128, 32, 4),
    _Tile(64, 128, 64, 8),
    _Tile(128, 64, 32, 8),
    _Tile(32, 64, 64, 4),
)
INPUT_GRADIENT_TILES = (_Tile(64, 64, 32, 8), _Tile(32, 64, 32, 4), _Tile(64, 32, 32, 4), _Tile(32, 64, 64, 8))
DOUBLE_TILE = _Tile(32, 32, 16, 4)  # float64 is for checking gradients: small enough for any GPU
WEIGHT_GRADIENT_TILES = (_Tile(32, 64, 64, 4), _Tile(64, 64, 32, 4), _Tile(64, 128, 64, 8), _Tile(64, 64, 64, 4))


class _Kernel:
    """A kernel made ready: with one tile, or with the fastest of several."""

    def __init__(self, function: Callable[..., None], tiles: Sequence[_Tile], adds_to: str | None = None) -> None:
        """Make the kernel of a function; `adds_to` names an argument that it adds to rather than writes."""
        import triton

        self.tiles = tiles
        self.plain = triton.jit(function, do_not_specialize=UNSPECIALIZED)
        self.tuned = None
        if not triton.knobs.runtime.interpret:
            self.tuned = triton.autotune(
                [triton.Config(tile.arguments(), num_warps=tile.warps, num_stages=2) for tile in tiles],
                key=["channels", "out_channels", "num_points"],
                reset_to_zero=[adds_to] if adds_to else None,
                prune_configs_by={"early_config_prune": self._prune},
            )(self.plain)

    def _prune(self, configs: object, named: object, **arguments: int) -> list[object]:
        """Return what to try for these sizes, equal ones once."""
        import triton

        tiles = dict.fromkeys(tile.clamped(arguments["out_channels"], arguments["channels"]) for tile in self.tiles)
        return [triton.Config(tile.arguments(), num_warps=tile.warps, num_stages=2) for tile in tiles]

    def launch(
        self,
        grid: Callable[[dict[str, int]], int],
        *tensors: Tensor,
        tune: bool,
        **numbers: int | str,
    ) -> None:
        """Run on the device of the tensors; `grid` maps the block sizes to the number of programs."""
        with torch.cuda.device_of(tensors[0]):
            if tune and self.tuned is not None and not numbers["double"]:
                self.tuned[lambda meta: (grid(meta),)](*tensors, **numbers, enable_fp_fusion=True)
                return
            tile = DOUBLE_TILE if numbers["double"] else self.tiles[0]
            tile = tile.clamped(int(numbers["out_channels"]), int(numbers["channels"]))
            self.plain[lambda meta: (grid(meta),)](
                *tensors,
                **numbers,
                **tile.arguments(),
                num_warps=tile.warps,
                num_stages=2,
                enable_fp_fusion=True,  # the default, but said, as Triton 3.9 warns of a change
            )


class _Kernels(NamedTuple):
    forward: _Kernel
    input_gradient: _Kernel
    weight_gradient: _Kernel


@functools.cache
def _kernels() -> _Kernels:
    """Make the kernels, at the first call.

    Raises:
        RuntimeError: Triton is not installed.
    """
    try:
        import triton
        import triton.language
    except ImportError as error:
        raise RuntimeError("ak_conv2d_triton needs the package triton, which is not installed") from error
    # Triton looks up what a kernel calls among the globals of its module.
    module = globals()
    module["tl"] = triton.language
    for function in _DEVICE_FUNCTIONS:
        module[function.__name__] = triton.jit(function)
    return _Kernels(
        _Kernel(_forward_kernel, FORWARD_TILES),
        _Kernel(_input_gradient_kernel, INPUT_GRADIENT_TILES, adds_to="grad_x"),
        _Kernel(_weight_gradient_kernel, WEIGHT_GRADIENT_TILES),
    )


_DEVICE_FUNCTIONS = (_positions, _corners, _slopes, _blend, _dot_rows, _add_rows)


def _as_rows(image: Tensor) -> Tensor:
    """Return (B, C, H, W) as rows (B H W, C) with adjacent channels; a copy unless it lies channels-last."""
    batch, channels, height, width = image.shape
    rows = image.permute(0, 2, 3, 1).reshape(batch * height * width, channels)
    return rows if channels == 1 or rows.stride(1) == 1 else rows.contiguous()


def _extent(tensor: Tensor) -> int:
    """Return one more than the largest distance of an element from the first."""
    return 1 + sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))


class _Problem:
    """The tensors and numbers that all three kernels are given."""

    def __init__(
        self,
        x: Tensor,
        offset: Tensor,
        weight: Tensor,
        points: Tensor,
        stride: int,
        border: bool,
        deterministic: bool,
        *others: Tensor,
    ) -> None:
        """Collect them; `others` are further tensors that a kernel indexes."""
        batch, channels, height, width = x.shape
        out_channels, num_points = weight.shape[0], offset.shape[1] // 2
        self.deterministic = deterministic
        self.pixels = _as_rows(x)
        self.offset = offset
        self.points = points.to(offset.device, torch.promote_types(offset.dtype, torch.float32)).contiguous()
        self.sum_dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        self.num_pixels = batch * offset.shape[2] * offset.shape[3]
        largest = max(
            self.num_pixels * max(out_channels, num_points * max(channels, 4)),
            *(_extent(tensor) for tensor in (self.pixels, offset, *others)),
        )
        tf32 = x.dtype == torch.float32 and torch.backends.cuda.matmul.fp32_precision == "tf32"
        self.numbers: dict[str, Any] = {
            "num_pixels": self.num_pixels,
            "height": height,
            "width": width,
            "out_height": offset.shape[2],
            "out_width": offset.shape[3],
            "channels": channels,
            "out_channels": out_channels,
            "num_points": num_points,
            "stride": stride,
            "x_stride": self.pixels.stride(0),
            "offset_batch": offset.stride(0),
            "offset_point": offset.stride(1),
            "offset_row": offset.stride(2),
            "offset_column": offset.stride(3),
            "border": border,
            "wide": largest >= WIDE_FROM,
            "double": x.dtype == torch.float64,
            "precision": "tf32" if tf32 else "ieee",
        }

    def tiles(self, meta: dict[str, int]) -> int:
        """Return the number of tiles of output pixels."""
        return _tiles(self.num_pixels, meta["block_m"])


def _tiles(size: int, block: int) -> int:
    return -(-size // block)


def _empty_output(x: Tensor, offset: Tensor, weight: Tensor) -> Tensor:
    """Return (B, O, h, w), channels-last, for the result."""
    return x.new_empty(x.shape[0], *offset.shape[2:], weight.shape[0]).permute(0, 3, 1, 2)


def _forward(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    points: Tensor,
    stride: int,
    border: bool,
    deterministic: bool,
) -> Tensor:
    """Return (B, O, h, w), channels-last, in the dtype of `x`."""
    y = _empty_output(x, offset, weight)
    if y.numel() == 0:
        return y
    kernel = _kernels().forward
    problem = _Problem(x, offset, weight, points, stride, border, deterministic)
    matrix = weight.to(x.dtype).squeeze(3).permute(2, 1, 0).contiguous()  # (N, C, O)
    kernel.launch(
        lambda meta: problem.tiles(meta) * _tiles(weight.shape[0], meta["block_o"]),
        problem.pixels,
        offset,
        problem.points,
        matrix,
        matrix if bias is None else bias.to(x.dtype).contiguous(),
        y,
        tune=not deterministic,
        has_bias=bias is not None,
        **problem.numbers,
    )
    return y


def _empty_gradients(
    x: Tensor, offset: Tensor, weight: Tensor, needs_x: bool, needs_offset: bool, needs_weight: bool
) -> Gradients:
    """Return tensors for the gradients of map, offsets and weight; without elements for those not needed."""
    # The layout is fixed, as under torch.compile that of the arguments may differ from what was traced.
    return (
        _empty_channels_last(x) if needs_x else x.new_empty(0),
        _empty_channels_last(offset) if needs_offset else offset.new_empty(0),
        weight.new_empty(weight.shape) if needs_weight else weight.new_empty(0),
    )


def _empty_channels_last(image: Tensor) -> Tensor:
    """Return a tensor of the shape of (B, C, H, W), channels-last."""
    batch, channels, height, width = image.shape
    return image.new_empty(batch, height, width, channels).permute(0, 3, 1, 2)


def _backward(
    grad: Tensor,
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    points: Tensor,
    stride: int,
    border: bool,
    deterministic: bool,
    needs_x: bool,
    needs_offset: bool,
    needs_weight: bool,
) -> Gradients:
    """Return the gradients of map, offsets and weight in their dtypes; without elements those not needed."""
    grad_x, grad_offset, grad_weight = _empty_gradients(x, offset, weight, needs_x, needs_offset, needs_weight)
    if grad.numel() == 0 or x.numel() == 0:
        return grad_x.zero_(), grad_offset.zero_(), grad_weight.zero_()
    grad_rows = _as_rows(grad.to(x.dtype))  # (M, O)
    problem = _Problem(x, offset, weight, points, stride, border, deterministic, grad_rows, grad_offset)
    problem.numbers["grad_stride"] = grad_rows.stride(0)
    if needs_x or needs_offset:
        rows = _input_gradient(problem, grad_rows, weight, grad_offset, needs_x, needs_offset)
        if needs_x:
            grad_x.permute(0, 2, 3, 1).copy_(rows.view(x.shape[0], *x.shape[2:], x.shape[1]))
    if needs_weight:
        grad_weight.copy_(_weight_gradient(problem, grad_rows).permute(2, 1, 0).unsqueeze(3))
    return grad_x, grad_offset, grad_weight


def _input_gradient(
    problem: _Problem, grad_rows: Tensor, weight: Tensor, grad_offset: Tensor, needs_x: bool, needs_offset: bool
) -> Tensor:
    """Write the gradient of the offsets into `grad_offset`, and return that of the map, (B H W, C)."""
    pixels, numbers, dtype = problem.pixels, problem.numbers, problem.sum_dtype
    num_points, channels = numbers["num_points"], numbers["channels"]
    grad_x = corner = corner_weight = pixels.new_empty(0, dtype=dtype)
    if needs_x and problem.deterministic:
        columns = problem.num_pixels * num_points
        grad_x = pixels.new_empty(columns, channels, dtype=dtype)
        corner = pixels.new_empty(columns, 4, dtype=torch.int64)
        corner_weight = pixels.new_empty(columns, 4, dtype=dtype)
    elif needs_x:
        grad_x = pixels.new_zeros(pixels.shape, dtype=dtype)
    steps = grad_offset.stride() if needs_offset else (0, 0, 0, 0)
    _kernels().input_gradient.launch(
        lambda meta: problem.tiles(meta) * num_points,
        grad_rows,
        pixels,
        problem.offset,
        problem.points,
        weight.to(pixels.dtype).squeeze(3).permute(2, 0, 1).contiguous(),  # (N, O, C)
        grad_x,
        grad_offset,
        corner,
        corner_weight,
        tune=not problem.deterministic,
        grad_offset_batch=steps[0],
        grad_offset_point=steps[1],
        grad_offset_row=steps[2],
        grad_offset_column=steps[3],
        needs_x=needs_x,
        needs_offset=needs_offset,
        deterministic=problem.deterministic,
        **numbers,
    )
    if not (needs_x and problem.deterministic):
        return grad_x
    total = pixels.new_zeros(pixels.shape, dtype=dtype)
    for index, share in zip(corner.unbind(1), corner_weight.unbind(1), strict=True):
        # index_put_ sorts on CUDA when it accumulates, so the order of the sums is fixed; index_add_ uses atomics.
        total.index_put_((index,), grad_x * share[:, None], accumulate=True)
    return total


def _weight_gradient(problem: _Problem, grad_rows: Tensor) -> Tensor:
    """Return the gradient of the weight, (N, C, O), from partial sums that are added in a fixed order."""
    numbers = problem.numbers
    num_points, channels, out_channels = numbers["num_points"], numbers["channels"], numbers["out_channels"]
    splits = min(
        TARGET_PROGRAMS // (num_points * _tiles(channels, 64) * _tiles(out_channels, 64)),
        MAX_PARTIAL_ELEMENTS // (num_points * channels * out_channels),
        _tiles(problem.num_pixels, 64),
    )
    partial = grad_rows.new_empty(max(splits, 1), num_points, channels, out_channels, dtype=problem.sum_dtype)
    _kernels().weight_gradient.launch(
        lambda meta: (
            len(partial) * num_points * _tiles(channels, meta["block_c"]) * _tiles(out_channels, meta["block_o"])
        ),
        grad_rows,
        problem.pixels,
        problem.offset,
        problem.points,
        partial,
        tune=not problem.deterministic,
        splits=len(partial),
        **numbers,
    )
    return partial.sum(0)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ANN401
    """Keep for the backward pass what it needs; the columns are sampled again."""
    x, offset, weight, bias, points, *ctx.settings = inputs
    ctx.bias_dtype = None if bias is None else bias.dtype
    ctx.save_for_backward(x, offset, weight, points)


def _gradients(
    backward: Callable[..., Gradients],
    ctx: Any,  # noqa: ANN401
    grad: Tensor,
) -> tuple[Tensor | None, ...]:
    """Return a gradient for each argument of `_forward`."""
    x, offset, weight, points = ctx.saved_tensors
    needs = list(ctx.needs_input_grad[:4])
    results: list[Tensor | None] = [None] * 4
    if any(needs[:3]):
        made = backward(grad, x, offset, weight, points, *ctx.settings, *needs[:3])
        results[:3] = [gradient if need else None for gradient, need in zip(made, needs[:3], strict=True)]
    if needs[3]:
        dtype = torch.promote_types(grad.dtype, torch.float32)
        results[3] = grad.sum((0, 2, 3), dtype=dtype).to(ctx.bias_dtype)
    return (*results, None, None, None, None)


class _AKConv2d(torch.autograd.Function):
    """The operator outside torch.compile: no registered operator stands in between, which would cost time per call."""

    @staticmethod
    def forward(*inputs: Any) -> Tensor:  # noqa: ANN401
        return _forward(*inputs)

    setup_context = staticmethod(_remember)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        return _gradients(_backward, ctx, grad)


# The operator under torch.compile: opaque to it, so that the graph is not broken, and with shapes that may be symbols.
_forward_op = torch.library.custom_op("akyolo::ak_conv2d_triton", _forward, mutates_args=())
_backward_op = torch.library.custom_op("akyolo::ak_conv2d_triton_backward", _backward, mutates_args=())
_forward_op.register_fake(lambda x, offset, weight, *_: _empty_output(x, offset, weight))
_backward_op.register_fake(lambda _, x, offset, weight, *rest: _empty_gradients(x, offset, weight, *rest[-3:]))
_forward_op.register_autograd(functools.partial(_gradients, _backward_op), setup_context=_remember)


def ak_conv2d_triton(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    points: Tensor,
    stride: int = 1,
    padding: Padding = "border",
    deterministic: bool = False,
) -> Tensor:
    """Convolve with an alterable kernel, in fused Triton kernels.

    Products are accumulated in float32, or float64 for a float64 map. Under autocast the map is cast as a convolution
    would cast it; weight and bias are cast to the dtype of the map. Gradients come in the dtypes of their tensors. An
    offset that is not finite contributes nothing to the gradients of map and offsets, but makes that of the weight NaN.

    Args:
        x: (B, C, H, W), float16, bfloat16, float32 or float64, on a CUDA device; channels_last saves a copy.
        offset: (B, 2N, h, w) in input pixels, any floating dtype, N row offsets before N column offsets;
            h = (H - 1) // stride + 1, likewise w.
        weight: (O, C, N, 1).
        bias: (O,) or None.
        points: (N, 2) initial points (row, column) in input pixels.
        stride: distance of output pixels on the input.
        padding: what lies beyond the map: its nearest border pixel (`border`), or zero (`zeros`).
        deterministic: give the same bits every time, for more time and memory; always so under
            `torch.use_deterministic_algorithms`.

    Returns:
        (B, O, h, w), channels_last. A non-finite offset makes its own output pixel NaN and touches nothing else.

    Raises:
        ValueError: the shapes do not fit together, or `padding` is neither of the two.
        RuntimeError: Triton is not installed.

    Source: arXiv 2311.11587, eqs. 1 to 4.
    """
    batch, channels, height, width = x.shape
    out_channels, num_points = weight.shape[0], points.shape[0]
    size = ((height - 1) // stride + 1, (width - 1) // stride + 1)
    if tuple(weight.shape[1:]) != (channels, num_points, 1):
        raise ValueError(f"weight must be (O, {channels}, {num_points}, 1), got {tuple(weight.shape)}")
    if tuple(offset.shape) != (batch, 2 * num_points, *size):
        raise ValueError(f"offset must be {(batch, 2 * num_points, *size)}, got {tuple(offset.shape)}")
    if bias is not None and tuple(bias.shape) != (out_channels,):
        raise ValueError(f"bias must be ({out_channels},), got {tuple(bias.shape)}")
    if padding not in get_args(Padding):
        raise ValueError(f"padding must be one of {get_args(Padding)}, got {padding!r}")
    device = x.device.type
    if torch.is_autocast_enabled(device) and x.dtype != torch.float64:
        x = x.to(torch.get_autocast_dtype(device))
    deterministic = deterministic or torch.are_deterministic_algorithms_enabled()
    apply = _forward_op if torch.compiler.is_compiling() else _AKConv2d.apply
    return apply(x, offset, weight, bias, points, stride, padding == "border", deterministic)
