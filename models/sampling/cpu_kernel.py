"""A whole AKConv layer without gradients, by the compiled kernel of cpu_kernel_layer.c."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor, nn

from models.sampling.sampling_grid import SamplingGrid
from utils import compiled

REALS = {torch.float32: "float", torch.float64: "double"}
SMALL = 1 << 15  # output elements, below which more threads cost more than they save


def load(dtype: torch.dtype) -> ctypes.CDLL | None:
    """Return the compiled kernel for float32 or float64, or None if it is not available."""
    return compiled.load(f"akconv-{REALS[dtype]}") if dtype in REALS else None


class _Shape(ctypes.Structure):
    """The struct `Shape` of cpu_kernel.c."""

    _fields_ = [
        (name, ctypes.c_ssize_t)
        for name in (
            *("batch", "height", "width", "out_h", "out_w", "points", "channels", "stride"),
            *("offset_image", "offset_channel", "offset_row", "offset_column"),
            *("zeros", "modulated", "symmetric", "threads", "chunks"),
        )
    ]


def _flags(grid: SamplingGrid) -> tuple[bool, bool, bool]:
    return grid.padding == "zeros", grid.modulated, grid.gradient == "symmetric"


def _address(tensor: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def is_supported(x: Tensor, p_conv: nn.Module, weight: Tensor, bias: Tensor | None, grid: SamplingGrid) -> bool:
    """Return whether `ak_layer_cpu_kernel` can replace `p_conv` and `ak_conv2d`: no gradients, no hooks, valid shapes.

    The kernel reads memory by these shapes; torch reports the error if they do not match.
    """
    if torch.is_grad_enabled() or torch.is_autocast_enabled("cpu") or x.dtype not in REALS or x.dim() != 4:
        return False
    channels, points, moves = x.shape[1], grid.points, grid.offset_channels
    tensors = [t for t in (*p_conv.parameters(), weight, bias) if t is not None]
    convolutions = [module for module in p_conv.modules() if isinstance(module, nn.Conv2d)]
    first, shapes = convolutions[0], [tuple(convolution.weight.shape) for convolution in convolutions]
    return (
        shapes in ([(moves, channels, 3, 3)], [(channels, 1, 3, 3), (moves, channels, 1, 1)])
        and (first.stride, first.padding, first.dilation) == ((grid.stride, grid.stride), (1, 1), (1, 1))
        and tuple(weight.shape[1:]) == (channels, grid.num_points, 1)
        and (bias is None or tuple(bias.shape) == (weight.shape[0],))
        and all(t.dtype == x.dtype and t.device == x.device for t in tensors)
        and points.device == x.device
        and not any(module._forward_hooks or module._forward_pre_hooks for module in p_conv.modules())
    )


def ak_layer_cpu_kernel(
    x: Tensor, p_conv: nn.Module, weight: Tensor, bias: Tensor | None, grid: SamplingGrid
) -> Tensor:
    """Compute offsets, sampling and column convolution row by row, for arguments that `is_supported` accepts."""
    batch, channels, height, width = x.shape
    outputs, _, num_points, _ = weight.shape
    out_h, out_w = grid.output_size(height, width)
    rows, points = x.permute(0, 2, 3, 1).contiguous(), grid.points.to(x.dtype).contiguous()
    *depthwise, last = (module for module in p_conv.modules() if isinstance(module, nn.Conv2d))
    # Points and taps before channels: channels-last weights are not copied.
    offset_weight = last.weight.permute(0, 2, 3, 1).contiguous()
    taps = depthwise[0].weight.permute(2, 3, 1, 0).contiguous() if depthwise else None
    matrix = weight.squeeze(3).transpose(1, 2).contiguous()
    out = x.new_empty(batch, out_h, out_w, outputs)
    threads = torch.get_num_threads() if out.numel() * num_points > SMALL else 1
    shape = _Shape(
        *(batch, height, width, out_h, out_w, num_points, channels, grid.stride),
        *(0, 0, 0, 0),
        *(*_flags(grid), threads, 1),
    )
    failed = load(x.dtype).layer(  # type: ignore[union-attr]  # loaded by `choose`
        ctypes.byref(shape),
        *map(_address, (rows, taps, offset_weight, last.bias, points, matrix, bias)),
        ctypes.c_ssize_t(outputs),
        _address(out),
    )
    if failed:
        raise MemoryError(f"out of memory for AKConv on a map of {height} x {width} pixels")
    return out.permute(0, 3, 1, 2)
