"""From what a YOLOv5 checkpoint holds, a pickled network read as inert data, to the content of our own checkpoints.

YOLOv5 saves the network object itself. Its attributes say all that is needed: the model yaml, the class names, the
strides, and below `_modules` every parameter and buffer under the names that our models use too.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from models.config import KNOWN_KEYS, ModelConfig
from utils.errors import ConfigError
from utils.weights.pickle_values import PickleStub, one_line, printable, type_name

HEAD = "Detect"
NORM_EPS = 1e-3
MAX_CLASSES = 100_000
MAX_STRIDE = 4096
MAX_NAME = 200
MAX_TEXT = 2000
# Activations by the name of their class, and the attribute they take, as `activation:` of a model yaml writes them.
ACTIVATIONS = {
    "SiLU": "",
    "Hardswish": "",
    "Mish": "",
    "ReLU": "",
    "ReLU6": "",
    "GELU": "",
    "Sigmoid": "",
    "LeakyReLU": "negative_slope",
    "ELU": "alpha",
}
DEFAULT_ACTIVATION = "nn.SiLU()"


class UnsupportedError(ValueError):
    """The file is no YOLOv5 detector that can be taken over; the text says why."""


def from_yolov5(saved: object, *, name: str) -> dict[str, Any]:
    """Turn the content of a YOLOv5 checkpoint into that of one of ours.

    Args:
        saved: what `read_torch_file` returned: a dictionary with the network under `ema` or `model`, or the network.
        name: file name, for the model's name where the checkpoint has none.

    Returns:
        `config` (with the anchors in pixels as they were in use), `config_name`, `names`, `strides`, and `ema`: the
        state in float32. The averaged network is taken where there is one, as YOLOv5 does.

    Raises:
        UnsupportedError: it holds no such network.
    """
    network = _network(saved)
    head_name, head = _head(network)
    strides = _strides(network, head)
    state = _float_state(network, head_name)
    anchors, weight = state.get(f"{head_name}.anchors"), state.get(f"{head_name}.m.0.weight")
    if anchors is None or anchors.ndim != 3 or anchors.shape[::2] != (len(strides), 2) or not anchors.numel():
        raise UnsupportedError(f"has no anchors for the {len(strides)} strides of its head, so it is no YOLOv5")
    classes = _attributes(head).get("nc")
    if type(classes) is not int or not 1 <= classes <= MAX_CLASSES:
        raise UnsupportedError("does not say how many classes it tells apart")
    if weight is None or weight.ndim != 4 or len(weight) != anchors.shape[1] * (5 + classes):
        raise UnsupportedError(f"has a head that does not fit its {classes} classes")
    pixels = [
        [number * stride for number in level.flatten().tolist()] for level, stride in zip(anchors, strides, strict=True)
    ]
    config = _config(network, classes=classes, anchors=pixels, name=name)
    return {
        "config": config.to_dict(),
        "config_name": config.name,
        "names": _names(_attributes(network).get("names"), classes),
        "strides": strides,
        "ema": state,
    }


def _network(saved: object) -> PickleStub:
    """Find the network in what was saved."""
    if isinstance(saved, dict):
        found = saved.get("model") if saved.get("ema") is None else saved["ema"]
        if isinstance(found, dict) or (saved and all(isinstance(value, Tensor) for value in saved.values())):
            raise UnsupportedError("holds weights without a description of their network")
        saved = found
    if not isinstance(saved, PickleStub) or not isinstance(_attributes(saved).get("_modules"), dict):
        raise UnsupportedError(f"holds no network (found {type_name(saved)})")
    return saved


def _attributes(module: PickleStub) -> dict[str, Any]:
    return module.state if isinstance(module.state, dict) else {}


def _modules(module: PickleStub) -> dict[str, PickleStub | None]:
    """Return a module's children by name."""
    children = _attributes(module).get("_modules")
    if not isinstance(children, dict):
        return {}
    for key, child in children.items():
        if not _is_name(key) or not (child is None or isinstance(child, PickleStub)):
            raise UnsupportedError(f"has {type_name(child)} in the place of a layer")
    return children


def _is_name(key: object) -> bool:
    return isinstance(key, str) and 0 < len(key) <= MAX_NAME


def _head(network: PickleStub) -> tuple[str, PickleStub]:
    """Return the last layer and its dotted name."""
    layers = _modules(network).get("model")
    name, last = list(_modules(layers).items() or [("", None)])[-1] if layers is not None else ("", None)
    if last is None or _class_name(last) != HEAD:
        end = f" that ends in {type_name(last)}" if last is not None else ""
        raise UnsupportedError(f"holds {type_name(network)}{end}, not a detector that ends in {HEAD}")
    return f"model.{name}", last


def _class_name(module: PickleStub) -> str:
    return module.kind.rpartition(".")[2]


