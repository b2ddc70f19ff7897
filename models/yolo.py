"""From a model config to the network."""

from __future__ import annotations

if __name__ == "__main__":  # `python models/yolo.py --cfg yolov5n.yaml`, as in YOLOv5, is `python -m models`
    import runpy
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    runpy.run_module("models", run_name="__main__", alter_sys=True)

import copy
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

import models.common
import models.modules
from models.config import ULTRALYTICS, USE_YOLOV5, LayerSpec, ModelConfig, load_model_config, parse_call
from models.head import Detect
from models.registry import LayerContext, ModuleEntry, lookup, registered_names, round_up
from utils.errors import ConfigError

Output = list[Tensor] | tuple[Tensor, list[Tensor]]
DETECT = "Detect"
OTHER_HEADS = {  # last layers of related model yamls
    **dict.fromkeys(("Segment", "ISegment"), "a segmentation model"),
    "Classify": "a classification model",
    **dict.fromkeys(("Pose", "IKeypoint", "OBB"), "a model of keypoints or rotated boxes"),
    **dict.fromkeys(("IDetect", "IAuxDetect", "IBin"), "YOLOv7"),
    **dict.fromkeys(("DDetect", "DualDDetect", "TripleDDetect"), "YOLOv9"),
    **dict.fromkeys(("v10Detect", "WorldDetect", "RTDETRDecoder"), "an Ultralytics model"),
}
MAX_PARAMETERS_PER_LAYER = 2_000_000_000


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
        self.head.set_strides(self._measure_strides(), where=self.config.name)

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
        size = 128
        self.eval()  # batch norm must not see it
        self.head.train()
        device = next(self.parameters()).device
        outputs: dict[int, Any] = {-1: torch.zeros(1, self.in_channels, size, size, device=device)}
        with torch.no_grad(), torch.random.fork_rng(devices=[]):  # a layer may be random
            for spec in self.config.layers:
                try:
                    outputs[spec.index] = self._layer_output(spec.index, outputs)
                except (RuntimeError, ValueError, TypeError, IndexError, AttributeError, ZeroDivisionError) as error:
                    where = f"{self.config.name}: layer {spec.index} {spec.module}"
                    what = f"shapes do not match: {str(error).splitlines()[0]}"
                    raise ConfigError(where, what, fix="check from and args") from error
        self.train()
        cells = [(level.shape[2], level.shape[3]) for level in outputs.pop(len(self.model) - 1)]
        if any(height != width or not 0 < height <= size or size % height for height, width in cells):
            what = f"the head's maps are {cells} cells for {size} px, so the stride is not an integer"
            raise ConfigError(self.config.name, what, fix="check strides and paddings")
        # A map of one cell may be pooled, as in channel attention, whatever the image's size.
        heights = [y.shape[2] for y in outputs.values() if isinstance(y, Tensor) and y.dim() == 4 and y.shape[2] > 1]
        self._coarsest = max((size // height for height in heights if size % height == 0), default=1)
        return [size // height for height, _ in cells]


def meta_copy(model: nn.Module) -> Any:  # noqa: ANN401
    """Copy a module to the meta device, where it computes shapes only."""
    memo: dict[int, Any] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        empty = tensor.detach().to("meta")
        memo[id(tensor)] = nn.Parameter(empty, requires_grad=False) if isinstance(tensor, nn.Parameter) else empty
    return copy.deepcopy(model, memo)


def parse_model(config: ModelConfig, ch: int) -> nn.Sequential:
    """Build the layers of a config for `ch` input channels; the last layer is Detect.

    Raises:
        ConfigError: a module is unknown or its arguments are invalid; names the row.
    """
    activation = _activation(config.activation, where=config.name) if config.activation else None
    channels: dict[int, int] = {-1: ch}
    layers = []
    for spec in config.layers:
        is_last = spec.index == len(config.layers) - 1
        if is_last != (spec.module == DETECT):
            raise _wrong_head(spec, config)
        build = _build_detect if is_last else _build_layer
        layer, channels[spec.index] = build(spec, config, channels, activation)
        layers.append(layer)
    return nn.Sequential(*layers)


def _activation(text: str, *, where: str) -> nn.Module:
    """Return the activation of a call such as `nn.LeakyReLU(0.1)`; ConfigError for anything else."""
    where = f"{where}: activation"
    name, args, kwargs = parse_call(text, where=where)
    entry = lookup(name, where=where)
    if entry.factory.__module__ not in (nn.SiLU.__module__, nn.Identity.__module__):
        raise ConfigError(where, f"{name} is not an activation", fix="write e.g. nn.ReLU()")
    return _construct(entry, args, kwargs, where=f"{where} {name}")


def _wrong_head(spec: LayerSpec, config: ModelConfig) -> ConfigError:
    """Return the error for a row that is Detect but not the last one, or the other way round."""
    where = f"{config.name}: layer {spec.index} {spec.module}"
    fix = "end the head with [[...], 1, Detect, [nc, anchors]]"
    if spec.module in OTHER_HEADS:
        return ConfigError(
            where, f"is the head of {OTHER_HEADS[spec.module]}; only YOLOv5's Detect is supported", fix=fix
        )
    if spec.module == DETECT or spec.module.removeprefix("torch.") in registered_names():
        return ConfigError(where, "Detect must be the last layer and occur once", fix=fix)
    what = "unknown head; only YOLOv5's Detect is supported"
    return ConfigError(where, what, fix=f"{fix}, and add other modules with --plugins")


def _build_layer(
    spec: LayerSpec, config: ModelConfig, channels: dict[int, int], activation: nn.Module | None
) -> tuple[nn.Module, int]:
    """Build one row; return the layer and its output channels."""
    where = f"{config.name}: layer {spec.index}"
    entry = lookup(spec.module, where=where)
    where = f"{where} {spec.module}"
    repeats = max(round(spec.number * config.depth_multiple), 1) if spec.number > 1 else 1
    constants = {"nc": config.num_classes, "anchors": config.anchors}
    row = LayerContext(
        in_channels=tuple(channels[source] for source in spec.sources),
        args=tuple(_argument(constants.get(a, a) if isinstance(a, str) else a, where=where) for a in spec.args),
        repeats=repeats,
        width=lambda nominal: round_up(nominal * config.width_multiple, config.channel_multiple),
        module=spec.module,
    )
    try:
        built = entry.rule(row)
    except ValueError as error:
        raise ConfigError(where, str(error), fix="correct the row") from error
    args = built.args
    if entry.takes_repeats:
        args = (*args[:2], repeats, *args[2:])
        repeats = 1
    kwargs = {keyword: _argument(value, where=where) for keyword, value in spec.kwargs.items()}
    if activation is not None and "act" not in kwargs and (entry.keywords is None or "act" in entry.keywords):
        kwargs["act"] = activation
    layers = []
    for copy_index in range(repeats):
        again = (built.out_channels, *args[1:]) if copy_index and args[:1] == row.in_channels else args
        layers.append(_construct(entry, again, kwargs, where=where, copies=repeats))
    return (layers[0] if repeats == 1 else nn.Sequential(*layers)), built.out_channels


def _argument(value: Any, *, where: str) -> Any:  # noqa: ANN401
    """Return an argument of a row, with the activation in place of `nn.ReLU()` and the like."""
    is_call = isinstance(value, str) and re.fullmatch(r"(torch\.)?nn\.\w+\(.*\)", value)
    return _activation(value, where=where) if is_call else value


def _construct(
    entry: ModuleEntry, args: Sequence[Any], kwargs: dict[str, Any], *, where: str, copies: int = 1
) -> nn.Module:
    """Call a module's constructor, on the meta device first, so that excessive sizes are refused before allocation.

    Raises:
        ConfigError: the arguments are invalid, or the layer of `copies` modules is too large.
    """
    try:
        with torch.device("meta"):
            count = sum(parameter.numel() for parameter in entry.factory(*args, **kwargs).parameters())
        if count * copies > MAX_PARAMETERS_PER_LAYER:
            raise ValueError(f"would have {count * copies:,} parameters")
        return entry.factory(*args, **kwargs)
    except (ValueError, TypeError, RuntimeError, ZeroDivisionError, OverflowError, AssertionError) as error:
        reason = str(error).splitlines()[0].replace(".__init__()", "")
        raise ConfigError(where, f"invalid arguments: {reason}", fix="correct the row's args") from error


def _build_detect(
    spec: LayerSpec, config: ModelConfig, channels: dict[int, int], activation: nn.Module | None
) -> tuple[nn.Module, int]:
    """Build the head from its row `[nc, anchors]`; anchors may be a count, to be fitted to the data later."""
    where = f"{config.name}: layer {spec.index} Detect"
    if list(spec.args) == ["nc"]:
        raise ConfigError(where, f"has no anchors, as in {ULTRALYTICS}", fix=USE_YOLOV5)
    if list(spec.args) not in (["nc", "anchors"], []) or spec.kwargs:
        given = [*spec.args, *([spec.kwargs] if spec.kwargs else [])]
        raise ConfigError(where, f"args must be [nc, anchors] (got {given})", fix="write [nc, anchors]")
    levels = [channels[source] for source in spec.sources]
    anchors = config.anchors
    if isinstance(anchors, int):
        anchors = _placeholder_anchors(anchors, len(levels))
    try:
        return Detect(config.num_classes, anchors, levels), 0
    except ValueError as error:
        raise ConfigError(where, str(error), fix="give anchors for every level") from error


def _placeholder_anchors(count: int, levels: int) -> tuple[tuple[float, ...], ...]:
    """Return squares from 8 pixels, each twice the area of the previous one, until anchors are fitted to the data.

    More than fifteen are spaced more closely, so that the largest is 1024 pixels.
    """
    growth = min(math.sqrt(2), 128 ** (1 / max(count * levels - 1, 1)))
    sides = [8 * growth**n for n in range(count * levels)]
    return tuple(
        tuple(side for side in sides[level * count : (level + 1) * count] for _ in "wh") for level in range(levels)
    )
