"""AKConv by the compiled kernel of cpu_kernel.c: one pass over a channels-last map, and one matrix product.

Nothing of the sampling is stored for its backward pass but its inputs: positions and weights are found anew.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.sampling.sampling_grid import Padding
from utils import compiled

REALS = {torch.float32: "float", torch.float64: "double"}
SMALL = 1 << 15  # numbers to write, below which waking other threads costs more than they save
MIN_CHANNELS = 8  # of a chunk: a processor's vector


def load(dtype: torch.dtype) -> ctypes.CDLL | None:
    """Return the compiled kernel of float32 or float64, or None where there is none."""
    return compiled.load(f"akconv-{REALS[dtype]}") if dtype in REALS else None


class _Shape(ctypes.Structure):
    """The kernel's `Shape`."""

    _fields_ = [
        (name, ctypes.c_ssize_t)
        for name in (
            *("batch", "height", "width", "out_h", "out_w", "points", "channels", "stride"),
            *("offset_image", "offset_channel", "offset_row", "offset_column"),
            *("zeros", "threads", "chunks"),
        )
    ]


@dataclass(frozen=True, kw_only=True)
class _Sampling:
    """What to sample, but for the numbers.

    Attributes:
        batch, height, width, channels: of the map.
        points: sampled for each output pixel.
        stride: distance of output pixels on the map.
        zeros: pixels beyond the map are zero, not those of its border.
    """

    batch: int
    height: int
    width: int
    channels: int
    points: int
    stride: int
    zeros: bool

    def shape(self, offset: Tensor, *, chunks: int = 1) -> _Shape:
        """Return the kernel's description for offsets (B, 2N, h, w) of any memory layout."""
        out_h, out_w = offset.shape[2:]
        threads = torch.get_num_threads() if self.batch * out_h * out_w * self.points * self.channels > SMALL else 1
        return _Shape(
            *(self.batch, self.height, self.width, out_h, out_w, self.points, self.channels, self.stride),
            *offset.stride(),
            *(self.zeros, threads, chunks),
        )


