"""The AKConv operator: checks its inputs, and hands them to the implementation that suits."""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor, nn

from models.sampling.cpu_kernel import ak_layer_native, serves
from models.sampling.dispatch import IMPLEMENTATIONS, choose, log_once
from models.sampling.sampling_grid import Padding


def ak_conv2d(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    points: Tensor,
    stride: int = 1,
    padding: Padding = "border",
    implementation: str | None = None,
) -> Tensor:
    """Convolve with an alterable kernel.

    Args:
        x: (B, C, H, W).
        offset: (B, 2N, h, w) in input pixels, N row offsets before N column offsets; h = (H - 1) // stride + 1,
            likewise w.
        weight: (O, C, N, 1).
        bias: (O,) or None.
        points: (N, 2) initial points (row, column) in input pixels.
        stride: distance of output pixels on the input.
        padding: what lies beyond the map: its nearest border pixel (`border`), or zero (`zeros`).
        implementation: a name of `choose.IMPLEMENTATIONS`, in place of the one chosen.

    Returns:
        (B, O, h, w). A non-finite offset makes its own output pixel NaN and touches nothing else.

    Raises:
        ValueError: the shapes do not fit together, or there is no such padding or implementation.

    Source: arXiv 2311.11587, eqs. 1 to 4.
    """
    if padding not in get_args(Padding):
        raise ValueError(f"padding must be one of {get_args(Padding)}, got {padding!r}")
    batch, channels, height, width = x.shape
    num_points = points.shape[0]
    size = ((height - 1) // stride + 1, (width - 1) // stride + 1)
    chosen = choose(x, implementation=implementation)
    if not torch.jit.is_tracing() and not torch.compiler.is_compiling():
        if tuple(weight.shape[1:]) != (channels, num_points, 1):
            raise ValueError(f"weight must be (O, {channels}, {num_points}, 1), got {tuple(weight.shape)}")
        if tuple(offset.shape) != (batch, 2 * num_points, *size):
            raise ValueError(f"offset must be {(batch, 2 * num_points, *size)}, got {tuple(offset.shape)}")
        if x.device.type != "meta":
            log_once(chosen, x.device.type)
    run = IMPLEMENTATIONS[chosen]
    return run(x, offset, weight, bias, points=points, stride=stride, padding=padding)


def ak_layer2d(
    x: Tensor,
    p_conv: nn.Conv2d,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    points: Tensor,
    stride: int = 1,
    padding: Padding = "border",
) -> Tensor:
    """Convolve with an alterable kernel whose offsets `p_conv`, a 3x3 convolution, makes of the map itself.

    Args and errors are those of `ak_conv2d`; without gradients both may be done in one pass. Of a convolution with more
    than 2N channels the first 2N are offsets.
    """
    moves = 2 * points.shape[0]
    if (
        choose(x) == "native"
        and padding in get_args(Padding)
        and serves(x, p_conv, weight, bias, points=points, stride=stride)
    ):
        log_once("native", "cpu")
        return ak_layer_native(x, p_conv, weight, bias, points=points, stride=stride, padding=padding)
    offset = p_conv(x)
    if p_conv.out_channels > moves:
        offset = offset[:, :moves]
    return ak_conv2d(x, offset, weight, bias, points=points, stride=stride, padding=padding)
