"""The network: `DetectionModel`, built from a model config."""

from __future__ import annotations

if __name__ == "__main__":  # `python models/yolo.py --cfg yolov5n.yaml`, as in YOLOv5, is `python -m models`
    import runpy
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    runpy.run_module("models", run_name="__main__", alter_sys=True)

import copy
import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

import models.common
from models.build import DETECT, count_parameters, parse_model
from models.config import LayerSpec, ModelConfig, load_model_config
from models.head import Detect
from utils.errors import ConfigError

Output = list[Tensor] | tuple[Tensor, list[Tensor]]
# Bounds several times those of the largest models that ship, so that a few rows do not take gigabytes or minutes.
MEASURED_SIZE = 128  # of the image on which strides are measured, in pixels
MAX_ELEMENTS = 2**24  # of a map at 128 pixels
MAX_RAW = 2**28  # of the head's maps: 100,000 classes are possible
MAX_OPERATIONS = 5e10  # parameters times the pixels of the input, at 128 pixels


class DetectionModel(nn.Module):
    """A detector: maps images (B, ch, H, W) in [0, 1], H and W multiples of `max_stride`, to predictions.

    `config` has the actual number of classes; `model` holds the layers in order, the last one being Detect.
    """

    def __init__(
        self, cfg: str | dict[str, Any] | ModelConfig = "yolov5n.yaml", ch: int = 3, nc: int | None = None
    ) -> None:
        """Build the network with random weights.

        `cfg` is the name or path of a model yaml, its mapping, or a validated config; `ch` is the number of input
        channels; `nc` overrides the config's number of classes. An invalid config is a ConfigError that names the row.
        """
        super().__init__()
        if isinstance(cfg, dict):
            cfg = ModelConfig.from_dict(cfg, name="model")
        config = load_model_config(cfg) if isinstance(cfg, str) else cfg
        self.config = config if nc is None else replace(config, num_classes=nc)
        self.in_channels = ch
        self.model = parse_model(self.config, ch)
        self.sources = [layer.sources for layer in self.config.layers]
        self._kept = {source for sources in self.sources for source in sources}
        self.head.set_strides(self._measure_strides(), where=self.config.where)
        self._require_same_strides()

    @property
    def head(self) -> Detect:
        """The detection head."""
        head = self.model[-1]
        if not isinstance(head, Detect):
            raise TypeError(f"the last layer is {type(head).__name__}, not Detect")
        return head

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.head.nc

    @property
    def max_stride(self) -> int:
        """Stride of the coarsest map in pixels: image sizes must be multiples of it.

        It exceeds those of the head if the head leaves out the coarsest maps, as in yolov5-p34.
        """
        return max(*self.head.strides, self._coarsest)

    def forward(self, x: Tensor) -> Output:
        """Return raw maps in training mode, predictions and raw maps in evaluation mode (see `Detect`)."""
        outputs: dict[int, Tensor] = {-1: x}
        y: Any = x
        for index in range(len(self.model)):
            y = self._layer_output(index, outputs)
            if index in self._kept:
                outputs[index] = y
        return y

    def _layer_output(self, index: int, outputs: dict[int, Tensor]) -> Any:  # noqa: ANN401
        """Apply one layer to its stored inputs."""
        layer = self.model[index]
        maps = [outputs[source] for source in self.sources[index]]
        reads_list = len(maps) > 1 or isinstance(layer, (Detect, models.common.Concat))
        return layer(maps if reads_list else maps[0])

    def _measure_strides(self) -> list[int]:
        """Measure each level's stride on a small black image.

        The meta device would take seconds: its first addition loads torch's compiler.
        """
        size = MEASURED_SIZE
        outputs = self._outputs(size, size)
        cells = [(level.shape[2], level.shape[3]) for level in outputs.pop(len(self.model) - 1)]
        if any(height != width or not 0 < height <= size or size % height for height, width in cells):
            what = f"the head's maps are {cells} cells for {size} px, so the stride is not an integer"
            raise ConfigError(self.config.where, what, fix="check strides and paddings")
        # A map of one cell may be pooled, as in channel attention, whatever the image's size.
        heights = [y.shape[2] for y in outputs.values() if isinstance(y, Tensor) and y.dim() == 4 and y.shape[2] > 1]
        self._coarsest = max((size // height for height in heights if size % height == 0), default=1)
        return [size // height for height, _ in cells]

    def _outputs(self, height: int, width: int) -> dict[int, Any]:
        """Return the outputs of all layers for a black image; a ConfigError names a row that takes too much."""
        self.eval()  # batch norm must not see it
        self.head.train()
        device = next(self.parameters()).device
        outputs: dict[int, Any] = {-1: torch.zeros(1, self.in_channels, height, width, device=device)}
        with torch.no_grad(), torch.random.fork_rng(devices=[]):  # a layer may be random
            operations, allowed = 0, MAX_OPERATIONS * height * width / MEASURED_SIZE**2
            for spec in self.config.layers:
                layer = self.model[spec.index]
                inputs = [outputs[source] for source in spec.sources if isinstance(outputs[source], Tensor)]
                elements = sum(expected_elements(layer, x) for x in inputs)
                if spec.module != DETECT:
                    operations += max((math.prod(x.shape[2:]) for x in inputs), default=0) * count_parameters(layer)
                if operations > allowed or elements > (MAX_RAW if spec.module == DETECT else MAX_ELEMENTS):
                    what = f"takes {operations:.1e} operations and {elements:.1e} numbers for {height} x {width} px"
                    where = f"{self.config.where}: layer {spec.index} {spec.module}"
                    raise ConfigError(where, what, fix="lower channels, sizes and repeats")
                self._add_output(spec, outputs)
        self.train()
        return outputs

    def _add_output(self, spec: LayerSpec, outputs: dict[int, Any]) -> None:
        """Add the output of one layer; a ConfigError names the row if the shapes of its inputs do not match."""
        try:
            outputs[spec.index] = self._layer_output(spec.index, outputs)
        except (RuntimeError, ValueError, TypeError, IndexError, AttributeError, ZeroDivisionError) as error:
            height, width = outputs[-1].shape[2:]
            what = f"shapes do not match for {height} x {width} px: {str(error).splitlines()[0]}"
            raise ConfigError(
                f"{self.config.where}: layer {spec.index} {spec.module}", what, fix="check from and args"
            ) from error

    def _require_same_strides(self) -> None:
        """Raise a ConfigError if maps match, or have the measured strides, at the measured size only."""
        # A stride of s where s - 1 is needed gives, with some padding, the right number of cells at s sizes in a row.
        # Five more cells than were measured are beyond that for strides up to 5, few columns keep the image small.
        measured = MEASURED_SIZE // self.max_stride
        height, width = (measured + 5) * self.max_stride, min(measured, 3) * self.max_stride
        cells = [tuple(level.shape[2:4]) for level in self._outputs(height, width)[len(self.model) - 1]]
        expected = [(height // stride, width // stride) for stride in self.head.strides]
        if cells != expected:
            what = f"the head's maps are {cells} cells for {height} x {width} px, not {expected} as their strides say"
            raise ConfigError(self.config.where, what, fix="check strides and paddings")


def expected_elements(layer: nn.Module, x: Tensor) -> int:
    """Return about how many numbers the largest map in a layer has for one input (B, C, H, W)."""
    height, width = map(float, x.shape[2:] if x.dim() == 4 else (1, 1))
    largest = x.numel()
    for module in layer.modules():
        if isinstance(module, nn.Upsample):
            scale, size = module.scale_factor or 1, module.size or 0
            height, width = (max(side * _largest(scale), _largest(size)) for side in (height, width))
        elif isinstance(module, nn.ConvTranspose2d):
            height, width = height * _largest(module.stride), width * _largest(module.stride)
        kernel, dilation = getattr(module, "kernel_size", 1), getattr(module, "dilation", 1)
        beyond = 2 * _largest(getattr(module, "padding", 0)) - _largest(dilation) * (_largest(kernel) - 1)
        height, width = height + max(beyond, 0), width + max(beyond, 0)
        channels = [max(p.shape[0], math.prod(p.shape[1:])) for p in module.parameters(recurse=False)]
        largest = max(largest, int(height * width) * max(channels, default=x.shape[1]))
    return largest


def _largest(value: Any) -> float:  # noqa: ANN401
    """Return a number, or the largest of a sequence of numbers; 0 for text, such as padding="same"."""
    numbers = value if isinstance(value, (tuple, list)) else [value]
    return max((number for number in numbers if isinstance(number, (int, float))), default=0)


def meta_copy(model: nn.Module) -> Any:  # noqa: ANN401
    """Copy a module to the meta device, where it computes shapes only."""
    memo: dict[int, Any] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        empty = tensor.detach().to("meta")
        memo[id(tensor)] = nn.Parameter(empty, requires_grad=False) if isinstance(tensor, nn.Parameter) else empty
    return copy.deepcopy(model, memo)
