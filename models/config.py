"""Model yamls as validated, immutable configs. Errors name the file and the row."""

from __future__ import annotations

import ast
import contextlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from utils.errors import ConfigError, did_you_mean
from utils.files import PROJECT_ROOT, find_file
from utils.literals import NOT_A_LITERAL, parse_expression, parse_literal
from utils.log import LOGGER
from utils.strict_yaml import load_yaml

MODEL_FOLDER = PROJECT_ROOT / "models"
# size: (depth multiple, width multiple)
SIZES = {"n": (0.33, 0.25), "s": (0.33, 0.50), "m": (0.67, 0.75), "l": (1.0, 1.0), "x": (1.33, 1.25)}
MAX_LAYERS = 1000
MAX_REPEATS = 1000
MAX_ANCHORS = 100
KNOWN_KEYS = tuple("nc depth_multiple width_multiple anchors activation channel_multiple backbone head".split())
ULTRALYTICS = "Ultralytics' model yamls (YOLOv8, YOLO11 and others), which are not supported"
USE_YOLOV5 = "use a YOLOv5 model yaml, such as yolov5n.yaml; [nc, anchors] are the args of its Detect"
# Keys that only files of another kind have.
FOREIGN_KEYS = {
    **dict.fromkeys(("scales", "end2end", "reg_max", "kpt_shape"), (f"is one of {ULTRALYTICS}", USE_YOLOV5)),
    **dict.fromkeys(("train", "val", "names"), ("is a data yaml, not a model yaml", "pass it with --data")),
    **dict.fromkeys(("lr0", "momentum"), ("has hyperparameters, not a model", "pass it with --hyp")),
}
Anchors = tuple[tuple[float, ...], ...]


@dataclass(frozen=True, kw_only=True)
class LayerSpec:
    """One row `[from, number, module, args]`."""

    index: int  # layer index over backbone and head, from 0
    sources: tuple[int, ...]  # indices of the input layers; -1 is the image
    number: int  # repeats before the depth multiple
    module: str  # registered name
    args: tuple[Any, ...]  # positional literals
    kwargs: dict[str, Any]  # keyword arguments, from a mapping as the last argument


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A validated model yaml."""

    name: str  # file name without folder, for tables
    num_classes: int
    depth_multiple: float  # scales the repeats
    width_multiple: float  # scales the channels
    channel_multiple: int  # channels are rounded up to a multiple of this
    anchors: Anchors | int  # per level w, h, w, h, ... in pixels; or the number per level, to be fitted to the data
    activation: str | None  # a call such as `nn.LeakyReLU(0.1)`, or None for SiLU
    layers: tuple[LayerSpec, ...]  # backbone and head in order
    backbone_length: int  # number of backbone layers
    path: str = field(default="", compare=False)  # of the file, as it was given; "" for other sources

    @property
    def where(self) -> str:
        """What errors call the config: its file's path, or its name."""
        return self.path or self.name

    def to_dict(self) -> dict[str, Any]:
        """Return the mapping of the yaml, from which `from_dict` restores an equal config."""
        rows = [
            [
                list(layer.sources) if len(layer.sources) > 1 else layer.sources[0],
                layer.number,
                layer.module,
                # A mapping among the positional arguments stands in quotes: as the last item it would be keywords.
                [
                    *(repr(arg) if isinstance(arg, dict) else _plain(arg) for arg in layer.args),
                    *([_plain(layer.kwargs)] if layer.kwargs else []),
                ],
            ]
            for layer in self.layers
        ]
        return {
            "nc": self.num_classes,
            "depth_multiple": self.depth_multiple,
            "width_multiple": self.width_multiple,
            "channel_multiple": self.channel_multiple,
            "anchors": self.anchors if isinstance(self.anchors, int) else [list(level) for level in self.anchors],
            "activation": self.activation,
            "backbone": rows[: self.backbone_length],
            "head": rows[self.backbone_length :],
        }

    @classmethod
    def from_dict(cls, value: dict[str, Any], *, name: str, path: str = "") -> ModelConfig:
        """Validate the mapping of a model yaml; messages name `path`, or `name` without one.

        Raises:
            ConfigError: something is invalid; names the file, the row and the field.
        """
        where = path or name
        for key in value:
            if key in FOREIGN_KEYS:
                what, fix = FOREIGN_KEYS[key]
                raise ConfigError(where, f"{what} (it has the key {key!r})", fix=fix)
            if key not in KNOWN_KEYS:
                hint = did_you_mean(str(key), KNOWN_KEYS) or f"use one of {', '.join(KNOWN_KEYS)}"
                raise ConfigError(where, f"unknown key {key!r}", fix=hint)
        for part in ("backbone", "head"):
            if not isinstance(value.get(part), list):
                what = f"{part} must be a list of rows (got {type(value.get(part)).__name__})"
                raise ConfigError(where, what, fix=f"add {part}")
        rows = [*value["backbone"], *value["head"]]
        if not rows:
            raise ConfigError(where, "has no layers", fix="add backbone and head")
        if len(rows) > MAX_LAYERS:
            raise ConfigError(where, f"has {len(rows)} rows, more than {MAX_LAYERS}", fix="use `number` for repeats")
        activation = value.get("activation")
        if not isinstance(activation, str | None):
            what = f"activation {activation!r} is not a string"
            raise ConfigError(where, what, fix="write nn.SiLU() or nn.LeakyReLU(0.1)")
        return cls(
            name=name,
            num_classes=_integer(value.get("nc", 80), "nc", where=where),
            depth_multiple=_multiple(value.get("depth_multiple", 1.0), "depth_multiple", where=where),
            width_multiple=_multiple(value.get("width_multiple", 1.0), "width_multiple", where=where),
            channel_multiple=_integer(value.get("channel_multiple", 8), "channel_multiple", where=where),
            anchors=_anchors(value.get("anchors", 3), where=where),
            activation=activation,
            layers=tuple(_layer(row, index, where=where) for index, row in enumerate(rows)),
            backbone_length=len(value["backbone"]),
            path=path,
        )