class _Native(torch.autograd.Function):
    """Rows of a map, sampled: (B H W, C) and offsets (B, 2N, h, w) to (B, h, w, N C)."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        rows: Tensor,
        offset: Tensor,
        points: Tensor,
        sampling: _Sampling,
    ) -> Tensor:
        shape = sampling.shape(offset)
        out = rows.new_empty(shape.batch, shape.out_h, shape.out_w, shape.points * shape.channels)
        library = load(rows.dtype)
        if library is None:
            raise RuntimeError("the kernel is not compiled: python -m utils.compiled")
        library.forward(ctypes.byref(shape), *map(_address, (rows, offset, points, out)))
        ctx.save_for_backward(rows, offset, points)
        ctx.sampling = sampling
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:  # noqa: ANN401
        rows, offset, points = ctx.saved_tensors
        sampling: _Sampling = ctx.sampling
        threads = torch.get_num_threads()
        chunks = 1 if sampling.batch % threads == 0 else max(min(threads, sampling.channels // MIN_CHANNELS), 1)
        shape = sampling.shape(offset, chunks=chunks)
        grad = grad.contiguous()
        grad_rows = torch.zeros_like(rows)
        slopes = rows.new_empty(chunks, shape.batch, shape.out_h, shape.out_w, 2 * shape.points)
        library = load(rows.dtype)
        library.backward(  # type: ignore[union-attr]  # forward has loaded it
            ctypes.byref(shape), *map(_address, (rows, offset, points, grad, grad_rows, slopes))
        )
        grad_offset = slopes[0] if chunks == 1 else slopes.sum(0)
        return grad_rows, grad_offset.permute(0, 3, 1, 2), None, None


def _address(tensor: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def ak_conv2d_native(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    points: Tensor,
    stride: int,
    padding: Padding,
) -> Tensor:
    """Compute `ak_conv2d`, whose contract it shares, by the compiled kernel, on the CPU.

    Raises:
        RuntimeError: it is not compiled.
        ValueError: a tensor is not on the CPU.
    """
    if any(tensor.device.type != "cpu" for tensor in (x, offset, points)):
        raise ValueError("the compiled kernel needs map, offsets and points on the CPU")
    batch, channels, height, width = x.shape
    out_channels, _, num_points, _ = weight.shape
    # Positions and sums in single precision at least, whatever the map's.
    dtype = torch.promote_types(torch.promote_types(x.dtype, offset.dtype), torch.float32)
    sampling = _Sampling(
        batch=batch,
        height=height,
        width=width,
        channels=channels,
        points=num_points,
        stride=stride,
        zeros=padding == "zeros",
    )
    rows = x.permute(0, 2, 3, 1).reshape(-1, channels).to(dtype).contiguous()  # no copy of a channels-last map
    samples = _Native.apply(rows, offset.to(dtype), points.to(dtype).contiguous(), sampling)
    columns = samples.to(x.dtype).permute(0, 3, 1, 2)
    # A 1x1 convolution over N C channels; of channels-last weights this is no copy either.
    matrix = weight.squeeze(3).transpose(1, 2).reshape(out_channels, -1, 1, 1)
    return F.conv2d(columns, matrix, bias)


def serves(x: Tensor, p_conv: nn.Conv2d, weight: Tensor, bias: Tensor | None, *, points: Tensor, stride: int) -> bool:
    """Return whether `ak_layer_native` can stand in for `p_conv` and what follows: no gradients, nobody watching.

    The kernel reads memory by these shapes, so whatever does not fit together is left to torch, which says so.
    """
    if torch.is_grad_enabled() or torch.is_autocast_enabled("cpu") or x.dtype not in REALS or x.dim() != 4:
        return False
    channels, moves = x.shape[1], 2 * points.shape[0]
    tensors = [t for t in (p_conv.weight, p_conv.bias, weight, bias) if t is not None]
    return (
        tuple(p_conv.weight.shape) == (moves, channels, 3, 3)
        and (p_conv.stride, p_conv.padding, p_conv.dilation) == ((stride, stride), (1, 1), (1, 1))
        and tuple(weight.shape[1:]) == (channels, points.shape[0], 1)
        and (bias is None or tuple(bias.shape) == (weight.shape[0],))
        and all(t.dtype == x.dtype and t.device == x.device for t in tensors)
        and points.device == x.device
        and not (p_conv._forward_hooks or p_conv._forward_pre_hooks)
    )


def ak_layer_native(
    x: Tensor,
    p_conv: nn.Conv2d,
    weight: Tensor,
    bias: Tensor | None,
    *,
    points: Tensor,
    stride: int,
    padding: Padding,
) -> Tensor:
    """Compute a whole layer up to its batch norm, offsets included, row by row: (B, C, H, W) to (B, O, h, w).

    Args:
        x: the map, float32 or float64, on the CPU.
        p_conv: the 3x3 convolution of stride `stride` and padding 1 that makes the offsets.
        weight: (O, C, N, 1).
        bias: (O,) or None.
        points: (N, 2) initial points.
        stride: distance of output pixels on the input.
        padding: what lies beyond the map.

    Raises:
        MemoryError: there is none left.
    """
    batch, channels, height, width = x.shape
    outputs, _, num_points, _ = weight.shape
    out_h, out_w = (height - 1) // stride + 1, (width - 1) // stride + 1
    rows, points = x.permute(0, 2, 3, 1).contiguous(), points.to(x.dtype).contiguous()
    # Points and taps before channels: of weights that lie channels last these are no copies.
    offset_weight = p_conv.weight.permute(0, 2, 3, 1).contiguous()
    matrix = weight.squeeze(3).transpose(1, 2).contiguous()
    out = x.new_empty(batch, out_h, out_w, outputs)
    threads = torch.get_num_threads() if out.numel() * num_points > SMALL else 1
    shape = _Shape(
        *(batch, height, width, out_h, out_w, num_points, channels, stride),
        *(0, 0, 0, 0),
        *(padding == "zeros", threads, 1),
    )
    failed = load(x.dtype).layer(  # type: ignore[union-attr]  # whoever chose this has loaded it
        ctypes.byref(shape),
        *map(_address, (rows, offset_weight, p_conv.bias, points, matrix, bias)),
        ctypes.c_ssize_t(outputs),
        _address(out),
    )
    if failed:
        raise MemoryError(f"AKConv found no memory for the rows of a map of {height} x {width} pixels")
    return out.permute(0, 3, 1, 2)
