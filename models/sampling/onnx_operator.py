"""AKConv layers as one operator of ONNX Runtime: for graphs that run on this machine only, not for exported files.

The operator is the compiled kernel of layer_kernel.c, which onnxruntime_operator.c makes known to ONNX Runtime. Its
map is channels-last: ONNX Runtime merges the transpositions around it into the changes between its own layouts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from models.sampling.layer_kernel import LayerTensors, fits, pack
from models.sampling.sampling_grid import SamplingGrid

DOMAIN, NAME = "akconv", "Layer"  # those of onnxruntime_operator.c
_ENABLED: ContextVar[bool] = ContextVar("onnx_operators", default=False)


@contextmanager
def onnx_operators() -> Iterator[None]:
    """Export AKConv layers as operators of the compiled library `AKCONV_OPERATOR`, which a session must register."""
    token = _ENABLED.set(True)
    try:
        yield
    finally:
        _ENABLED.reset(token)


class _Layer(torch.autograd.Function):
    """A layer on a channels-last map: its shape only, and its node in the graph."""

    @staticmethod
    def forward(_ctx: Any, x: Tensor, _: object, attributes: dict[str, int]) -> Tensor:  # noqa: ANN401
        weight = x.new_zeros(attributes["outputs"], attributes["channels"], 3, 3)
        y = F.conv2d(x.permute(0, 3, 1, 2), weight, stride=attributes["stride"], padding=1)
        return y.permute(0, 2, 3, 1)

    @staticmethod
    def symbolic(graph: Any, x: Any, constants: list[Tensor], attributes: dict[str, int]) -> Any:  # noqa: ANN401
        values = [graph.op("Constant", value_t=constant) for constant in constants]
        named = {f"{name}_i": value for name, value in attributes.items()}
        y = graph.op(f"{DOMAIN}::{NAME}", x, *values, **named)
        y.setType(x.type().with_sizes([None, None, None, attributes["outputs"]]))
        return y


def layer_operator(x: Tensor, tensors: LayerTensors, grid: SamplingGrid, *, silu: bool) -> Tensor | None:
    """Add a layer to the ONNX graph as an operator, if `onnx_operators` is active and the kernel can compute it.

    Arguments are those of `PackedLayer`, and a map (B, C, H, W).
    """
    if not (_ENABLED.get() and fits(tensors, grid)):
        return None
    outputs, channels, points, _ = (int(size) for size in tensors.weight.shape)
    attributes = {
        "channels": channels,
        "outputs": outputs,
        "points": points,
        "stride": grid.stride,
        "zeros": int(grid.padding == "zeros"),
        "modulated": int(grid.modulated),
        "silu": int(silu),
    }
    if tensors.offset_bias is None:
        tensors = tensors._replace(offset_bias=tensors.offset_weight.new_zeros(grid.offset_channels))
    # Without depthwise weights, (3, 3, 1, C), an empty constant is in their place.
    constants = [torch.zeros(1, 1, 1, 0) if constant is None else constant for constant in pack(tensors)]
    y = _Layer.apply(x.permute(0, 2, 3, 1), constants, attributes)
    return y.permute(0, 3, 1, 2)