def load_model_config(name: str, *, log: bool = True) -> ModelConfig:
    """Read a model yaml by path or by bare name in any letter case.

    If only a file of another size exists (for `yolov5s-akconv-neck.yaml`, the n file), that file is used with the
    multiples of the requested size, which is logged if `log`. A file that is missing or invalid is a ConfigError.
    """
    try:
        path = find_file(name, folders=[MODEL_FOLDER], flag="--cfg")
    except ConfigError:
        variant = _scaled_variant(name)
        if variant is None:
            raise
        path, size = variant
        depth, width = SIZES[size]
        if log:
            LOGGER.info(f"{Path(name).name}: using {path.name} with the multiples of size {size} ({depth}, {width})")
        value = {**load_yaml(path), "depth_multiple": depth, "width_multiple": width}
        return ModelConfig.from_dict(value, name=Path(name).stem + path.suffix)
    ships = path.is_relative_to(MODEL_FOLDER) and len(Path(name).parts) == 1  # and is known by its bare name
    return ModelConfig.from_dict(load_yaml(path), name=path.name, path="" if ships else str(path))


def _scaled_variant(name: str) -> tuple[Path, str] | None:
    """Return the yaml that differs from `name` only in its size letter, and the requested letter."""
    match = re.fullmatch(r"(yolov5)([nsmlx])(.*?)(\.yaml)?", Path(name).name, re.IGNORECASE)
    if match is None or len(Path(name).parts) > 1:
        return None
    for size in SIZES:
        with contextlib.suppress(ConfigError):
            path = find_file(f"{match[1]}{size}{match[3]}.yaml", folders=[MODEL_FOLDER], flag="--cfg")
            return path, match[2].lower()
    return None


