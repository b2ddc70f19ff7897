"""AKConv with gradients on the CPU, by the compiled kernel of training_kernel.c and a 1x1 convolution of the samples.

Between the passes only the map and the offsets are kept: the backward pass writes the samples again, in place of their
gradient.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.sampling.sampling_grid import MAX_SIDE, SamplingGrid
from utils import compiled

REALS = {torch.float32: "float", torch.float64: "double"}
SMALL = 1 << 15  # sampled values, below which more threads cost more than they save
MIN_CHANNELS = 16  # per chunk: one vector register


def load(dtype: torch.dtype) -> ctypes.CDLL | None:
    """Return the compiled kernel for float32 or float64, or None if it is not available."""
    return compiled.load(f"training-{REALS[dtype]}") if dtype in REALS else None


class _Shape(ctypes.Structure):
    """The struct `Shape` of offset_kernel.c."""

    _fields_ = [
        (name, ctypes.c_ssize_t)
        for name in (
            *("batch", "height", "width", "out_h", "out_w", "points", "channels", "stride"),
            *("zeros", "modulated", "symmetric", "threads", "chunks"),
        )
    ]


def _call(name: str, rows: Tensor, offset: Tensor, grid: SamplingGrid, chunks: int, *tensors: Tensor | None) -> None:
    """Call a function of the kernel for rows (B, H, W, C) and offsets (B, h, w, M)."""
    library = load(rows.dtype)
    if library is None:
        raise RuntimeError("the kernel is not compiled; run python -m utils.compiled")
    (batch, height, width, channels), (_, out_h, out_w, _) = rows.shape, offset.shape
    flags = grid.padding == "zeros", grid.modulated, grid.gradient == "symmetric"
    sizes = batch, height, width, out_h, out_w, grid.num_points, channels, grid.stride
    shape = _Shape(*sizes, *flags, _threads(rows, offset, grid), chunks)
    addresses = (ctypes.c_void_p(None if tensor is None else tensor.data_ptr()) for tensor in tensors)
    if getattr(library, name)(ctypes.byref(shape), *addresses):
        raise MemoryError(f"out of memory for AKConv on a map of {height} x {width} pixels")


def _threads(rows: Tensor, offset: Tensor, grid: SamplingGrid) -> int:
    samples = offset.numel() // offset.shape[3] * grid.num_points
    return torch.get_num_threads() if samples * rows.shape[3] > SMALL else 1


class _SampledProduct(torch.autograd.Function):
    """The layer without batch norm. Offsets are given, or predicted by a 3x3 convolution."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:  # noqa: ANN401
        """Compute (B, O, h, w) from x, offset or None, offset weight and bias or None, weight, bias or None, grid."""
        x, offset, offset_weight, offset_bias, weight, bias, grid = inputs
        rows = x.permute(0, 2, 3, 1).contiguous()  # no copy of a channels-last map
        if offset_weight is None:
            moved = offset.permute(0, 2, 3, 1).contiguous()
        else:
            offset_weight = offset_weight.permute(0, 2, 3, 1).contiguous()
            moved = rows.new_empty(len(rows), *grid.output_size(*rows.shape[1:3]), grid.offset_channels)
        samples = rows.new_empty(*moved.shape[:3], grid.num_points * rows.shape[3])
        points = grid.points.to(rows.dtype).contiguous()
        _call("forward", rows, moved, grid, 1, rows, offset_weight, offset_bias, points, moved, samples)
        ctx.save_for_backward(rows, moved, offset_weight, weight, points)
        ctx.grid = grid
        product = F.conv2d(_as_images(samples), _matrix(weight), bias)
        maps = product.permute(0, 2, 3, 1).reshape(*moved.shape[:3], len(weight)).permute(0, 3, 1, 2)
        # The same memory, but not as a view: autograd forbids in-place changes of a view that a Function returns.
        return maps.new_empty(0).set_(maps.untyped_storage(), maps.storage_offset(), maps.shape, maps.stride())

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        """Return the gradients of the inputs."""
        rows, moved, offset_weight, weight, points = ctx.saved_tensors
        (batch, *_, channels), (outputs, _, num_points, _) = rows.shape, weight.shape
        threads = _threads(rows, moved, ctx.grid)
        chunks = 1 if batch % threads == 0 else max(min(threads, channels // MIN_CHANNELS), 1)
        matrix = _matrix(weight)
        grad = _as_images(grad.permute(0, 2, 3, 1))
        unused = _as_images(rows.new_empty(*moved.shape[:3], num_points * channels))
        samples = _product_gradients(grad, unused, matrix, (True, False, False))[0].permute(0, 2, 3, 1).contiguous()
        grad_rows, grad_moved = torch.empty_like(rows), rows.new_empty(chunks, *moved.shape)
        moves = moved.shape[3]
        parts = rows.new_zeros(1 if chunks > 1 else threads, moves * (9 * channels + 1))
        _call(
            "backward",
            rows,
            moved,
            ctx.grid,
            chunks,
            rows,
            offset_weight,
            points,
            moved,
            samples,
            grad_rows,
            grad_moved,
            parts,
        )
        wanted = False, True, ctx.needs_input_grad[5]
        _, grad_matrix, grad_bias = _product_gradients(grad, samples.permute(0, 3, 1, 2), matrix, wanted)
        grad_weight = grad_matrix.view(outputs, num_points, channels).transpose(1, 2).unsqueeze(3)
        grad_x = grad_rows.permute(0, 3, 1, 2)
        if offset_weight is None:
            return grad_x, grad_moved[0].permute(0, 3, 1, 2), None, None, grad_weight, grad_bias, None
        total = parts.sum(0) if len(parts) > 1 else parts[0]
        grad_offset_weight = total[:-moves].view(moves, 3, 3, channels).permute(0, 3, 1, 2)
        return grad_x, None, grad_offset_weight, total[-moves:], grad_weight, grad_bias, None


def _matrix(weight: Tensor) -> Tensor:
    """Return the weight (O, C, N, 1) of a 1x1 convolution over N C channels; channels-last weights are not copied."""
    return weight.squeeze(3).transpose(1, 2).reshape(len(weight), -1, 1, 1)


def _as_images(pixels: Tensor) -> Tensor:
    """Return values (B, h, w, K) as maps (B h, K, 1, w): with one thread torch uses oneDNN from 16 images only."""
    batch, height, width, count = pixels.shape
    return pixels.reshape(batch * height, 1, width, count).permute(0, 3, 1, 2)


def _product_gradients(grad: Tensor, samples: Tensor, matrix: Tensor, wanted: tuple[bool, ...]) -> list[Tensor]:
    """Return gradients of samples, matrix and bias of the 1x1 convolution."""
    settings = [1, 1], [0, 0], [1, 1], False, [0, 0], 1
    return torch.ops.aten.convolution_backward(grad, samples, matrix, [len(matrix)], *settings, wanted)


def ak_conv2d_cpu_kernel(x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor | None, grid: SamplingGrid) -> Tensor:
    """Compute `ak_conv2d` by the compiled kernel; RuntimeError if it is not compiled, ValueError for another device."""
    if any(tensor.device.type != "cpu" for tensor in (x, offset, grid.points)):
        raise ValueError("the CPU kernel needs map, offsets and points on the CPU")
    # In at least single precision, whatever that of the map.
    dtype = torch.promote_types(torch.promote_types(x.dtype, offset.dtype), torch.float32)
    autocast = torch.is_autocast_enabled("cpu")
    product = [t.to(dtype) if t is not None and (autocast or t.dtype == x.dtype) else t for t in (weight, bias)]
    with torch.autocast("cpu", enabled=False):
        y = _SampledProduct.apply(x.to(dtype), offset.to(dtype), None, None, *product, grid)
    return y.to(torch.get_autocast_dtype("cpu") if autocast else x.dtype)


def is_trainable(x: Tensor, p_conv: nn.Module, weight: Tensor, bias: Tensor | None, grid: SamplingGrid) -> bool:
    """Return whether `ak_layer_training` can replace `p_conv` and `ak_conv2d`: 3x3 convolution, no hooks, valid shapes.

    The kernel reads memory by these shapes; torch reports the error if they do not match.
    """
    if type(p_conv) is not nn.Conv2d or torch.is_autocast_enabled("cpu") or x.dtype not in REALS or x.dim() != 4:
        return False
    tensors = [t for t in (*p_conv.parameters(), weight, bias) if t is not None]
    return (
        tuple(p_conv.weight.shape) == (grid.offset_channels, x.shape[1], 3, 3)
        and (p_conv.stride, p_conv.padding, p_conv.dilation) == ((grid.stride, grid.stride), (1, 1), (1, 1))
        and p_conv.padding_mode == "zeros"
        and tuple(weight.shape[1:]) == (x.shape[1], grid.num_points, 1)
        and max(x.shape[2:]) <= MAX_SIDE
        and all(t.dtype == x.dtype and t.device == x.device for t in tensors)
        and grid.points.device == x.device
        and not (p_conv._forward_hooks or p_conv._forward_pre_hooks or p_conv._backward_hooks)
    )


def ak_layer_training(x: Tensor, p_conv: nn.Module, weight: Tensor, bias: Tensor | None, grid: SamplingGrid) -> Tensor:
    """Compute offsets, samples and column convolution, for arguments that `is_trainable` accepts."""
    return _SampledProduct.apply(x, None, p_conv.weight, p_conv.bias, weight, bias, grid)
