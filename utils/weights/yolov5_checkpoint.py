"""Converts the content of a YOLOv5 checkpoint, a pickled model read as stubs, to the content of one of ours.

YOLOv5 saves the model object itself. Its attributes hold the model yaml, the class names and the strides; below
`_modules` are all parameters and buffers, under the names that our models use too.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from torch import Tensor

from models.config import KNOWN_KEYS, ModelConfig
from utils.errors import ConfigError
from utils.log import LOGGER
from utils.weights.pickled_module import (
    AKCONV,
    UnsupportedError,
    attributes,
    class_name,
    derived_buffers,
    float_state,
    modules,
    named_modules,
)
from utils.weights.restricted_pickle import PickleStub, printable, type_name

HEAD = "Detect"
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
MAX_CLASSES = 100_000
MAX_LEVELS = 16
MAX_STRIDE = 4096
MAX_TEXT = 2000
# Class names of activations, and the argument of those that have one, as in `activation:` of a model yaml.
ACTIVATIONS = {
    **dict.fromkeys(("SiLU", "Hardswish", "Mish", "ReLU", "ReLU6", "GELU", "Sigmoid"), ""),
    "LeakyReLU": "negative_slope",
    "ELU": "alpha",
}
DEFAULT_ACTIVATION = "nn.SiLU()"


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
    state = float_state(model, head_name)
    anchors, weight = state.get(f"{head_name}.anchors"), state.get(f"{head_name}.m.0.weight")
    if anchors is None or anchors.ndim != 3 or anchors.shape[::2] != (len(strides), 2) or not anchors.numel():
        raise UnsupportedError(f"has no anchors for the {len(strides)} strides of its head, so it is not a YOLOv5")
    num_classes = attributes(head).get("nc")
    if type(num_classes) is not int or not 1 <= num_classes <= MAX_CLASSES:
        raise UnsupportedError("has no valid number of classes")
    if weight is None or weight.ndim != 4 or len(weight) != anchors.shape[1] * (5 + num_classes):
        raise UnsupportedError(f"has a head that does not fit its {num_classes} classes")
    levels = zip(anchors.flatten(1).tolist(), strides, strict=True)
    pixels = [[value * stride for value in level] for level, stride in levels]
    config = _config(model, num_classes=num_classes, anchors=pixels, name=name)
    _report_ignored(model, name)
    return {
        "config": config.to_dict(),
        "config_name": config.name,
        "names": _names(attributes(model).get("names"), num_classes),
        "strides": strides,
        "ema": state,
    }


def _model(saved: object) -> PickleStub:
    """Return the network of a checkpoint: the averaged one if there is one, without wrappers."""
    if isinstance(saved, dict):
        model = saved.get("model") if saved.get("ema") is None else saved["ema"]
        if isinstance(model, dict) or (saved and all(isinstance(value, Tensor) for value in saved.values())):
            raise UnsupportedError("has weights without a description of their model")
        saved = model
    if isinstance(saved, (list, tuple)) and saved:  # with the number of updates
        saved = saved[0]
    if isinstance(saved, PickleStub) and isinstance(attributes(saved).get("ema"), PickleStub):  # of ModelEMA
        saved = attributes(saved)["ema"]
    if not isinstance(saved, PickleStub) or not isinstance(attributes(saved).get("_modules"), dict):
        raise UnsupportedError(f"contains {type_name(saved)}, not a model")
    while inner := _wrapped(saved):
        saved = inner
    return saved


def _wrapped(module: PickleStub) -> PickleStub | None:
    """Return the model in DataParallel, AutoShape or the like, None if the module is no wrapper."""
    children = modules(module)
    inner = children.get("module") or children.get("model")
    return inner if inner is not None and ("module" in children or "model" in modules(inner)) else None


def _head(model: PickleStub) -> tuple[str, PickleStub]:
    """Return the last layer and its dotted name."""
    layers = modules(model).get("model")
    name, last = [("", None), *(modules(layers).items() if layers is not None else ())][-1]
    if last is None or class_name(last) != HEAD:
        end = f" that ends in {type_name(last)}" if last is not None else ""
        raise UnsupportedError(f"contains {type_name(model)}{end}, not a detector that ends in {HEAD}")
    return f"model.{name}", last


def _report_ignored(model: PickleStub, name: str) -> None:
    """Log what does not become a part of our model."""
    hooked: list[str] = []
    derived: list[str] = []
    for prefix, module in named_modules(model):
        if any(attributes(module).get(kind) for kind in HOOKS):
            hooked.append(prefix[:-1] or "the model")
        derived.extend(prefix + buffer for buffer in derived_buffers(module, prefix))
    for what, places in (("hooks, which are never run", hooked), ("buffers that follow from their layer", derived)):
        if places:
            shown = ", ".join(map(printable, places[:3])) + (", ..." if len(places) > 3 else "")
            LOGGER.info(f"{name}: ignored {len(places)} {what} ({shown})")


def _strides(model: PickleStub, head: PickleStub) -> list[int]:
    """Return the stride of each level in pixels."""
    for module in (head, model):
        stride = attributes(module).get("stride")
        if isinstance(stride, Tensor) and stride.ndim == 1 and 0 < len(stride) <= MAX_LEVELS:
            values = stride.tolist()
            if all(1 <= value <= MAX_STRIDE and value == int(value) for value in values):
                return [int(value) for value in values]
    raise UnsupportedError("has no valid strides")


def _config(model: PickleStub, *, num_classes: int, anchors: list[list[float]], name: str) -> ModelConfig:
    """Return the model's yaml, validated, with its present classes, anchors and activation."""
    held = attributes(model)
    yaml = held.get("yaml")
    if not isinstance(yaml, dict) or not isinstance(yaml.get("head"), list):
        raise UnsupportedError("has no model yaml")
    value = {key: plain_yaml(yaml[key]) for key in KNOWN_KEYS if key in yaml}
    activation, keywords = _activations(model)
    value |= {"nc": num_classes, "anchors": anchors, "activation": activation}
    *rows, last = value["head"] or [None]
    if not isinstance(last, list) or len(last) != 4:
        raise UnsupportedError("has a model yaml without a detection layer")
    value["head"] = [*rows, [*last[:3], ["nc", "anchors"]]]
    for index, values in keywords.items():
        _add_keywords([*(value.get("backbone") or []), *value["head"]], index, values)
    file = held.get("yaml_file")
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


