"""Checkpoints: plain tensors and scalars, with a hash, written atomically, loaded without executing anything."""

from __future__ import annotations

import contextlib
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
from utils.weights.pickled_module import UnsupportedError
from utils.weights.restricted_pickle import DamagedError, RefusedError, printable
from utils.weights.torch_file import read_torch_file
from utils.weights.yolov5_checkpoint import from_yolov5, plain_yaml
from utils.weights_file import read_weights_file

SCHEMA = 1
USE_OURS = "pass a last.pt or best.pt"
USE_ANOTHER = "use another checkpoint"
Checkpoint = dict[str, Any]


def content_hash(value: Any) -> str:  # noqa: ANN401
    """Return the SHA-256 of nested mappings and lists by content alone; TypeError for all but tensors and scalars."""
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
        elif isinstance(item, (str, bytes, int, float, type(None))):
            digest.update(f"{type(item).__name__} {item!r}".encode())
        else:
            raise TypeError(f"cannot hash {type(item).__name__}")

    feed(value)
    return digest.hexdigest()


def save_checkpoint(path: Path | str, content: Checkpoint) -> None:
    """Write a checkpoint atomically; RunError if that fails."""
    atomic_write(path, checkpoint_bytes(content))


def checkpoint_bytes(content: Checkpoint) -> bytes:
    """Return a checkpoint as a file.

    The key "schema" records the format, "software_version" the version of this program, "sha256" the content hash.
    """
    content = {"schema": SCHEMA, **content, "software_version": __version__}
    buffer = io.BytesIO()
    torch.save({**content, "sha256": content_hash(content)}, buffer)
    return buffer.getvalue()


def load_checkpoint(path: Path | str, *, data: bytes | None = None) -> Checkpoint:
    """Read and verify a checkpoint of this program, or convert one of YOLOv5. Nothing in the file is executed.

    `data` is the content of the file, if it has been read already.

    Raises:
        CheckpointError: it is missing, damaged, of another program, or of a newer version.
    """
    path = Path(path)
    data = read_weights_file(path) if data is None else data
    try:
        content = read_torch_file(data)
        ours = isinstance(content, dict) and "schema" in content and "sha256" in content
        return _verified(content, path) if ours else from_yolov5(content, name=path.name)
    except RefusedError as error:
        what, fix = f"contains {error}, not plain tensors; not executed", "use a checkpoint of this program or YOLOv5"
        raise CheckpointError(path, what, fix=fix) from error
    except DamagedError as error:
        raise CheckpointError(path, f"is truncated or damaged ({len(data)} bytes)", fix=USE_ANOTHER) from error
    except UnsupportedError as error:
        raise CheckpointError(path, str(error), fix=f"{USE_OURS}, or a YOLOv5 detector") from error


def _verified(content: Checkpoint, path: Path) -> Checkpoint:
    """Return the content of one of our checkpoints without its hash, after verifying it."""
    version = content["schema"] if type(content["schema"]) is int else "?"
    if version != SCHEMA:
        raise CheckpointError(
            path, f"has checkpoint format {version}; this version reads {SCHEMA}", fix="use the program that wrote it"
        )
    expected = content.pop("sha256")
    with contextlib.suppress(TypeError):  # it contains stubs
        if content_hash(content) == expected:
            return content
    raise CheckpointError(path, "is truncated or damaged (hash mismatch)", fix=USE_ANOTHER)


def describe_model(model: DetectionModel, names: tuple[str, ...]) -> Checkpoint:
    """Return what a checkpoint needs to rebuild the model, without its weights."""
    return {"config": model.config.to_dict(), "config_name": model.config.name, "names": list(names)}


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Return the state dict of a model as contiguous copies on the CPU."""
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in model.state_dict().items()}


def load_model(path: Path | str, *, content: Checkpoint | None = None) -> tuple[DetectionModel, tuple[str, ...]]:
    """Return the averaged model of a checkpoint, in evaluation mode, float32 on the CPU, and its class names.

    `content` is the result of `load_checkpoint`, if the file has been read already.

    Raises:
        CheckpointError: the checkpoint has no model, or weights of other shapes.
    """
    content = load_checkpoint(path) if content is None else content
    config, names = stored_network(content, path)
    try:
        model = DetectionModel(config)
    except ConfigError as error:
        raise _unbuildable(error, path) from error
    strides = content.get("strides")
    if isinstance(strides, list) and repr(strides) != repr(list(model.head.strides)):  # a list may contain tensors
        what = printable(f"has strides {strides}, but its model {list(model.head.strides)}", limit=300)
        raise CheckpointError(path, what, fix=USE_ANOTHER)
    model.load_state_dict(content["ema"])
    return model.eval(), names


def stored_network(content: Checkpoint, path: Path | str) -> tuple[ModelConfig, tuple[str, ...]]:
    """Return the model config and the class names of a checkpoint at `path`, without building the model.

    Raises:
        CheckpointError: there is no model, or its weights or names do not match its config.
    """
    weights = stored_weights(content, path)
    value, name, names = (content.get(key) for key in ("config", "config_name", "names"))
    if not isinstance(value, dict) or not isinstance(name, str):
        raise CheckpointError(path, "is not a model of this program", fix=USE_OURS)
    try:
        config = ModelConfig.from_dict(plain_yaml(value), name=printable(name))
        if not isinstance(names, list) or len(names) != config.num_classes or {*map(type, names)} != {str}:
            raise UnsupportedError(f"has names that do not fit its {config.num_classes} classes")
        layers = sum(max(round(layer.number * config.depth_multiple), 1) for layer in config.layers)
        if layers > len(weights) + len(config.layers):
            raise UnsupportedError(f"describes {layers} layers, but has {len(weights)} tensors")
        if difference := _difference(config, weights):
            raise UnsupportedError(f"has weights that do not match its config: {difference}")
    except UnsupportedError as error:
        raise CheckpointError(path, str(error), fix=USE_ANOTHER) from error
    except ConfigError as error:
        raise _unbuildable(error, path) from error
    return config, tuple(names)


def stored_weights(content: Checkpoint, path: Path | str) -> dict[str, Tensor]:
    """Return the averaged weights of a checkpoint; CheckpointError if they are missing, or not tensors by name."""
    if "ema" not in content:
        raise CheckpointError(path, "has no weights", fix=USE_OURS)
    weights = content["ema"]
    named = isinstance(weights, dict) and all(isinstance(name, str) for name in weights)
    if not named or not all(isinstance(tensor, Tensor) for tensor in weights.values()):
        raise CheckpointError(path, "is not a model of this program", fix=USE_OURS)
    return dict(weights)


def _unbuildable(error: ConfigError, path: Path | str) -> CheckpointError:
    what = printable(f"has a model that cannot be built: {error.where}: {error.what}", limit=300)
    return CheckpointError(path, what, fix=printable(error.fix, limit=300))


def _difference(config: ModelConfig, weights: Mapping[str, Tensor]) -> str:
    """Return the first mismatch between a config and a state dict, or "". No memory is allocated for the model."""
    with torch.device("meta"):
        network = parse_model(config, 3)
    expected = {f"model.{name}": tensor.shape for name, tensor in network.state_dict().items()}
    for name in (*expected, *weights):
        if name not in weights:
            return f"{name} is missing"
        if name not in expected:
            return f"{printable(name)} belongs to none of its layers"
        if expected[name] != weights[name].shape:
            return f"{name} has shape {tuple(weights[name].shape)}, not {tuple(expected[name])}"
    return ""
