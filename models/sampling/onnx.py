"""AKConv as nodes of an ONNX graph, for any batch, height and width.

There are two forms. From opset 19 it is one DeformConv with an N x 1 kernel, whose offsets are the differences between
its regular positions and those of AKConv; a non-finite offset is then clamped to the border instead of giving NaN.
Below opset 19, and in half precision, which cannot represent positions, it is four gathers of rows of a channels-last
map, their weighted sum, and a matrix product.
Letters: B batch, C and O input and output channels, (H, W) input size, (h, w) output size, N points, M = B h w N.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from models.sampling.sampling_grid import Padding, SamplingGrid
from models.sampling.torchscript import ak_conv2d_torchscript

DEFORM_CONV_SINCE = 19
FLOAT, FLOAT16, INT32 = 1, 10, 6  # ONNX data types
Value = Any  # a value of the graph


@dataclass(frozen=True, kw_only=True)
class _Kernel:
    """The constants of a layer during export: channels, N points, stride, padding, with factors, in half precision."""

    channels: int
    outputs: int
    points: tuple[tuple[float, float], ...]
    stride: int
    padding: Padding
    modulated: bool
    half: bool


class _Nodes:
    """The graph under construction, with helpers for common nodes."""

    def __init__(self, graph: Any, kernel: _Kernel) -> None:  # noqa: ANN401
        self.graph = graph
        self.kernel = kernel
        self.count = len(kernel.points)

    def __call__(self, kind: str, *inputs: Value, **attributes: Any) -> Value:  # noqa: ANN401
        """Add a node."""
        return self.graph.op(kind, *inputs, **attributes)

    def integers(self, *values: int) -> Value:
        """Add a one-dimensional int64 constant."""
        return self("Constant", value_t=torch.tensor(values, dtype=torch.int64))

    def scalar(self, value: float, dtype: torch.dtype = torch.float32) -> Value:
        """Add a scalar constant."""
        return self("Constant", value_t=torch.tensor(value, dtype=dtype))

    def size(self, tensor: Value, axis: int) -> Value:
        """Add the length of an axis as an int64 scalar."""
        return self("Gather", self("Shape", tensor), self.scalar(axis, torch.int64), axis_i=0)

    def coordinates(self, axis: int) -> Tensor:
        """Return the initial points' coordinates along an axis, (N, 1, 1) float32."""
        return torch.tensor([point[axis] for point in self.kernel.points], dtype=torch.float32).view(-1, 1, 1)

    def grid(self, length: Value, axis: int) -> Value:
        """Add the positions of the kernel's points without offsets along an axis: (N, h, 1) or (N, 1, w)."""
        places = self("Range", self.scalar(0, torch.int64), length, self.scalar(1, torch.int64))
        scaled = self("Mul", self("Cast", places, to_i=FLOAT), self.scalar(self.kernel.stride))
        shape = (1, -1, 1) if axis == 0 else (1, 1, -1)
        points = self("Constant", value_t=self.coordinates(axis))
        return self("Add", self("Reshape", scaled, self.integers(*shape)), points)

    def positions(self, offset: Value, grid: Value, axis: int) -> Value:
        """Add the sampling positions along an axis, (B, N, h, w)."""
        return self("Add", self.channels(offset, axis * self.count, (axis + 1) * self.count), grid)

    def channels(self, tensor: Value, start: int, end: int) -> Value:
        """Add a slice of the channels of a tensor (B, C, h, w)."""
        return self("Slice", tensor, self.integers(start), self.integers(end), self.integers(1), self.integers(1))

    def bounded(self, position: Value, size: Value) -> Value:
        """Add positions clamped to the map, or to one pixel outside with zero padding; NaN becomes the lowest."""
        lowest, beyond = (0, -1) if self.kernel.padding == "border" else (-1, 0)
        low = self.scalar(lowest)
        position = self("Where", self("Less", low, position), position, low)
        highest = self("Add", self("Cast", size, to_i=FLOAT), self.scalar(beyond))
        return self("Min", position, highest)


