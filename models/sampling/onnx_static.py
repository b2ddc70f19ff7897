"""AKConv in ONNX graphs of fixed sizes: positions and borders are constants.

There are two forms. `gather` needs no operator beyond opset 12: the four pixels around each sample are rows of a
channels-last table, which are gathered, weighted and added, and a 1x1 convolution follows. `deform` is one DeformConv,
of opset 19, with an N x 1 kernel whose offsets are the differences between its regular positions and those of AKConv.
A position outside the map is clamped to its border, or for zero padding to a frame of zeros around it.
Letters: B batch, C and O input and output channels, (H, W) input size, (h, w) output size, N points.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.sampling.sampling_grid import SamplingGrid

Form = Literal["gather", "deform"]
_FORM: ContextVar[Form | None] = ContextVar("static_akconv_form", default=None)


@contextmanager
def fixed_sizes(form: Form) -> Iterator[None]:
    """Export AKConv layers in a form for the sizes of the traced images only."""
    token = _FORM.set(form)
    try:
        yield
    finally:
        _FORM.reset(token)


def fixed_size_form() -> Form | None:
    """Return the form of the surrounding `fixed_sizes`; None outside."""
    return _FORM.get()


# NumPy's arrays, since the tracer records what torch computes, even from constants.
def _constant(values: Any) -> Tensor:  # noqa: ANN401
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))


def _points(grid: SamplingGrid) -> np.ndarray:
    """Return the initial points (N, 2)."""
    return np.array(grid.points.tolist()).reshape(-1, 2)


def _pixels(height: int, width: int, stride: int) -> np.ndarray:
    """Return row and column of each output pixel in input pixels, (h, w, 2)."""
    return stride * np.indices((height, width)).transpose(1, 2, 0)


def ak_conv2d_gathers(
    x: Tensor, moves: Tensor, factors: Tensor | None, weight: Tensor, bias: Tensor | None, grid: SamplingGrid
) -> Tensor:
    """Compute `ak_conv2d` by gathers of rows. Its trace is valid for the traced sizes only.

    `moves`, (B, 2N, h, w), are the offsets of rows before those of columns.
    """
    batch, channels, height, width = (int(size) for size in x.shape)
    outputs, _, count, _ = (int(size) for size in weight.shape)
    out_h, out_w = grid.output_size(height, width)
    frame = int(grid.padding == "zeros")
    last_row, last_column = height - 1 + 2 * frame, width - 1 + 2 * frame
    # Low and high pixel are neighbours, so there must be two; the weight of one that is added here is zero.
    pads = (frame, frame + (last_column == 0), frame, frame + (last_row == 0))
    if any(pads):
        x = F.pad(x, pads)
        height, width = height + pads[2] + pads[3], width + pads[0] + pads[1]

    initial = _points(grid)[None, None] + _pixels(out_h, out_w, grid.stride)[:, :, None] + frame  # (h, w, N, 2)
    start = _constant(initial.transpose(0, 1, 3, 2).reshape(1, out_h, out_w, 2 * count))
    position = torch.maximum(moves.permute(0, 2, 3, 1) + start, _constant([0]))
    position = torch.minimum(position, _constant(np.repeat((last_row, last_column), count)))
    low = torch.minimum(position.floor(), _constant(np.repeat((height - 2, width - 2), count)))
    high_weight = position - low
    top_weight, left_weight = (1 - high_weight).split(count, -1)
    bottom_weight, right_weight = high_weight.split(count, -1)
    if factors is not None:
        factors = factors.permute(0, 2, 3, 1)
        top_weight, bottom_weight = top_weight * factors, bottom_weight * factors
    index = _first_pixels(low, count, batch, height, width)
    table = x.permute(0, 2, 3, 1).reshape(-1, channels)
    parts = []
    for below, row_weight in ((0, top_weight), (width, bottom_weight)):
        for beside, column_weight in ((0, left_weight), (1, right_weight)):
            pixels = table.index_select(0, index + (below + beside) if below + beside else index)
            parts.append(pixels * (row_weight * column_weight).reshape(-1, 1))
    samples = (parts[0] + parts[1] + parts[2] + parts[3]).reshape(batch, out_h * out_w, count * channels)
    columns = samples.permute(0, 2, 1).reshape(batch, count * channels, out_h, out_w)
    matrix = weight.squeeze(3).transpose(1, 2).reshape(outputs, count * channels, 1, 1)
    return F.conv2d(columns, matrix, bias)


def _first_pixels(low: Tensor, count: int, batch: int, height: int, width: int) -> Tensor:
    """Return the rows in the table of the top left pixels, (B h w N,) int32, from those pixels' rows and columns."""
    if batch * height * width > 2**24:  # integers above it are not exact in float32
        low = low.to(torch.int32)
    row, column = low.split(count, -1)
    first = row * width + column
    if batch > 1:
        start = np.arange(batch, dtype=np.int32).reshape(-1, 1, 1, 1) * (height * width)
        first = first + torch.from_numpy(start).to(low.dtype)
    return first.to(torch.int32).reshape(-1)


def ak_conv2d_deform(
    x: Tensor, moves: Tensor, factors: Tensor | None, weight: Tensor, bias: Tensor | None, grid: SamplingGrid
) -> Tensor:
    """Add `ak_conv2d` to an ONNX graph as DeformConv, for the traced sizes only.

    `moves`, (B, 2N, h, w), are row and column of each point in turn.
    """
    height, width = (int(size) for size in x.shape[2:])
    count, (out_h, out_w) = grid.num_points, grid.output_size(height, width)
    regular = np.stack((np.arange(count), np.zeros(count)), 1)
    moves = moves + _constant((_points(grid) - regular).reshape(-1, 1, 1))
    if grid.padding == "border":  # DeformConv reads zeros outside the map
        at = _pixels(out_h, out_w, grid.stride)[:, :, None] + regular  # (h, w, N, 2)
        lowest, highest = (
            _constant(bound.reshape(1, out_h, out_w, -1).transpose(0, 3, 1, 2))
            for bound in (-at, np.array((height - 1, width - 1)) - at)
        )
        moves = torch.minimum(torch.maximum(moves, lowest), highest)
    if bias is None and factors is not None:  # the operator's inputs have an order
        bias = weight.new_zeros(weight.shape[0])
    return _DeformConv.apply(x, weight, moves, bias, factors, grid.stride)


class _DeformConv(torch.autograd.Function):
    """An operator of the graph; outside of one only its shape."""

    @staticmethod
    def forward(_ctx: Any, _x: Tensor, weight: Tensor, moves: Tensor, *_: object) -> Tensor:  # noqa: ANN401
        return F.conv2d(moves, moves.new_zeros(weight.shape[0], moves.shape[1], 1, 1))

    @staticmethod
    def symbolic(graph: Any, x: Any, weight: Any, moves: Any, bias: Any, factors: Any, stride: int) -> Any:  # noqa: ANN401
        count = weight.type().sizes()[2]
        given = [value for value in (bias, factors) if value is not None and not value.node().mustBeNone()]
        attributes = {"kernel_shape_i": [count, 1], "strides_i": [stride] * 2, "pads_i": [0, 0, count - 1, 0]}
        return graph.op("DeformConv", x, weight, moves, *given, **attributes)
