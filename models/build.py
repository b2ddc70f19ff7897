"""From a model config to its layers: rows are found in the registry and built one after the other."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

import models.common
import models.modules  # noqa: F401 - registers the modules
from models.config import ULTRALYTICS, USE_YOLOV5, LayerSpec, ModelConfig, parse_call
from models.head import Detect
from models.registry import LayerContext, ModuleEntry, lookup, registered_names, round_up
from utils.errors import ConfigError

DETECT = "Detect"
OTHER_HEADS = {  # last layers of related model yamls
    **dict.fromkeys(("Segment", "ISegment"), "a segmentation model"),
    "Classify": "a classification model",
    **dict.fromkeys(("Pose", "IKeypoint", "OBB"), "a model of keypoints or rotated boxes"),
    **dict.fromkeys(("IDetect", "IAuxDetect", "IBin"), "YOLOv7"),
    **dict.fromkeys(("DDetect", "DualDDetect", "TripleDDetect"), "YOLOv9"),
    **dict.fromkeys(("v10Detect", "WorldDetect", "RTDETRDecoder"), "an Ultralytics model"),
}
# Bounds of a whole model, several times those of the largest that ship, so that a few rows do not take gigabytes.
MAX_PARAMETERS = 500_000_000
MAX_MODULES = 2000  # rows times their repeats


def parse_model(config: ModelConfig, ch: int) -> nn.Sequential:
    """Build the layers of a config for `ch` input channels; the last layer is Detect.

    Raises:
        ConfigError: a module is unknown or its arguments are invalid; names the row.
    """
    activation = _activation(config.activation, where=config.where) if config.activation else None
    channels: dict[int, int] = {-1: ch}
    layers: list[nn.Module] = []
    modules = sum(max(round(spec.number * config.depth_multiple), 1) for spec in config.layers)
    if modules > MAX_MODULES:
        what = f"has {modules} modules in its {len(config.layers)} rows, more than {MAX_MODULES}"
        raise ConfigError(config.where, what, fix="lower `number`")
    room = MAX_PARAMETERS
    for spec in config.layers:
        is_last = spec.index == len(config.layers) - 1
        if is_last != (spec.module == DETECT):
            raise _wrong_head(spec, config)
        build = _build_detect if is_last else _build_layer
        layer, channels[spec.index] = build(spec, config, channels, activation, room)
        layers.append(layer)
        room -= count_parameters(layer)
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
    where = f"{config.where}: layer {spec.index} {spec.module}"
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
    spec: LayerSpec, config: ModelConfig, channels: dict[int, int], activation: nn.Module | None, room: int
) -> tuple[nn.Module, int]:
    """Build one row of at most `room` parameters; return the layer and its output channels."""
    where = f"{config.where}: layer {spec.index}"
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
        layers.append(_construct(entry, again, kwargs, where=where, room=room // repeats))
    return (layers[0] if repeats == 1 else nn.Sequential(*layers)), built.out_channels


def _argument(value: Any, *, where: str) -> Any:  # noqa: ANN401
    """Return an argument of a row, with the activation in place of `nn.ReLU()` and the like."""
    is_call = isinstance(value, str) and re.fullmatch(r"(torch\.)?nn\.\w+\(.*\)", value)
    return _activation(value, where=where) if is_call else value


def _construct(
    entry: ModuleEntry, args: Sequence[Any], kwargs: dict[str, Any], *, where: str, room: int = MAX_PARAMETERS
) -> nn.Module:
    """Call a module's constructor, on the meta device first, so that excessive sizes are refused before allocation.

    Raises:
        ConfigError: the arguments are invalid, or the module has more than `room` parameters.
    """
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about weights without elements, which are refused
            module = entry.factory(*args, **kwargs)
        empty = next((name for name, weight in module.named_parameters() if not weight.numel()), "")
        if empty:
            raise ValueError(f"{empty} would have no elements: channels or a kernel of size 0")
        count = count_parameters(module)
        if count > room:
            raise ValueError(f"would have {count:,} parameters; a model may have {MAX_PARAMETERS:,}")
        return entry.factory(*args, **kwargs)
    except (ValueError, TypeError, RuntimeError, ZeroDivisionError, OverflowError, AssertionError) as error:
        reason = str(error).splitlines()[0].replace(".__init__()", "")
        raise ConfigError(where, f"invalid arguments: {reason}", fix="correct the row's args") from error


def _build_detect(
    spec: LayerSpec, config: ModelConfig, channels: dict[int, int], activation: nn.Module | None, room: int
) -> tuple[nn.Module, int]:
    """Build the head from its row `[nc, anchors]`; anchors may be a count, to be fitted to the data later."""
    where = f"{config.where}: layer {spec.index} Detect"
    if list(spec.args) == ["nc"]:
        raise ConfigError(where, f"has no anchors, as in {ULTRALYTICS}", fix=USE_YOLOV5)
    if list(spec.args) not in (["nc", "anchors"], []) or spec.kwargs:
        given = [*spec.args, *([spec.kwargs] if spec.kwargs else [])]
        raise ConfigError(where, f"args must be [nc, anchors] (got {given})", fix="write [nc, anchors]")
    levels = [channels[source] for source in spec.sources]
    anchors = config.anchors
    if isinstance(anchors, int):
        anchors = _placeholder_anchors(anchors, len(levels))
    count = sum(len(level) // 2 * (5 + config.num_classes) * (c + 1) for level, c in zip(anchors, levels, strict=False))
    if count > room:
        what = f"would have {count:,} parameters; a model may have {MAX_PARAMETERS:,}"
        raise ConfigError(where, what, fix="lower nc or anchors")
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


def count_parameters(module: nn.Module) -> int:
    """Return the number of a module's parameters."""
    return sum(parameter.numel() for parameter in module.parameters())
