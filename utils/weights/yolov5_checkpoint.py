"""Converts the content of a YOLOv5 checkpoint, a pickled model read as stubs, to the content of one of ours.

YOLOv5 saves the model object itself. Its attributes hold the model yaml, the class names and the strides; below
`_modules` are all parameters and buffers, under the names that our models use too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

from torch import Tensor

from models.config import KNOWN_KEYS, ModelConfig
from utils.errors import ConfigError
from utils.weights.restricted_pickle import PickleStub, printable, type_name

HEAD = "Detect"
NORM_EPS = 1e-3
MAX_CLASSES = 100_000
MAX_LEVELS = 16
MAX_STRIDE = 4096
MAX_NAME = 200
MAX_TEXT = 2000
# Class names of activations, and the argument of those that have one, as in `activation:` of a model yaml.
ACTIVATIONS = {
    **dict.fromkeys(("SiLU", "Hardswish", "Mish", "ReLU", "ReLU6", "GELU", "Sigmoid"), ""),
    "LeakyReLU": "negative_slope",
    "ELU": "alpha",
}
DEFAULT_ACTIVATION = "nn.SiLU()"
T = TypeVar("T")


class UnsupportedError(ValueError):
    """The file is not a YOLOv5 detector that can be converted; the message says why."""


def from_yolov5(saved: object, *, name: str) -> dict[str, Any]:
    """Convert the content of a YOLOv5 checkpoint to that of one of ours; UnsupportedError if that is impossible.

    Args:
        saved: the result of `read_torch_file`: a dictionary with the model under `ema` or `model`, or the model itself.
        name: file name, which becomes the model's name if the checkpoint has none.

    Returns:
        `config` (with the anchors in use, in pixels), `config_name`, `names`, `strides`, and `ema`: the state dict in
        float32. Like YOLOv5, takes the averaged model if there is one.
    """
    model = _model(saved)
    head_name, head = _head(model)
    strides = _strides(model, head)
    state = _float_state(model, head_name)
    anchors, weight = state.get(f"{head_name}.anchors"), state.get(f"{head_name}.m.0.weight")
    if anchors is None or anchors.ndim != 3 or anchors.shape[::2] != (len(strides), 2) or not anchors.numel():
        raise UnsupportedError(f"has no anchors for the {len(strides)} strides of its head, so it is not a YOLOv5")
    num_classes = _attributes(head).get("nc")
    if type(num_classes) is not int or not 1 <= num_classes <= MAX_CLASSES:
        raise UnsupportedError("has no valid number of classes")
    if weight is None or weight.ndim != 4 or len(weight) != anchors.shape[1] * (5 + num_classes):
        raise UnsupportedError(f"has a head that does not fit its {num_classes} classes")
    levels = zip(anchors.flatten(1).tolist(), strides, strict=True)
    pixels = [[value * stride for value in level] for level, stride in levels]
    config = _config(model, num_classes=num_classes, anchors=pixels, name=name)
    return {
        "config": config.to_dict(),
        "config_name": config.name,
        "names": _names(_attributes(model).get("names"), num_classes),
        "strides": strides,
        "ema": state,
    }


def _model(saved: object) -> PickleStub:
    if isinstance(saved, dict):
        model = saved.get("model") if saved.get("ema") is None else saved["ema"]
        if isinstance(model, dict) or (saved and all(isinstance(value, Tensor) for value in saved.values())):
            raise UnsupportedError("has weights without a description of their model")
        saved = model
    if not isinstance(saved, PickleStub) or not isinstance(_attributes(saved).get("_modules"), dict):
        raise UnsupportedError(f"contains {type_name(saved)}, not a model")
    return saved


def _attributes(module: PickleStub) -> dict[str, Any]:
    return module.state if isinstance(module.state, dict) else {}


def _by_name(module: PickleStub, attribute: str, kind: type[T], place: str, prefix: str = "") -> dict[str, T]:
    """Return the children, parameters or buffers of a module, without those that are None."""
    items = _attributes(module).get(attribute)
    items = items if isinstance(items, dict) else {}
    for key, value in items.items():
        if not isinstance(key, str) or not 0 < len(key) <= MAX_NAME or not isinstance(value, (kind, type(None))):
            raise UnsupportedError(f"has {type_name(value)} in place of {place} ({printable(prefix + str(key))})")
    return {key: value for key, value in items.items() if value is not None}


def _modules(module: PickleStub) -> dict[str, PickleStub]:
    return _by_name(module, "_modules", PickleStub, "a layer")


def _class_name(module: PickleStub) -> str:
    return module.kind.rpartition(".")[2]


def _head(model: PickleStub) -> tuple[str, PickleStub]:
    """Return the last layer and its dotted name."""
    layers = _modules(model).get("model")
    name, last = [("", None), *(_modules(layers).items() if layers is not None else ())][-1]
    if last is None or _class_name(last) != HEAD:
        end = f" that ends in {type_name(last)}" if last is not None else ""
        raise UnsupportedError(f"contains {type_name(model)}{end}, not a detector that ends in {HEAD}")
    return f"model.{name}", last


def _named_modules(module: PickleStub, prefix: str = "") -> Iterator[tuple[str, PickleStub]]:
    """Yield a module and all modules in it with their prefixes; the restricted unpickler has limited the depth."""
    yield prefix, module
    for name, child in _modules(module).items():
        yield from _named_modules(child, f"{prefix}{name}.")


def _float_state(model: PickleStub, head_name: str) -> dict[str, Tensor]:
    """Return the state dict in float32. Of the head only what ours has: older releases kept the anchors twice."""
    of_head = (f"{head_name}.m.", f"{head_name}.anchors")
    converted: dict[int, Tensor] = {}  # by identity, so that shared tensors stay shared
    state = {}
    for prefix, module in _named_modules(model):
        eps = _attributes(module).get("eps")
        if _class_name(module) == "BatchNorm2d" and (type(eps) is not float or eps != NORM_EPS):
            actual, where = eps if type(eps) is float else type_name(eps), printable(prefix[:-1])
            raise UnsupportedError(f"has a batch norm with eps {actual} ({where}), not YOLOv5's {NORM_EPS}")
        for kind in ("_parameters", "_buffers"):
            for name, tensor in _by_name(module, kind, Tensor, "weights", prefix).items():
                key = prefix + name
                if not key.startswith(f"{head_name}.") or key.startswith(of_head):
                    as_float = tensor.float() if tensor.is_floating_point() else tensor
                    state[key] = converted.setdefault(id(tensor), as_float)
    return state


def _strides(model: PickleStub, head: PickleStub) -> list[int]:
    """Return the stride of each level in pixels."""
    for module in (head, model):
        stride = _attributes(module).get("stride")
        if isinstance(stride, Tensor) and stride.ndim == 1 and 0 < len(stride) <= MAX_LEVELS:
            values = stride.tolist()
            if all(1 <= value <= MAX_STRIDE and value == int(value) for value in values):
                return [int(value) for value in values]
    raise UnsupportedError("has no valid strides")


def _config(model: PickleStub, *, num_classes: int, anchors: list[list[float]], name: str) -> ModelConfig:
    """Return the model's yaml, validated, with its present classes, anchors and activation."""
    attributes = _attributes(model)
    yaml = attributes.get("yaml")
    if not isinstance(yaml, dict) or not isinstance(yaml.get("head"), list):
        raise UnsupportedError("has no model yaml")
    value = {key: plain_yaml(yaml[key]) for key in KNOWN_KEYS if key in yaml}
    value |= {"nc": num_classes, "anchors": anchors, "activation": _activation(model)}
    *rows, last = value["head"] or [None]
    if not isinstance(last, list) or len(last) != 4:
        raise UnsupportedError("has a model yaml without a detection layer")
    value["head"] = [*rows, [*last[:3], ["nc", "anchors"]]]
    file = attributes.get("yaml_file")
    known = isinstance(file, str) and file.isprintable() and 0 < len(file) <= 100
    try:
        return ModelConfig.from_dict(value, name=str(file) if known else name)
    except ConfigError as error:
        what = f"has an invalid model yaml: {error.where}: {printable(error.what, limit=300)}"
        raise UnsupportedError(what) from error