def _plain(value: Any) -> Any:  # noqa: ANN401
    """Return an argument in the form from which `literal` restores it."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, tuple) or (isinstance(value, str) and literal(value) != value):
        return repr(value)
    return value


def _integer(value: Any, key: str, *, where: str) -> int:  # noqa: ANN401
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 100_000:
        raise ConfigError(where, f"{key} must be an integer from 1 to 100000 (got {value!r})", fix=f"correct {key}")
    return value


def _multiple(value: Any, key: str, *, where: str) -> float:  # noqa: ANN401
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 16:
        raise ConfigError(where, f"{key} must be a number in (0, 16] (got {value!r})", fix=f"correct {key}")
    return float(value)


def _anchors(value: Any, *, where: str) -> Anchors | int:  # noqa: ANN401
    """Validate anchors: a count per level, or per level an even number of positive sizes in pixels."""
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_ANCHORS:
        return value
    valid = isinstance(value, list) and all(
        isinstance(level, list)
        and level
        and len(level) % 2 == 0
        and all(isinstance(v, (int, float)) and not isinstance(v, bool) and 0 < v < 1e5 for v in level)
        for level in value
    )
    if not valid or not value or len({len(level) for level in value}) != 1:
        what = f"anchors {str(value)[:60]!r} are invalid"
        raise ConfigError(where, what, fix="give per level the same number of w, h pairs in pixels")
    return tuple(tuple(float(v) for v in level) for level in value)


def _layer(row: Any, index: int, *, where: str) -> LayerSpec:  # noqa: ANN401
    """Validate one row."""
    where = f"{where}: layer {index}"
    if not isinstance(row, list) or len(row) not in (3, 4):
        raise ConfigError(where, f"row {str(row)[:60]!r} is invalid", fix="write [from, number, module, args]")
    source, number, module = row[:3]
    args = row[3] if len(row) == 4 else []
    if not isinstance(module, str):
        raise ConfigError(where, f"module {module!r} is not a name", fix="write the module's name as the third item")
    where = f"{where} {module}"
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= MAX_REPEATS:
        raise ConfigError(where, f"number must be from 1 to {MAX_REPEATS} (got {number!r})", fix="correct the row")
    if not isinstance(args, list):
        raise ConfigError(where, f"args must be a list (got {args!r})", fix="write [arg, ...]")
    kwargs = args[-1] if args and isinstance(args[-1], dict) else {}
    if any(not isinstance(key, str) for key in kwargs):
        raise ConfigError(where, f"keyword arguments need names (got {kwargs!r})", fix="write {name: value}")
    return LayerSpec(
        index=index,
        sources=_sources(source, index, where=where),
        number=number,
        module=module,
        args=tuple(literal(arg) for arg in (args[:-1] if kwargs else args)),
        kwargs={key: literal(arg) for key, arg in kwargs.items()},
    )


def _sources(value: Any, index: int, *, where: str) -> tuple[int, ...]:  # noqa: ANN401
    """Convert `from` to absolute layer indices; only the first layer reads the image."""
    listed = value if isinstance(value, list) else [value]
    if not listed or any(isinstance(v, bool) or not isinstance(v, int) for v in listed):
        raise ConfigError(where, f"from {value!r} must be layer indices", fix="use -1 or earlier layers")
    absolute = []
    for v in listed:
        target = index + v if v < 0 else v
        if target >= index:
            later = "itself" if target == index else f"layer {target}, which comes later"
            raise ConfigError(where, f"from {value!r} refers to {later}", fix=f"use an index < {index}")
        if target < -1 or (target == -1 and index > 0):
            raise ConfigError(where, f"from {value!r} reaches before the first layer", fix="use -1 or an earlier layer")
        absolute.append(target)
    return tuple(absolute)


def literal(value: Any) -> Any:  # noqa: ANN401
    """Return an argument as a literal: `'None'`, `'[1, 2]'` and `'true'` are parsed, other strings stay strings."""
    if isinstance(value, list):
        return [literal(item) for item in value]
    if not isinstance(value, str):
        return value
    try:
        return parse_literal({"true": "True", "false": "False"}.get(value, value))
    except NOT_A_LITERAL:
        return value


def parse_call(text: str, *, where: str) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    """Split `nn.LeakyReLU(0.1, inplace=True)` into name, positional and keyword literals without evaluating it.

    Text of another form is a ConfigError.
    """
    try:
        node = parse_expression(text.strip())
        call = node if isinstance(node, ast.Call) else ast.Call(node, [], [])
        name = ast.unparse(call.func)
        if not re.fullmatch(r"[A-Za-z_][\w.]*", name):
            raise ValueError(name)
        args = tuple(ast.literal_eval(argument) for argument in call.args)
        return name, args, {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    except NOT_A_LITERAL as error:
        what = f"{text[:60]!r} is not of the form name(literals)"
        raise ConfigError(where, what, fix="write e.g. nn.LeakyReLU(0.1)") from error
