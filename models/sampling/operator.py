"""The AKConv operator: validates its inputs and calls the chosen implementation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.sampling.cpu_kernel import ak_layer_cpu_kernel, is_supported
from models.sampling.dispatch import IMPLEMENTATIONS, choose, log_once
from models.sampling.sampling_grid import Padding, SamplingGrid


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
    """Apply the alterable kernel convolution.

    Args:
        x: (B, C, H, W).
        offset: (B, 2N, h, w) in input pixels, N row offsets before N column offsets; h = (H - 1) // stride + 1,
            likewise w.
        weight: (O, C, N, 1).
        bias: (O,) or None.
        points: (N, 2) initial points (row, column) in input pixels.
        stride: distance of neighbouring output pixels in input pixels.
        padding: value outside the map: the nearest border pixel (`border`) or zero (`zeros`).
        implementation: a name of `dispatch.IMPLEMENTATIONS`, overriding the choice.

    Returns:
        (B, O, h, w). A non-finite offset makes only its own output pixel NaN.

    Raises:
        ValueError: shapes do not match, or padding or implementation is unknown.

    Source: arXiv 2311.11587, eqs. 1 to 4.
    """
    grid = SamplingGrid(points, stride, padding)
    batch, channels, height, width = x.shape
    num_points, size = grid.num_points, grid.output_size(height, width)
    chosen = choose(x, implementation=implementation)
    if not torch.jit.is_tracing() and not torch.compiler.is_compiling():
        if tuple(weight.shape[1:]) != (channels, num_points, 1):
            raise ValueError(f"weight must be (O, {channels}, {num_points}, 1), got {tuple(weight.shape)}")
        if tuple(offset.shape) != (batch, 2 * num_points, *size):
            raise ValueError(f"offset must be {(batch, 2 * num_points, *size)}, got {tuple(offset.shape)}")
        if x.device.type != "meta":
            log_once(chosen, x.device.type)
    return IMPLEMENTATIONS[chosen](x, offset, weight, bias, grid)


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
    """Apply `ak_conv2d` with offsets that `p_conv`, a 3x3 convolution, predicts from the map.

    Arguments and errors are those of `ak_conv2d`. Without gradients one kernel may compute both steps. If `p_conv` has
    more than 2N output channels, the first 2N are the offsets.
    """
    grid = SamplingGrid(points, stride, padding)
    offset_channels = 2 * grid.num_points
    if choose(x) == "cpu_kernel" and is_supported(x, p_conv, weight, bias, grid):
        log_once("cpu_kernel", "cpu")
        return ak_layer_cpu_kernel(x, p_conv, weight, bias, grid)
    offset = p_conv(x)
    if p_conv.out_channels > offset_channels:
        offset = offset[:, :offset_channels]
    return ak_conv2d(x, offset, weight, bias, points=points, stride=stride, padding=padding)
