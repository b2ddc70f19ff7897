"""AKConv as nodes of an ONNX graph, for any batch, height and width.

There are two forms. From opset 19 it is one DeformConv with an N x 1 kernel, whose offsets are the differences between
its regular positions and those of AKConv; a non-finite offset is then clamped to the border instead of giving NaN.
Offsets of rows and columns are in one tensor, in DeformConv's order: row and column of each point in turn.
Below opset 19, and in half precision, which cannot represent positions, it is four gathers of rows of a channels-last
map, their weighted sum, and a matrix product. Graphs of fixed sizes have forms of their own: onnx_static.py.
Letters: B batch, C and O input and output channels, (H, W) input size, (h, w) output size, N points, M = B h w N.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.sampling.onnx_static import ak_conv2d_deform, ak_conv2d_gathers, fixed_size_form
from models.sampling.sampling_grid import Padding, SamplingGrid
from models.sampling.torchscript import ak_conv2d_torchscript

DEFORM_CONV_SINCE = 19
FLOAT, FLOAT16, INT32 = 1, 10, 6  # ONNX data types
CHANNELS_LAST = [0, 2, 3, 1]
LAST = torch.iinfo(torch.int64).max  # the end of a slice that reaches to the end
FAR = 1e6  # pixels: beyond every map
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

    def constant(self, value: Any, dtype: torch.dtype = torch.float32) -> Value:  # noqa: ANN401
        """Add a constant."""
        return self("Constant", value_t=torch.as_tensor(value, dtype=dtype))

    def integers(self, *values: int) -> Value:
        """Add a one-dimensional int64 constant."""
        return self.constant(values, torch.int64)

    def entry(self, vector: Value, index: Any) -> Value:  # noqa: ANN401
        """Add the entries of a vector at one index, as a scalar, or at a tensor of indices, in its shape."""
        return self("Gather", vector, self.constant(index, torch.int64), axis_i=0)

    def grid(self, size: Value, shape: tuple[int, ...]) -> Value:
        """Add where the output pixels are along an axis of the map, in int64 and a shape, from the map's size there."""
        # With float numbers, ONNX Runtime's shape inference of Range fails if the size is known.
        zero, step = (self.constant(value, torch.int64) for value in (0, self.kernel.stride))
        return self("Reshape", self("Range", zero, size, step), self.integers(*shape))

    def bounded(self, position: Value, lowest: Value, highest: Value) -> Value:
        """Add positions clamped to bounds; NaN becomes the lowest."""
        return self("Min", self("Where", self("Less", lowest, position), position, lowest), highest)