def _add_keywords(rows: list[Any], index: int, keywords: dict[str, str]) -> None:
    """Add keyword arguments to a row of a model yaml, in place; an invalid row is left to the validation."""
    row = rows[index] if index < len(rows) else None
    if isinstance(row, list) and len(row) == 4 and isinstance(row[3], list):
        given = row[3].pop() if row[3] and isinstance(row[3][-1], dict) else {}
        row[3].append({**given, **keywords})


def _activations(model: PickleStub) -> tuple[str | None, dict[int, dict[str, str]]]:
    """Return the commonest activation, None for the default, and by layer the keywords of rows that have others.

    Releases up to 6.0 mix two: BottleneckCSP has a LeakyReLU of its own around convolutions with Hardswish or SiLU.
    """
    found: dict[int, dict[str, set[str]]] = {}
    commonest: Counter[str] = Counter({DEFAULT_ACTIVATION: 0})
    for index, layer in enumerate(modules(modules(model)["model"]).values()):
        by_keyword = found.setdefault(index, {})
        for prefix, module in named_modules(layer):
            children = modules(module)
            if class_name(module) in AKCONV and "conv" in children:
                act = modules(children["conv"]).get("2")
            else:
                act = children.get("act")
            if act is not None and class_name(act) != "Identity":
                keyword = "csp_act" if class_name(module) == "BottleneckCSP" else "act"
                by_keyword.setdefault(keyword, set()).add(_activation(act))
                commonest[_activation(act)] += keyword == "act"
                if len(by_keyword[keyword]) > 1:
                    what = f"mixes activations ({', '.join(sorted(by_keyword[keyword]))}) in layer {index}"
                    raise UnsupportedError(f"{what} ({printable(prefix)}), which a model yaml cannot express")
    usual = commonest.most_common(1)[0][0]
    keywords = {}
    for index, by_keyword in found.items():
        acts = {keyword: values.pop() for keyword, values in by_keyword.items()}
        around = acts.get("act", usual)
        different = {"act": around} if around != usual else {}
        if acts.get("csp_act", around) != around:
            different["csp_act"] = acts["csp_act"]
        if different:
            keywords[index] = different
    return (None if usual == DEFAULT_ACTIVATION else usual), keywords


def _activation(module: PickleStub) -> str:
    """Return an activation as model yamls have it; UnsupportedError if ours have no such."""
    kind = class_name(module)
    if kind not in ACTIVATIONS:
        raise UnsupportedError(f"uses the unsupported activation {type_name(module)}")
    argument = attributes(module).get(ACTIVATIONS[kind])
    return f"nn.{kind}({argument if isinstance(argument, float) else ''})"


def _names(value: object, num_classes: int) -> list[str]:
    """Return the class names of a list or of a dictionary by class id; the ids if there are no names."""
    if value is None:
        return [str(class_id) for class_id in range(num_classes)]
    if isinstance(value, dict):
        value = [value.get(class_id) for class_id in range(len(value))]
    if not isinstance(value, list) or len(value) != num_classes or not all(isinstance(name, str) for name in value):
        raise UnsupportedError(f"has names that do not fit its {num_classes} classes")
    return [printable(name, limit=300) for name in value]