def _state(module: PickleStub, prefix: str = "") -> dict[str, Tensor]:
    """Return parameters and buffers below a module by their dotted names. The reader has bounded how deep it goes."""
    state: dict[str, Tensor] = {}
    for kind in ("_parameters", "_buffers"):
        own = _attributes(module).get(kind)
        for key, value in own.items() if isinstance(own, dict) else ():
            if not _is_name(key) or not (value is None or isinstance(value, Tensor)):
                raise UnsupportedError(
                    f"has {type_name(value)} in the place of weights ({printable(prefix + str(key))})"
                )
            if value is not None:
                state[f"{prefix}{key}"] = value
    eps = _attributes(module).get("eps")
    if _class_name(module) == "BatchNorm2d" and eps != NORM_EPS:
        raise UnsupportedError(
            f"has a batch norm with eps {str(eps)[:20]} ({printable(prefix[:-1])}), not YOLOv5's {NORM_EPS}"
        )
    for name, child in _modules(module).items():
        if child is not None:
            state.update(_state(child, f"{prefix}{name}."))
    return state


def _float_state(network: PickleStub, head_name: str) -> dict[str, Tensor]:
    """Return the state in float32, of the head only what ours has too (older releases kept the anchors twice)."""
    kept = (f"{head_name}.m.", f"{head_name}.anchors")
    converted: dict[int, Tensor] = {}  # by identity: what is shared takes memory once
    state = {}
    for key, tensor in _state(network).items():
        if not key.startswith(f"{head_name}.") or (key.startswith(kept)):
            if id(tensor) not in converted:
                converted[id(tensor)] = tensor.float() if tensor.is_floating_point() else tensor
            state[key] = converted[id(tensor)]
    return state


def _strides(network: PickleStub, head: PickleStub) -> list[int]:
    """Return pixels per cell of each level."""
    for module in (head, network):
        stride = _attributes(module).get("stride")
        if isinstance(stride, Tensor) and stride.ndim == 1 and 0 < len(stride) <= 16:
            values = stride.tolist()
            if all(1 <= value <= MAX_STRIDE and value == int(value) for value in values):
                return [int(value) for value in values]
    raise UnsupportedError("does not say its strides")


def _config(network: PickleStub, *, classes: int, anchors: list[list[float]], name: str) -> ModelConfig:
    """Check the model yaml that the network was built from, with the classes, anchors and activation it has now."""
    attributes = _attributes(network)
    written = attributes.get("yaml")
    if not isinstance(written, dict) or not isinstance(written.get("head"), list):
        raise UnsupportedError("does not hold the yaml of its network")
    value = {key: plain_yaml(written[key]) for key in KNOWN_KEYS if key in written}
    value |= {"nc": classes, "anchors": anchors, "activation": _activation(network)}
    *rows, last = value["head"] or [None]
    if not isinstance(last, list) or len(last) != 4:
        raise UnsupportedError("does not hold the yaml of its network")
    value["head"] = [*rows, [*last[:3], ["nc", "anchors"]]]
    file = attributes.get("yaml_file")
    known = isinstance(file, str) and file.isprintable() and 0 < len(file) <= 100
    try:
        return ModelConfig.from_dict(value, name=str(file) if known else name)
    except ConfigError as error:
        raise UnsupportedError(f"holds a network whose yaml is wrong: {error.where}: {one_line(error.what)}") from error


def plain_yaml(value: object) -> Any:  # noqa: ANN401
    """Return a value of a model yaml, with lists for tuples.

    Raises:
        UnsupportedError: it holds more than plain values, or a text too long to be parsed safely as a literal.
    """
    if isinstance(value, (list, tuple)):
        return [plain_yaml(item) for item in value]
    if isinstance(value, dict):
        return {key: plain_yaml(item) for key, item in value.items()}
    if isinstance(value, str) and (len(value) > MAX_TEXT or not value.isprintable()):
        raise UnsupportedError("has a long or unprintable text in the yaml of its network")
    if not isinstance(value, (str, int, float, type(None))):
        raise UnsupportedError(f"has {type_name(value)} in the yaml of its network")
    return value


def _activation(network: PickleStub) -> str | None:
    """Return the one activation in use, None for the usual one.

    Releases of 2020 used others than their yaml says, so it is read from the layers.
    """
    found: set[str] = set()
    pending = [network]
    while pending:
        module = pending.pop()
        for name, child in _modules(module).items():
            if child is None:
                continue
            pending.append(child)
            kind = _class_name(child)
            if name != "act" or kind == "Identity":
                continue
            if kind not in ACTIVATIONS:
                raise UnsupportedError(f"uses the activation {type_name(child)}, which is not known here")
            number = _attributes(child).get(ACTIVATIONS[kind])
            found.add(f"nn.{kind}({number if isinstance(number, float) else ''})")
    if len(found) > 1:
        raise UnsupportedError(f"mixes the activations {', '.join(sorted(found))}, which a model yaml cannot say")
    text = found.pop() if found else DEFAULT_ACTIVATION
    return None if text == DEFAULT_ACTIVATION else text


def _names(value: object, classes: int) -> list[str]:
    """Return the class names, given as a list or by number; where there are none, the numbers."""
    if value is None:
        return [str(number) for number in range(classes)]
    if isinstance(value, dict):
        value = [value.get(number) for number in range(len(value))]
    if not isinstance(value, list) or len(value) != classes or not all(isinstance(name, str) for name in value):
        raise UnsupportedError(f"has names that do not fit its {classes} classes")
    return [one_line(name) for name in value]
