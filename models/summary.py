"""Model summary: a table of layers, parameters, and FLOPs including AKConv's sampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from models.yolo import DetectionModel, meta_copy


@dataclass(frozen=True, kw_only=True)
class LayerRow:
    """One layer: index, inputs, module name, parameters, and arguments as in the yaml."""

    index: int
    sources: tuple[int, ...]
    module: str
    parameters: int
    args: str


@dataclass(frozen=True, kw_only=True)
class ModelSummary:
    """A model's size and cost."""

    layers: tuple[LayerRow, ...]  # one row per layer
    parameters: int  # total number
    gflops: float  # 1e9 operations for one image, two per multiply-add
    sampling_gflops: float  # the part of `gflops` that is AKConv's sampling
    size_hw: tuple[int, int]  # height and width of the image

    def table(self) -> str:
        """Return the layers as an aligned table with the totals in the last line."""
        lines = [f"{'':>3}{'from':>14}{'parameters':>12}  {'module':<18}arguments"]
        for row in self.layers:
            sources = str(row.sources[0]) if len(row.sources) == 1 else str(list(row.sources))
            lines.append(f"{row.index:>3}{sources:>14}{row.parameters:>12,}  {row.module:<18}{row.args}")
        height, width = self.size_hw
        sampling = f", {self.sampling_gflops:.2f} of which sampling" if self.sampling_gflops else ""
        cost = f"{self.gflops:.2f} GFLOPs at {width}x{height} px{sampling}"
        lines.append(f"{len(self.layers)} layers, {self.parameters:,} parameters, {cost}")
        return "\n".join(lines)


def summarize(model: DetectionModel, size_hw: tuple[int, int] = (640, 640)) -> ModelSummary:
    """Count a model's parameters and operations for one image, on the meta device."""
    rows = [
        LayerRow(
            index=spec.index,
            sources=spec.sources,
            module=spec.module,
            parameters=sum(parameter.numel() for parameter in layer.parameters()),
            args=", ".join([*map(str, spec.args), *(f"{k}={v}" for k, v in spec.kwargs.items())]),
        )
        for spec, layer in zip(model.config.layers, model.model, strict=True)
    ]
    flops, sampling = count_flops(model, torch.empty(1, model.in_channels, *size_hw, device="meta"))
    return ModelSummary(
        layers=tuple(rows),
        parameters=sum(row.parameters for row in rows),
        gflops=flops / 1e9,
        sampling_gflops=sampling / 1e9,
        size_hw=size_hw,
    )


def count_flops(module: nn.Module, image: torch.Tensor) -> tuple[int, int]:
    """Count the operations of a module for one input on the meta device: all, and those that `extra_flops` reports.

    torch counts convolutions and matrix products; a module reports further operations by a method
    `extra_flops(output)`, as AKConv does.
    """
    copy = meta_copy(module).eval()
    extra = 0

    def add(counted: Any, _inputs: object, output: torch.Tensor) -> None:  # noqa: ANN401
        nonlocal extra
        extra += counted.extra_flops(output)

    for submodule in copy.modules():
        if hasattr(submodule, "extra_flops"):
            submodule.register_forward_hook(add)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        copy(image)
    return counter.get_total_flops() + extra, extra
