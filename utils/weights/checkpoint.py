"""Checkpoints: plain tensors and scalars, with a hash, written atomically, loaded without executing anything."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.config import ModelConfig
from models.yolo import DetectionModel, parse_model
from utils import __version__
from utils.errors import CheckpointError, ConfigError
from utils.files import atomic_write
from utils.weights.pickle_values import DamagedError, RefusedError, one_line, printable
from utils.weights.torch_file import read_torch_file
from utils.weights.yolov5_checkpoint import UnsupportedError, from_yolov5, plain_yaml

SCHEMA = 1
MAX_BYTES = 16_000_000_000
IN_CHANNELS = 3
Checkpoint = dict[str, Any]


def content_hash(value: Any) -> str:  # noqa: ANN401
    """Return the SHA-256 of nested mappings and lists of tensors and plain scalars, by content alone."""
    digest = hashlib.sha256()

    def feed(item: Any) -> None:  # noqa: ANN401
        if isinstance(item, Tensor):
            digest.update(f"tensor {item.dtype} {tuple(item.shape)}".encode())
            digest.update(item.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        elif isinstance(item, Mapping):
            digest.update(f"mapping {len(item)}".encode())
            for key, inner in item.items():
                feed(key)
                feed(inner)
        elif isinstance(item, (list, tuple)):
            digest.update(f"list {len(item)}".encode())
            for inner in item:
                feed(inner)
        else:
            digest.update(f"{type(item).__name__} {item!r}".encode())

    feed(value)
    return digest.hexdigest()


def save_checkpoint(path: Path | str, content: Checkpoint) -> None:
    """Write a checkpoint; a crash leaves the old file or the new one.

    It records the format under "schema" and the version of this program under "software_version".

    Raises:
        RunError: it cannot be written.
    """
    content = {"schema": SCHEMA, **content, "software_version": __version__}
    buffer = io.BytesIO()
    torch.save({**content, "sha256": content_hash(content)}, buffer)
    atomic_write(path, buffer.getvalue())


def load_checkpoint(path: Path | str) -> Checkpoint:
    """Read and verify a checkpoint, ours or one of YOLOv5's, which is turned into the content of one of ours.

    Raises:
        CheckpointError: missing, damaged, of another program, or of a newer version. Nothing in it is ever executed.
    """
    path = Path(path)
    data = _read_bytes(path)
    try:
        content = read_torch_file(data)
        ours = isinstance(content, dict) and "schema" in content and "sha256" in content
        return _verified(content, path) if ours else from_yolov5(content, name=path.name)
    except RefusedError as error:
        raise CheckpointError(
            path, f"contains {error}, not plain tensors; not executed", fix="use a checkpoint of this program or YOLOv5"
        ) from error
    except DamagedError as error:
        raise CheckpointError(
            path, f"is truncated or damaged ({len(data)} bytes)", fix="use another checkpoint"
        ) from error
    except UnsupportedError as error:
        raise CheckpointError(path, str(error), fix="pass a last.pt or best.pt, or a detector of YOLOv5") from error


def _read_bytes(path: Path) -> bytes:
    """Return a file's bytes."""
    try:
        if path.exists() and not path.is_dir() and not path.is_file():
            raise CheckpointError(path, "is no file but a device or pipe", fix="check the path")
        if path.is_file() and path.stat().st_size > MAX_BYTES:
            raise CheckpointError(path, f"is too large ({path.stat().st_size} bytes)", fix="pass the right file")
        return path.read_bytes()
    except OSError as error:
        near = ", ".join(str(p) for p in sorted(path.parent.glob("*.pt"))[:3]) if path.parent.is_dir() else ""
        raise CheckpointError(
            path, f"cannot be read ({error.strerror})", fix=f"there is {near}" if near else "check the path"
        ) from error
    except ValueError as error:
        raise CheckpointError(repr(str(path)), f"is no path ({error})", fix="check the path") from error


def _verified(content: Checkpoint, path: Path) -> Checkpoint:
    """Return the content of one of our checkpoints without its hash, once that agrees."""
    if content["schema"] != SCHEMA:
        version = content["schema"] if type(content["schema"]) is int else "?"
        raise CheckpointError(path, f"has version {version}, not {SCHEMA}", fix="use the program that wrote it")
    expected = content.pop("sha256")
    if contains_stubs(content) or content_hash(content) != expected:
        raise CheckpointError(path, "is truncated or damaged (hash mismatch)", fix="use another checkpoint")
    return content


def contains_stubs(value: object) -> bool:
    """Whether nested mappings and lists hold anything but tensors and plain scalars."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, (dict, list, tuple)):
            pending.extend(item.values() if isinstance(item, dict) else item)
        elif not isinstance(item, (Tensor, str, bytes, int, float, type(None))):
            return True
    return False


def describe_model(model: DetectionModel, names: tuple[str, ...]) -> Checkpoint:
    """Return what is needed to build the model again, without its weights."""
    return {"config": model.config.to_dict(), "config_name": model.config.name, "names": list(names)}


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Return the state of a model as plain contiguous tensors on the CPU."""
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in model.state_dict().items()}