def _deform_conv(
    nodes: _Nodes, x: Value, offset: Value, factors: Value | None, weight: Value, bias: Value | None
) -> Value:
    """Add AKConv as DeformConv, whose kernel samples at (i * stride + n, j * stride) plus its offsets."""
    steps = torch.arange(nodes.count, dtype=torch.float32).view(-1, 1, 1)
    parts = []
    for axis in (0, 1):
        grid = nodes.grid(nodes.size(offset, 2 + axis), axis)
        place = nodes.bounded(nodes.positions(offset, grid, axis), nodes.size(x, 2 + axis))
        shift = (steps if axis == 0 else 0 * steps) - nodes.coordinates(axis)
        regular = nodes("Add", grid, nodes("Constant", value_t=shift))
        parts.append(nodes("Unsqueeze", nodes("Sub", place, regular), nodes.integers(2)))
    pairs = nodes("Concat", *parts, axis_i=2)  # (B, N, 2, h, w)
    moved = nodes("Reshape", pairs, nodes("Shape", offset))
    inputs = [x, weight, moved] if bias is None else [x, weight, moved, bias]
    if factors is not None:
        inputs = [*inputs[:3], bias or nodes("Constant", value_t=torch.zeros(nodes.kernel.outputs)), factors]
    stride = nodes.kernel.stride
    pads = [0, 0, nodes.count - 1, 0]
    return nodes("DeformConv", *inputs, kernel_shape_i=[nodes.count, 1], strides_i=[stride, stride], pads_i=pads)


def _neighbours(nodes: _Nodes, position: Value, size: Value) -> tuple[Value, Value, Value, Value]:
    """Add low and high index, int32 inside the map, and their weights, each of the position's shape."""
    bounded = nodes.bounded(position, size)
    floor = nodes("Floor", bounded)
    # 0 times a non-finite position is NaN, which makes its own output pixel NaN.
    high_weight = nodes("Add", nodes("Sub", bounded, floor), nodes("Mul", position, nodes.scalar(0)))
    low_weight = nodes("Sub", nodes.scalar(1), high_weight)
    low, high = floor, nodes("Add", floor, nodes.scalar(1))
    last = nodes("Sub", nodes("Cast", size, to_i=FLOAT), nodes.scalar(1))
    if nodes.kernel.padding == "zeros":
        inside = nodes("Less", nodes.scalar(-0.5), low), nodes("Less", low, nodes("Cast", size, to_i=FLOAT))
        exists = nodes("And", *inside)
        low_weight = nodes("Mul", low_weight, nodes("Cast", exists, to_i=FLOAT))
        exists = nodes("Less", high, nodes("Cast", size, to_i=FLOAT))
        high_weight = nodes("Mul", high_weight, nodes("Cast", exists, to_i=FLOAT))
        low = nodes("Min", nodes("Max", low, nodes.scalar(0)), last)
    high = nodes("Min", high, last)
    return nodes("Cast", low, to_i=INT32), nodes("Cast", high, to_i=INT32), low_weight, high_weight


