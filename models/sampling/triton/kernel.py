"""AKConv as fused Triton kernels: positions, bilinear sampling and the column product in one pass over the map.

The function is `ak_conv2d_triton`; what it computes is defined in docs/akconv.md, and `bags.py` is
the same in plain torch. The columns (B, h, w, N, C) never reach memory in the forward pass: a program samples a tile
of output pixels, channel chunk by channel chunk, and multiplies it by the weight at once. The backward pass samples
again, for keeping the columns would cost N times the memory of the map.

Here tensors become what the kernels of triton_device.py want, triton_launch.py runs those, and autograd and
torch.compile are told. Letters: B batch, C input channels, O output channels, (H, W) input size, (h, w) output size,
N points, M = B h w.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, get_args

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.sampling.sampling_grid import Padding
from models.sampling.triton.launch import kernels

Gradients = tuple[Tensor, Tensor, Tensor]

WIDE_FROM = 2**30  # elements, from which int32 indices could overflow
TARGET_PROGRAMS = 1024  # about 8 for each multiprocessor of a large GPU
MAX_PARTIAL_ELEMENTS = 2**24  # 64 MB of partial sums of the weight gradient


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
    kernel = kernels().forward
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
    kernels().input_gradient.launch(
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
    kernels().weight_gradient.launch(
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