def plain_yaml(value: object) -> Any:  # noqa: ANN401
    """Return a value of a model yaml, with lists for tuples; UnsupportedError if it has objects or very long text."""
    if isinstance(value, (list, tuple)):
        return [plain_yaml(item) for item in value]
    if isinstance(value, dict):
        return {key: plain_yaml(item) for key, item in value.items()}
    if isinstance(value, str) and (len(value) > MAX_TEXT or not value.isprintable()):
        raise UnsupportedError("has long or unprintable text in its model yaml")
    if not isinstance(value, (str, int, float, type(None))):
        raise UnsupportedError(f"has {type_name(value)} in its model yaml")
    return value


def _activation(model: PickleStub) -> str | None:
    """Return the activation of the layers, None for the default; in releases of 2020 it is not that of the yaml."""
    activations: set[str] = set()
    for prefix, module in _named_modules(model):
        kind = _class_name(module)
        if not prefix.endswith(".act.") or kind == "Identity":
            continue
        if kind not in ACTIVATIONS:
            raise UnsupportedError(f"uses the unsupported activation {type_name(module)}")
        argument = _attributes(module).get(ACTIVATIONS[kind])
        activations.add(f"nn.{kind}({argument if isinstance(argument, float) else ''})")
    if len(activations) > 1:
        what = f"mixes activations ({', '.join(sorted(activations))}), which a model yaml cannot express"
        raise UnsupportedError(what)
    activation = activations.pop() if activations else DEFAULT_ACTIVATION
    return None if activation == DEFAULT_ACTIVATION else activation


def _names(value: object, num_classes: int) -> list[str]:
    """Return the class names of a list or of a dictionary by class id; the ids if there are no names."""
    if value is None:
        return [str(class_id) for class_id in range(num_classes)]
    if isinstance(value, dict):
        value = [value.get(class_id) for class_id in range(len(value))]
    if not isinstance(value, list) or len(value) != num_classes or not all(isinstance(name, str) for name in value):
        raise UnsupportedError(f"has names that do not fit its {num_classes} classes")
    return [printable(name, limit=300) for name in value]