def _row_gathers(
    nodes: _Nodes, x: Value, offset: Value, factors: Value | None, matrix: Value, bias: Value | None
) -> Value:
    """Add AKConv as gathers of rows; `matrix` is (O, N C), point-major."""
    channels = nodes.kernel.channels
    rows = nodes("Transpose", x, perm_i=[0, 2, 3, 1])  # sizes are read from this: reading those of x would copy it
    batch, width = nodes.size(rows, 0), nodes.size(rows, 2)
    axes = []
    for axis in (0, 1):
        grid = nodes.grid(nodes.size(offset, 2 + axis), axis)
        position = nodes("Transpose", nodes.positions(offset, grid, axis), perm_i=[0, 2, 3, 1])  # (B, h, w, N)
        axes.append(_neighbours(nodes, position, nodes.size(rows, 1 + axis)))
    (top, bottom, top_weight, bottom_weight), (left, right, left_weight, right_weight) = axes
    if factors is not None:
        factors = nodes("Transpose", factors, perm_i=[0, 2, 3, 1])
        top_weight, bottom_weight = (nodes("Mul", row_weight, factors) for row_weight in (top_weight, bottom_weight))
    area = nodes("Mul", nodes.size(rows, 1), width)
    images = nodes("Range", nodes.scalar(0, torch.int64), batch, nodes.scalar(1, torch.int64))
    first = nodes("Reshape", nodes("Mul", images, area), nodes.integers(-1, 1, 1, 1))
    first, width = nodes("Cast", first, to_i=INT32), nodes("Cast", width, to_i=INT32)
    top, bottom = (nodes("Add", nodes("Mul", row, width), first) for row in (top, bottom))
    table = nodes("Reshape", rows, nodes.integers(-1, channels))
    if nodes.kernel.half:
        table = nodes("Cast", table, to_i=FLOAT)
    ones = nodes("Constant", value_t=torch.ones(1, channels))
    total = None
    for row, row_weight in ((top, top_weight), (bottom, bottom_weight)):
        for column, column_weight in ((left, left_weight), (right, right_weight)):
            index = nodes("Reshape", nodes("Add", row, column), nodes.integers(-1))
            weights = nodes("Reshape", nodes("Mul", row_weight, column_weight), nodes.integers(-1, 1))
            # The product with ones repeats each weight C times, which is faster than a broadcast multiplication.
            part = nodes("Mul", nodes("Gather", table, index, axis_i=0), nodes("MatMul", weights, ones))  # (M, C)
            total = part if total is None else nodes("Add", total, part)
    if nodes.kernel.half:
        total = nodes("Cast", total, to_i=FLOAT16)
    columns = nodes.integers(nodes.count * channels)
    shape = nodes("Concat", nodes("Reshape", batch, nodes.integers(1)), nodes.integers(-1), columns, axis_i=0)
    samples = nodes("Transpose", nodes("Reshape", total, shape), perm_i=[0, 2, 1])  # (B, N C, h w)
    y = nodes("MatMul", matrix, samples)  # (B, O, h w)
    sizes = nodes("Shape", offset)
    ends = nodes("Slice", sizes, nodes.integers(2), nodes.integers(4), nodes.integers(0), nodes.integers(1))
    y = nodes("Reshape", y, nodes("Concat", nodes.integers(0, -1), ends, axis_i=0))
    return y if bias is None else nodes("Add", y, nodes("Reshape", bias, nodes.integers(-1, 1, 1)))


class _Layer(torch.autograd.Function):
    """An AKConv layer that computes with `embedding_bag` and exports itself as the nodes above."""

    @staticmethod
    def forward(_ctx: Value, *inputs: Any) -> Tensor:  # noqa: ANN401
        """Compute the layer; during export, only a tensor of its shape.

        The exporter traces this function for the shape and replaces it by the nodes of `symbolic`; it fails on more
        than a few operations.
        """
        x, offset, weight, _, bias, points, kernel = inputs
        if torch.jit.is_tracing():
            return F.conv2d(offset, offset.new_zeros(kernel.outputs, offset.shape[1], 1, 1)).to(x.dtype)
        grid = SamplingGrid(points, kernel.stride, kernel.padding, kernel.modulated)
        return ak_conv2d_torchscript(x, offset, weight, bias, grid)

    @staticmethod
    def symbolic(graph: Any, *inputs: Value) -> Value:  # noqa: ANN401
        """Add the layer's nodes for the inputs of `forward`."""
        x, offset, weight, matrix, bias, _, kernel = inputs
        nodes = _Nodes(graph, kernel)
        offset, factors = nodes("Cast", offset, to_i=FLOAT) if kernel.half else offset, None
        if kernel.modulated:
            split = 2 * nodes.count
            offset, factors = nodes.channels(offset, 0, split), nodes.channels(offset, split, split + nodes.count)
        if graph.opset >= DEFORM_CONV_SINCE and not kernel.half:
            return _deform_conv(nodes, x, offset, factors, weight, bias)
        return _row_gathers(nodes, x, offset, factors, matrix, bias)


def ak_conv2d_onnx(x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor | None, grid: SamplingGrid) -> Tensor:
    """Compute `ak_conv2d`, and add it to the ONNX graph during export."""
    out_channels, channels, num_points, _ = (int(size) for size in weight.shape)
    kernel = _Kernel(
        channels=channels,
        outputs=out_channels,
        points=tuple((float(row), float(column)) for row, column in grid.points.tolist()),
        stride=grid.stride,
        padding=grid.padding,
        modulated=grid.modulated,
        half=x.dtype == torch.float16,
    )
    weight = weight.to(x.dtype)
    matrix = weight.squeeze(3).transpose(1, 2).reshape(out_channels, num_points * channels)
    return _Layer.apply(x, offset, weight, matrix, bias, grid.points, kernel)