def _deform_conv(
    nodes: _Nodes, x: Value, moves: Value, factors: Value | None, weight: Value, bias: Value | None
) -> Value:
    """Add AKConv as DeformConv, whose kernel samples at (i * stride + n, j * stride) plus its offsets."""
    kernel, count = nodes.kernel, nodes.count

    def channels(pairs: Sequence[Sequence[float]]) -> Tensor:
        """Return a constant (2N, 1, 1) from the row and column of N points, or of one for all."""
        return torch.tensor([*pairs] * (count // len(pairs)), dtype=torch.float32).view(-1, 1, 1)

    regular = channels([(n, 0) for n in range(count)])
    # Runtimes add this to the bias of the convolution that predicts the offsets.
    moves = nodes("Add", moves, nodes.constant(channels(kernel.points) - regular))
    if kernel.padding == "zeros":  # is what DeformConv reads outside the map, but it does not check for NaN
        moves = nodes("Where", nodes("Less", nodes.constant(-FAR), moves), moves, nodes.constant(-FAR))
    else:
        shape, parts = nodes("Shape", x), []
        for axis, ends, mask in ((2, (-1, 1), (1, 0)), (3, (1, -1), (0, 1))):
            grid = nodes.grid(nodes.entry(shape, axis), ends)
            parts.append(nodes("Mul", grid, nodes.constant(channels([mask]), torch.int64)))
        grid = nodes("Add", nodes("Cast", nodes("Add", *parts), to_i=FLOAT), nodes.constant(regular))  # (2N, h, w)
        sizes = nodes("Cast", nodes.entry(shape, channels([(2, 3)])), to_i=FLOAT)
        highest = nodes("Sub", nodes("Sub", sizes, nodes.constant(1)), grid)
        moves = nodes.bounded(moves, nodes("Neg", grid), highest)
    inputs = [x, weight, moves] if bias is None else [x, weight, moves, bias]
    if factors is not None:
        inputs = [*inputs[:3], bias or nodes.constant(torch.zeros(kernel.outputs)), factors]
    attributes = {"kernel_shape_i": [count, 1], "strides_i": [kernel.stride] * 2, "pads_i": [0, 0, count - 1, 0]}
    return nodes("DeformConv", *inputs, **attributes)


def _neighbours(nodes: _Nodes, moves: Value, shape: Value, axis: int) -> tuple[Value, Value, Value, Value]:
    """Add low and high index along an axis, int32 inside the map, and their weights, (B, h, w, N) each.

    `shape` is that of the map in channels-last form.
    """
    points = torch.tensor([point[axis] for point in nodes.kernel.points], dtype=torch.float32)
    border, size = nodes.kernel.padding == "border", nodes.entry(shape, 1 + axis)
    grid = nodes("Cast", nodes.grid(size, (-1, 1, 1) if axis == 0 else (-1, 1)), to_i=FLOAT)
    of_axis = nodes("Slice", moves, *(nodes.integers(value) for value in (axis, LAST, 1, 2)))
    position = nodes(
        "Add", nodes("Transpose", of_axis, perm_i=CHANNELS_LAST), nodes("Add", grid, nodes.constant(points))
    )
    size, zero, one = nodes("Cast", size, to_i=FLOAT), nodes.constant(0), nodes.constant(1)
    last = nodes("Sub", size, one)
    bounded = nodes.bounded(position, zero if border else nodes.constant(-1), last if border else size)
    low = nodes("Floor", bounded)
    # 0 times a non-finite position is NaN, which makes its own output pixel NaN.
    high_weight = nodes("Add", nodes("Sub", bounded, low), nodes("Mul", position, zero))
    low_weight, high = nodes("Sub", one, high_weight), nodes("Add", low, one)
    if not border:
        low_exists = nodes("And", nodes("Less", nodes.constant(-0.5), low), nodes("Less", low, size))
        low_weight = nodes("Mul", low_weight, nodes("Cast", low_exists, to_i=FLOAT))
        high_weight = nodes("Mul", high_weight, nodes("Cast", nodes("Less", high, size), to_i=FLOAT))
        low = nodes("Min", nodes("Max", low, zero), last)
    high = nodes("Min", high, last)
    return nodes("Cast", low, to_i=INT32), nodes("Cast", high, to_i=INT32), low_weight, high_weight


def _row_gathers(
    nodes: _Nodes, x: Value, moves: Value, factors: Value | None, matrix: Value, bias: Value | None
) -> Value:
    """Add AKConv as gathers of rows; `matrix` is (O, N C), point-major."""
    kernel = nodes.kernel
    rows = nodes("Transpose", x, perm_i=CHANNELS_LAST)  # sizes are read from this: reading those of x would copy it
    shape = nodes("Shape", rows)
    by_axis = [_neighbours(nodes, moves, shape, axis) for axis in (0, 1)]
    (top, bottom, top_weight, bottom_weight), (left, right, left_weight, right_weight) = by_axis
    if factors is not None:
        factors = nodes("Transpose", factors, perm_i=CHANNELS_LAST)
        top_weight, bottom_weight = (nodes("Mul", row_weight, factors) for row_weight in (top_weight, bottom_weight))
    batch, height, width = (nodes.entry(shape, axis) for axis in (0, 1, 2))
    zero, one = nodes.constant(0, torch.int64), nodes.constant(1, torch.int64)
    first = nodes("Mul", nodes("Range", zero, batch, one), nodes("Mul", height, width))
    first = nodes("Cast", nodes("Reshape", first, nodes.integers(-1, 1, 1, 1)), to_i=INT32)
    width = nodes("Cast", width, to_i=INT32)
    top, bottom = (nodes("Add", nodes("Mul", row, width), first) for row in (top, bottom))
    table = nodes("Reshape", rows, nodes.integers(-1, kernel.channels))
    if kernel.half:
        table = nodes("Cast", table, to_i=FLOAT)
    ones = nodes.constant(torch.ones(1, kernel.channels))
    total = None
    for row, row_weight in ((top, top_weight), (bottom, bottom_weight)):
        for column, column_weight in ((left, left_weight), (right, right_weight)):
            index = nodes("Reshape", nodes("Add", row, column), nodes.integers(-1))
            weights = nodes("Reshape", nodes("Mul", row_weight, column_weight), nodes.integers(-1, 1))
            # The product with ones repeats each weight C times, which is faster than a broadcast multiplication.
            part = nodes("Mul", nodes("Gather", table, index, axis_i=0), nodes("MatMul", weights, ones))  # (M, C)
            total = part if total is None else nodes("Add", total, part)
    if kernel.half:
        total = nodes("Cast", total, to_i=FLOAT16)
    columns = nodes.integers(nodes.count * kernel.channels)
    stacked = nodes("Concat", nodes.entry(shape, [0]), nodes.integers(-1), columns, axis_i=0)
    samples = nodes("Transpose", nodes("Reshape", total, stacked), perm_i=[0, 2, 1])  # (B, N C, h w)
    y = nodes("MatMul", matrix, samples)  # (B, O, h w)
    ends = nodes.entry(nodes("Shape", moves), [2, 3])
    y = nodes("Reshape", y, nodes("Concat", nodes.integers(0, -1), ends, axis_i=0))
    return y if bias is None else nodes("Add", y, nodes("Reshape", bias, nodes.integers(-1, 1, 1)))


def _order(num_points: int) -> list[int]:
    """Return the channels of offsets, N of rows before N of columns, as row and column of each point in turn.

    Gathers for fixed sizes take them as they are.
    """
    if fixed_size_form() == "gather":
        return list(range(2 * num_points))
    return [axis * num_points + n for n in range(num_points) for axis in (0, 1)]


class _Layer(torch.autograd.Function):
    """An AKConv layer that computes with `embedding_bag` and exports itself as the nodes above.

    Its offsets, (B, 2N, h, w), are row and column of each point in turn.
    """

    @staticmethod
    def forward(_ctx: Value, *inputs: Any) -> Tensor:  # noqa: ANN401
        """Compute the layer; during export, only a tensor of its shape.

        The exporter traces this function for the shape and replaces it by the nodes of `symbolic`; it fails on more
        than a few operations.
        """
        x, moves, factors, weight, _, bias, points, kernel = inputs
        if torch.jit.is_tracing():
            return F.conv2d(moves, moves.new_zeros(kernel.outputs, moves.shape[1], 1, 1)).to(x.dtype)
        grid = SamplingGrid(points, kernel.stride, kernel.padding, kernel.modulated)
        offset = [moves[:, 0::2], moves[:, 1::2], *([] if factors is None else [factors])]
        return ak_conv2d_torchscript(x, torch.cat(offset, 1), weight, bias, grid)

    @staticmethod
    def symbolic(graph: Any, *inputs: Value) -> Value:  # noqa: ANN401
        """Add the layer's nodes for the inputs of `forward`."""
        x, moves, factors, weight, matrix, bias, _, kernel = inputs
        deformable = graph.opset >= DEFORM_CONV_SINCE and not kernel.half
        nodes = _Nodes(graph, kernel)
        if kernel.half:
            moves, factors = (value and nodes("Cast", value, to_i=FLOAT) for value in (moves, factors))
        if deformable:
            return _deform_conv(nodes, x, moves, factors, weight, bias)
        return _row_gathers(nodes, x, moves, factors, matrix, bias)


def ak_conv2d_onnx(x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor | None, grid: SamplingGrid) -> Tensor:
    """Compute `ak_conv2d`, and add it to the ONNX graph during export."""
    order = torch.tensor(_order(grid.num_points), device=offset.device)
    factors = offset[:, 2 * grid.num_points :] if grid.modulated else None
    return _apply(x, offset.index_select(1, order), factors, weight, bias, grid)


def ak_layer2d_onnx(x: Tensor, p_conv: nn.Module, weight: Tensor, bias: Tensor | None, grid: SamplingGrid) -> Tensor:
    """Add `ak_layer2d` to the ONNX graph: the offsets' order is that of the weights which predict them."""
    *depthwise, last = (module for module in p_conv.modules() if isinstance(module, nn.Conv2d))
    split = 2 * grid.num_points
    order = torch.tensor([*_order(grid.num_points), *range(split, grid.offset_channels)], device=x.device)
    source = depthwise[0](x) if depthwise else x
    kernel, offset_bias = last.weight.index_select(0, order), last.bias
    if offset_bias is not None:
        offset_bias = offset_bias.index_select(0, order)
    predicted = F.conv2d(source, kernel, offset_bias, last.stride, last.padding)
    if not grid.modulated:
        return _apply(x, predicted, None, weight, bias, grid)
    return _apply(x, predicted[:, :split], 2 * predicted[:, split:].sigmoid(), weight, bias, grid)


def _apply(
    x: Tensor, moves: Tensor, factors: Tensor | None, weight: Tensor, bias: Tensor | None, grid: SamplingGrid
) -> Tensor:
    """Apply `_Layer`, or the form for fixed sizes."""
    if form := fixed_size_form():
        static = ak_conv2d_gathers if form == "gather" else ak_conv2d_deform
        return static(x, moves, factors, weight, bias, grid)
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
    return _Layer.apply(x, moves, factors, weight, matrix, bias, grid.points, kernel)