def load_model(path: Path | str, *, content: Checkpoint | None = None) -> tuple[DetectionModel, tuple[str, ...]]:
    """Build the averaged model that a checkpoint holds.

    Args:
        path: the file, also named in messages.
        content: what `load_checkpoint` returned for it, if it was read already.

    Returns:
        The model in evaluation mode, float32 on the CPU, and its class names.

    Raises:
        CheckpointError: it holds no model, or weights that do not fit it.
    """
    content = load_checkpoint(path) if content is None else content
    config, names = stored_network(content, path)
    try:
        model = DetectionModel(config)
    except ConfigError as error:
        raise _unbuildable(error, path) from error
    strides = content.get("strides")
    if isinstance(strides, list) and list(model.head.strides) != strides:
        raise CheckpointError(
            path, f"has strides {strides}, its yaml {list(model.head.strides)}", fix="use another one"
        )
    model.load_state_dict(content["ema"])
    return model.eval(), names


def stored_network(content: Checkpoint, path: Path | str) -> tuple[ModelConfig, tuple[str, ...]]:
    """Return the model config and the class names that a checkpoint holds; nothing is built yet.

    Args:
        content: what `load_checkpoint` returned.
        path: the file, for messages.

    Raises:
        CheckpointError: it holds no model, or weights or names that do not fit it.
    """
    config, names = stored_config(content, path), content.get("names")
    if not isinstance(names, list) or len(names) != config.num_classes or not all(isinstance(n, str) for n in names):
        raise CheckpointError(path, f"has names that do not fit {config.num_classes} classes", fix="use another one")
    try:
        difference = _difference(config, content["ema"])
    except ConfigError as error:
        raise _unbuildable(error, path) from error
    if difference:
        raise CheckpointError(path, f"weights do not fit its config: {difference}", fix="use another checkpoint")
    return config, tuple(names)


def stored_config(content: Checkpoint, path: Path | str) -> ModelConfig:
    """Return the model config that a checkpoint holds.

    Args:
        content: what `load_checkpoint` returned.
        path: the file, for messages.

    Raises:
        CheckpointError: it holds none, or one that is wrong, or no weights for it.
    """
    missing = [key for key in ("config", "config_name", "ema") if key not in content]
    if missing:
        raise CheckpointError(path, f"lacks {missing[0]!r}", fix="pass a last.pt or best.pt")
    value, name, weights = content["config"], content["config_name"], stored_weights(content, path)
    if not isinstance(value, dict) or not isinstance(name, str):
        raise CheckpointError(path, "is no model of this program", fix="pass a last.pt or best.pt")
    try:
        config = ModelConfig.from_dict(plain_yaml(value), name=one_line(name))
    except UnsupportedError as error:
        raise CheckpointError(path, str(error), fix="use another checkpoint") from error
    except ConfigError as error:
        raise _unbuildable(error, path) from error
    layers = sum(max(round(layer.number * config.depth_multiple), 1) for layer in config.layers)
    if layers > len(weights) + len(config.layers):
        raise CheckpointError(path, f"describes {layers} layers, but has {len(weights)} tensors", fix="use another one")
    return config


def stored_weights(content: Checkpoint, path: Path | str) -> dict[str, Tensor]:
    """Return the averaged weights that a checkpoint holds.

    Raises:
        CheckpointError: it holds none, or something else in their place.
    """
    if "ema" not in content:
        raise CheckpointError(path, "holds no weights", fix="pass a last.pt or best.pt")
    weights = content["ema"]
    named = isinstance(weights, dict) and all(isinstance(name, str) for name in weights)
    if not named or not all(isinstance(tensor, Tensor) for tensor in weights.values()):
        raise CheckpointError(path, "is no model of this program", fix="pass a last.pt or best.pt")
    return dict(weights)


def _unbuildable(error: ConfigError, path: Path | str) -> CheckpointError:
    what = one_line(f"holds a network that cannot be built: {error.where}: {error.what}")
    return CheckpointError(path, what, fix=one_line(error.fix))


def _difference(config: ModelConfig, weights: Mapping[str, Tensor]) -> str:
    """Say what first does not fit between a config and a state; found without taking memory for the network."""
    with torch.device("meta"):
        network = parse_model(config, IN_CHANNELS)
    expected = {f"model.{name}": tensor.shape for name, tensor in network.state_dict().items()}
    for name in (*expected, *weights):
        if name not in expected or name not in weights:
            return f"{name} is missing" if name in expected else f"{printable(name)} is none of its layers'"
        if expected[name] != weights[name].shape:
            shapes = (" x ".join(map(str, shape)) or "one number" for shape in (weights[name].shape, expected[name]))
            return f"{name} is {' instead of '.join(shapes)}"
    return ""
