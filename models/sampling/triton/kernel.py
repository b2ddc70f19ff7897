"""AKConv as fused Triton kernels: positions, bilinear sampling and the column product in one pass over the map.

`ak_conv2d_triton` computes what docs/akconv.md defines; embedding_bag.py does the same in plain PyTorch. The columns
(B, h, w, N, C) never reach memory in the forward pass: a program samples a tile of output pixels, one chunk of channels
at a time, and multiplies it by the weight immediately. The backward pass samples again, since keeping the columns would
cost N times the memory of the map.

This file prepares the tensors and registers the operator with autograd and torch.compile; problem.py collects the
arguments, programs.py holds the kernels, launch.py runs them.
Letters: B batch, C input channels, O output channels, (H, W) input size, (h, w) output size, N points, M = B h w.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.sampling.sampling_grid import Gradient, Padding, SamplingGrid
from models.sampling.triton.launch import kernels
from models.sampling.triton.problem import Problem, as_rows, count_tiles, named_strides

Gradients = tuple[Tensor, Tensor, Tensor]

TARGET_PROGRAMS = 1024  # about 8 for each multiprocessor of a large GPU
MAX_PARTIAL_ELEMENTS = 2**24  # 64 MB of partial sums of the weight gradient


def _empty_output(x: Tensor, offset: Tensor, weight: Tensor) -> Tensor:
    """Return an uninitialised output (B, O, h, w), channels-last."""
    return x.new_empty(x.shape[0], *offset.shape[2:], weight.shape[0]).permute(0, 3, 1, 2)


def _forward(
    x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor | None,
    points: Tensor, stride: int, border: bool, modulated: bool, symmetric: bool, deterministic: bool,
) -> Tensor:  # fmt: skip
    """Return (B, O, h, w), channels-last, in the dtype of `x`."""
    y = _empty_output(x, offset, weight)
    if y.numel() == 0:
        return y
    kernel = kernels().forward
    problem = Problem(x, offset, weight, points, stride, border, modulated, deterministic)
    matrix = weight.to(x.dtype).squeeze(3).permute(2, 1, 0).contiguous()  # (N, C, O)
    kernel.launch(
        lambda meta: problem.tiles(meta) * count_tiles(weight.shape[0], meta["block_o"]),
        problem.pixels,
        offset,
        problem.points,
        matrix,
        matrix if bias is None else bias.to(x.dtype).contiguous(),
        y,
        tune=not deterministic,
        has_bias=bias is not None,
        **problem.scalars,
    )
    return y


def _empty_gradients(
    x: Tensor, offset: Tensor, weight: Tensor, needs_x: bool, needs_offset: bool, needs_weight: bool
) -> Gradients:
    """Return uninitialised gradients of map, offsets and weight; empty tensors for those not needed."""
    # The layout is fixed: under torch.compile the layout of the arguments may differ from the traced one.
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
    grad: Tensor, x: Tensor, offset: Tensor, weight: Tensor,
    points: Tensor, stride: int, border: bool, modulated: bool, symmetric: bool, deterministic: bool,
    needs_x: bool, needs_offset: bool, needs_weight: bool,
) -> Gradients:  # fmt: skip
    """Return the gradients of map, offsets and weight in their dtypes; empty tensors for those not needed."""
    grad_x, grad_offset, grad_weight = _empty_gradients(x, offset, weight, needs_x, needs_offset, needs_weight)
    if grad.numel() == 0 or x.numel() == 0:
        return grad_x.zero_(), grad_offset.zero_(), grad_weight.zero_()
    grad_rows = as_rows(grad.to(x.dtype))  # (M, O)
    problem = Problem(x, offset, weight, points, stride, border, modulated, deterministic, grad_rows, grad_offset)
    problem.scalars["grad_stride"] = grad_rows.stride(0)
    if needs_x or needs_offset:
        rows = _input_gradient(problem, grad_rows, weight, grad_offset, symmetric, needs_x, needs_offset)
        if needs_x:
            grad_x.permute(0, 2, 3, 1).copy_(rows.view(x.shape[0], *x.shape[2:], x.shape[1]))
    if needs_weight:
        grad_weight.copy_(_weight_gradient(problem, grad_rows).permute(2, 1, 0).unsqueeze(3))
    return grad_x, grad_offset, grad_weight


def _input_gradient(
    problem: Problem, grad_rows: Tensor, weight: Tensor, grad_offset: Tensor,
    symmetric: bool, needs_x: bool, needs_offset: bool,
) -> Tensor:  # fmt: skip
    """Write the gradient of the offsets into `grad_offset`, and return that of the map, (B H W, C)."""
    pixels, scalars, dtype = problem.pixels, problem.scalars, problem.sum_dtype
    num_points, channels = scalars["num_points"], scalars["channels"]
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
        **named_strides("grad_offset", steps),
        symmetric=symmetric,
        needs_x=needs_x,
        needs_offset=needs_offset,
        deterministic=problem.deterministic,
        **scalars,
    )
    if not (needs_x and problem.deterministic):
        return grad_x
    total = pixels.new_zeros(pixels.shape, dtype=dtype)
    for index, corner_weights in zip(corner.unbind(1), corner_weight.unbind(1), strict=True):
        # On CUDA, index_put_ with accumulate sorts, so that the order of the sums is fixed; index_add_ uses atomics.
        total.index_put_((index,), grad_x * corner_weights[:, None], accumulate=True)
    return total


def _weight_gradient(problem: Problem, grad_rows: Tensor) -> Tensor:
    """Return the gradient of the weight, (N, C, O), as partial sums added in a fixed order."""
    scalars = problem.scalars
    num_points, channels, out_channels = scalars["num_points"], scalars["channels"], scalars["out_channels"]
    splits = min(
        TARGET_PROGRAMS // (num_points * count_tiles(channels, 64) * count_tiles(out_channels, 64)),
        MAX_PARTIAL_ELEMENTS // (num_points * channels * out_channels),
        count_tiles(problem.num_pixels, 64),
    )
    partial = grad_rows.new_empty(max(splits, 1), num_points, channels, out_channels, dtype=problem.sum_dtype)
    kernels().weight_gradient.launch(
        lambda meta: (
            len(partial)
            * num_points
            * count_tiles(channels, meta["block_c"])
            * count_tiles(out_channels, meta["block_o"])
        ),
        grad_rows,
        problem.pixels,
        problem.offset,
        problem.points,
        partial,
        tune=not problem.deterministic,
        splits=len(partial),
        **scalars,
    )
    return partial.sum(0)


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ANN401
    """Save the inputs for the backward pass, which samples the columns again."""
    x, offset, weight, bias, points, *ctx.settings = inputs
    ctx.bias_dtype = None if bias is None else bias.dtype
    ctx.save_for_backward(x, offset, weight, points)


def _gradients(backward: Callable[..., Gradients], ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
    """Return a gradient for each argument of `_forward`."""
    x, offset, weight, points = ctx.saved_tensors
    needs = list(ctx.needs_input_grad[:4])
    results: list[Tensor | None] = [None] * 4
    if any(needs[:3]):
        computed = backward(grad, x, offset, weight, points, *ctx.settings, *needs[:3])
        results[:3] = [gradient if need else None for gradient, need in zip(computed, needs[:3], strict=True)]
    if needs[3]:
        dtype = torch.promote_types(grad.dtype, torch.float32)
        results[3] = grad.sum((0, 2, 3), dtype=dtype).to(ctx.bias_dtype)
    return (*results, *(None for _ in range(1 + len(ctx.settings))))


class _AKConv2d(torch.autograd.Function):
    """The operator outside torch.compile, without the overhead of a registered operator."""

    @staticmethod
    def forward(*inputs: Any) -> Tensor:  # noqa: ANN401
        return _forward(*inputs)

    setup_context = staticmethod(_save_for_backward)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        return _gradients(_backward, ctx, grad)


# The operator under torch.compile: opaque, so that the graph is not broken; shapes may be symbolic.
_forward_op = torch.library.custom_op("akyolo::ak_conv2d_triton", _forward, mutates_args=())
_backward_op = torch.library.custom_op("akyolo::ak_conv2d_triton_backward", _backward, mutates_args=())
_forward_op.register_fake(lambda x, offset, weight, *_: _empty_output(x, offset, weight))
_backward_op.register_fake(lambda _, x, offset, weight, *rest: _empty_gradients(x, offset, weight, *rest[-3:]))
_forward_op.register_autograd(functools.partial(_gradients, _backward_op), setup_context=_save_for_backward)


def ak_conv2d_triton(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    points: Tensor,
    stride: int = 1,
    padding: Padding = "border",
    modulated: bool = False,
    gradient: Gradient = "one_sided",
    deterministic: bool = False,
) -> Tensor:
    """Apply AKConv by fused Triton kernels.

    Products are accumulated in float32, or in float64 for a float64 map. Under autocast the map is cast as for a
    convolution; weight and bias are cast to the dtype of the map. Gradients have the dtypes of their tensors. A
    non-finite offset contributes nothing to the gradients of map and offsets, but makes the weight's gradient NaN.

    Arguments and result are those of `ak_conv2d`: `x` is float16, bfloat16, float32 or float64 on a CUDA device, and
    channels_last saves a copy; `offset` has any floating dtype. `deterministic` makes results bitwise reproducible, at
    a cost in time and memory; `torch.use_deterministic_algorithms` implies it.

    Raises:
        ValueError: shapes do not match, or `padding` or `gradient` is invalid.
        RuntimeError: Triton is not installed.
    """
    batch, channels, height, width = x.shape
    grid = SamplingGrid(points, stride, padding, modulated, gradient)
    out_channels, num_points = weight.shape[0], grid.num_points
    offset_shape = (batch, grid.offset_channels, *grid.output_size(height, width))
    if tuple(weight.shape[1:]) != (channels, num_points, 1):
        raise ValueError(f"weight must be (O, {channels}, {num_points}, 1), got {tuple(weight.shape)}")
    if tuple(offset.shape) != offset_shape:
        raise ValueError(f"offset must be {offset_shape}, got {tuple(offset.shape)}")
    if bias is not None and tuple(bias.shape) != (out_channels,):
        raise ValueError(f"bias must be ({out_channels},), got {tuple(bias.shape)}")
    device = x.device.type
    if torch.is_autocast_enabled(device) and x.dtype != torch.float64:
        x = x.to(torch.get_autocast_dtype(device))
    deterministic = deterministic or torch.are_deterministic_algorithms_enabled()
    apply = _forward_op if torch.compiler.is_compiling() else _AKConv2d.apply
    border, symmetric = padding == "border", gradient == "symmetric"
    return apply(x, offset, weight, bias, points, stride, border, modulated, symmetric, deterministic)
