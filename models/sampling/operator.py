"""The AKConv operator: validates its inputs and calls the chosen implementation."""

from __future__ import annotations

import os
from typing import cast

import torch
from torch import Tensor, nn

from models.sampling.dispatch import IMPLEMENTATIONS, VARIABLE, choose, log_once
from models.sampling.layer_kernel import LayerKernel, LayerTensors
from models.sampling.offset_convolution import predict_offsets
from models.sampling.onnx import ak_layer2d_onnx
from models.sampling.onnx_operator import layer_operator
from models.sampling.sampling_grid import MAX_SIDE, Gradient, Padding, SamplingGrid
from models.sampling.training_kernel import ak_layer_training, is_trainable


def ak_conv2d(
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
    implementation: str | None = None,
) -> Tensor:
    """Apply the alterable kernel convolution.

    Args:
        x: (B, C, H, W).
        offset: (B, 2N, h, w) in input pixels, N row offsets before N column offsets, and if `modulated` (B, 3N, h, w)
            with N factors after them; h = (H - 1) // stride + 1, likewise w.
        weight: (O, C, N, 1).
        bias: (O,) or None.
        points: (N, 2) initial points (row, column) in input pixels.
        stride: distance of neighbouring output pixels in input pixels.
        padding: value outside the map: the nearest border pixel (`border`) or zero (`zeros`).
        modulated: whether each sample is multiplied by a factor.
        gradient: derivative by a position that is an integer: that towards the next pixel (`one_sided`), or the mean
            of both sides (`symmetric`).
        implementation: a name of `dispatch.IMPLEMENTATIONS`, overriding the choice.

    Returns:
        (B, O, h, w). A non-finite offset makes only its own output pixel NaN.

    Raises:
        ValueError: shapes do not match, a side of the map exceeds 2^30 pixels, or padding, gradient or implementation
            is unknown.

    Source: arXiv 2311.11587, eqs. 1 to 4.
    """
    grid = SamplingGrid(points, stride, padding, modulated, gradient)
    batch, channels, height, width = x.shape
    offset_shape = (batch, grid.offset_channels, *grid.output_size(height, width))
    chosen = choose(x, implementation=implementation)
    if not torch.jit.is_tracing() and not torch.compiler.is_compiling():
        if tuple(weight.shape[1:]) != (channels, grid.num_points, 1):
            raise ValueError(f"weight must be (O, {channels}, {grid.num_points}, 1), got {tuple(weight.shape)}")
        if tuple(offset.shape) != offset_shape:
            raise ValueError(f"offset must be {offset_shape}, got {tuple(offset.shape)}")
        if max(height, width) > MAX_SIDE:
            raise ValueError(f"a map must have at most {MAX_SIDE} pixels along each side, got {height} x {width}")
        if x.device.type != "meta":
            log_once(chosen, x.device.type)
    return IMPLEMENTATIONS[chosen](x, offset, weight, bias, grid)


def ak_layer2d(x: Tensor, p_conv: nn.Module, conv: nn.Sequential, grid: SamplingGrid, kernel: LayerKernel) -> Tensor:
    """Apply `ak_conv2d` with offsets predicted from the map, then a norm and an activation.

    Args:
        x: (B, C, H, W).
        p_conv: predicts the offsets; made by `offset_convolution`.
        conv: the convolution over the samples, whose weight and bias are those of `ak_conv2d`, a norm, an activation.
        grid: the constants of the sampling.
        kernel: of this layer; without gradients it may compute all of this in one pass.

    Returns:
        (B, O, h, w).

    Raises:
        ValueError: as `ak_conv2d`.
    """
    if not torch.is_grad_enabled() and kernel.is_available and _prefers_layer_kernel(x):
        output = kernel(x, p_conv, conv, grid)
        if output is not None:
            return output
    columns, norm, act = cast(nn.Conv2d, conv[0]), conv[1], conv[2]
    if torch.onnx.is_in_onnx_export() and choose(x) == "onnx":
        return _in_onnx_graph(x, p_conv, conv, grid)
    return act(norm(_sampled_product(x, p_conv, columns.weight, columns.bias, grid)))


def _sampled_product(x: Tensor, p_conv: nn.Module, weight: Tensor, bias: Tensor | None, grid: SamplingGrid) -> Tensor:
    if choose(x) == "cpu_kernel" and is_trainable(x, p_conv, weight, bias, grid):
        log_once("cpu_kernel", "cpu")
        return ak_layer_training(x, p_conv, weight, bias, grid)
    return ak_conv2d(
        x,
        predict_offsets(x, p_conv, grid),
        weight,
        bias,
        points=grid.points,
        stride=grid.stride,
        padding=grid.padding,
        modulated=grid.modulated,
        gradient=grid.gradient,
    )


def _in_onnx_graph(x: Tensor, p_conv: nn.Module, conv: nn.Sequential, grid: SamplingGrid) -> Tensor:
    """Add `ak_layer2d` to the ONNX graph."""
    columns, norm, act = cast(nn.Conv2d, conv[0]), conv[1], conv[2]
    silu = type(norm) is nn.Identity and type(act) is nn.SiLU
    *depthwise, last = (module for module in p_conv.modules() if isinstance(module, nn.Conv2d))
    taps = depthwise[0].weight if depthwise else None
    tensors = LayerTensors(taps, last.weight, last.bias, grid.points, columns.weight, columns.bias)
    y = layer_operator(x, tensors, grid, silu=silu)
    if y is None:
        y = ak_layer2d_onnx(x, p_conv, columns.weight, columns.bias, grid)
    elif silu:
        return y
    return act(norm(y))


def _prefers_layer_kernel(x: Tensor) -> bool:
    """Return whether to use the kernel of whole layers; not in exported programs unless requested."""
    if not torch.compiler.is_compiling():
        if choose(x) != "cpu_kernel":
            return False
        log_once("cpu_kernel", "cpu")
        return True
    requested = os.environ.get(VARIABLE)
    default = not requested and not torch.compiler.is_exporting()
    return x.is_cpu and (requested == "cpu_kernel" or default)
