"""Model summary: a table of layers, parameters, and FLOPs including AKConv's sampling."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from models.fuse import fused
from models.modules.akconv import AKConv
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
        return "\n".join([*lines, self.totals()])

    def totals(self) -> str:
        """Return the numbers of layers and parameters, and the operations, in one line."""
        height, width = self.size_hw
        sampling = f", {self.sampling_gflops:.2f} of which sampling" if self.sampling_gflops else ""
        cost = f"{self.gflops:.2f} GFLOPs at {width}x{height} px{sampling}"
        return f"{len(self.layers)} layers, {self.parameters:,} parameters, {cost}"


def summarize(model: DetectionModel, size_hw: tuple[int, int] = (640, 640)) -> ModelSummary:
    """Count a model's parameters and operations for one image, whose sides are multiples of the stride."""
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
    flops, sampling = model_flops(model, size_hw)
    return ModelSummary(
        layers=tuple(rows),
        parameters=sum(row.parameters for row in rows),
        gflops=flops / 1e9,
        sampling_gflops=sampling / 1e9,
        size_hw=size_hw,
    )


def model_line(model: DetectionModel) -> str:
    """Return a model's size in one line, with batch norms folded and counted as YOLOv5 7.0 does.

    Its layers are modules at any depth, where all activations of a kind are one.
    """
    folded = fused(model)
    modules = [module for module in folded.modules() if not isinstance(module, nn.Identity)]
    activations = [type(m) for m in modules if type(m).__module__ == nn.SiLU.__module__ and not [*m.children()]]
    layers = len(modules) - len(activations) + len(set(activations))
    parameters = sum(parameter.numel() for parameter in folded.parameters())
    side = math.ceil(640 / model.max_stride) * model.max_stride
    gflops = model_flops(model, (side, side))[0] / 1e9
    return f"{model.config.name}: {layers} layers, {parameters:,} parameters, {gflops:.1f} GFLOPs at {side}x{side} px"


def model_flops(model: DetectionModel, size_hw: tuple[int, int]) -> tuple[int, int]:
    """Count a model's operations for one image: all, and those of the sampling; sides are multiples of the stride.

    They are a polynomial of the image's area: constant after global pooling, quadratic in attention between all pixels,
    linear elsewhere. So counts of three small images give that of a large one, without computing it.
    """
    stride, parameter = model.max_stride, next(model.parameters())
    counts = {}
    for cells in (2, 3, 4):
        image = torch.zeros(1, model.in_channels, cells * stride, cells * stride).to(parameter)
        counts[cells**2] = count_flops(model, image)
    area = Fraction(size_hw[0] * size_hw[1], stride**2)
    factors = {a: math.prod((area - b) / (a - b) for b in counts if b != a) for a in counts}  # by Lagrange
    flops, sampling = (round(sum(factors[a] * counts[a][part] for a in counts)) for part in (0, 1))
    return flops, sampling


def count_flops(module: nn.Module, image: torch.Tensor) -> tuple[int, int]:
    """Count the operations of a module for one input, which may be on the meta device: all, and those of the sampling.

    torch counts convolutions and matrix products; a module reports further operations by a method
    `extra_flops(output)`, as AKConv does, whose convolutions may be part of a compiled kernel.
    """
    copied = meta_copy(module).eval() if image.is_meta else copy.deepcopy(module).eval()
    counter, extra = _FlopCounter(), 0

    def pause(_module: nn.Module, _inputs: object) -> None:
        counter.paused = True

    def add(counted: Any, _inputs: object, output: torch.Tensor) -> None:  # noqa: ANN401
        nonlocal extra
        extra += counted.extra_flops(output)
        if isinstance(counted, AKConv):
            counter.paused = False
            counter.flops += counted.convolution_flops(output)

    for submodule in copied.modules():
        if isinstance(submodule, AKConv):
            submodule.register_forward_pre_hook(pause)
        if hasattr(submodule, "extra_flops"):
            submodule.register_forward_hook(add)
    # As matrix products: the CPU's own kernel of attention has no formula.
    with torch.no_grad(), torch.random.fork_rng(devices=[]), sdpa_kernel(SDPBackend.MATH), counter:
        copied(image)
    return counter.flops + extra, extra


class _FlopCounter(TorchDispatchMode):
    """Counts the operations of convolutions and matrix products by torch's own formulas."""

    def __init__(self) -> None:
        super().__init__()
        self.flops, self.paused = 0, False

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Refuse a wrapper whose first call imports torch's compiler, which takes seconds."""
        return False

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        output = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None and not self.paused:
            self.flops += formula(*args, **(kwargs or {}), out_val=output)
        return output
