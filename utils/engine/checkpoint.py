"""Checkpoints: plain tensors and scalars, with a hash, written atomically, loaded without executing anything."""

from __future__ import annotations

import hashlib
import io
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.config import ModelConfig
from models.yolo import DetectionModel
from utils.errors import CheckpointError
from utils.files import atomic_write
from utils.log import LOGGER

SCHEMA = 1
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

    Raises:
        RunError: it cannot be written.
    """
    content = {"schema": SCHEMA, **content}
    buffer = io.BytesIO()
    torch.save({**content, "sha256": content_hash(content)}, buffer)
    atomic_write(path, buffer.getvalue())


def load_checkpoint(path: Path | str) -> Checkpoint:
    """Read and verify a checkpoint.

    Raises:
        CheckpointError: missing, damaged, of another program, or of a newer version. Nothing in it is ever executed.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        near = ", ".join(str(p) for p in sorted(path.parent.glob("*.pt"))[:3]) if path.parent.is_dir() else ""
        raise CheckpointError(
            path, f"cannot be read ({error.strerror})", fix=f"there is {near}" if near else "check the path"
        ) from error
    damaged = CheckpointError(path, f"is truncated or damaged ({len(data)} bytes)", fix="use another checkpoint")
    if not zipfile.is_zipfile(io.BytesIO(data)):
        raise damaged
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            path, "contains Python objects, not plain tensors; not executed", fix="train with this program"
        ) from error
    except Exception as error:
        raise damaged from error
    if not isinstance(content, dict) or "schema" not in content or "sha256" not in content:
        raise CheckpointError(path, "is no checkpoint of this program", fix="pass a last.pt or best.pt")
    if content["schema"] != SCHEMA:
        raise CheckpointError(
            path, f"has version {content['schema']}, not {SCHEMA}", fix="use the program that wrote it"
        )
    expected = content.pop("sha256")
    if content_hash(content) != expected:
        raise CheckpointError(path, "is truncated or damaged (hash mismatch)", fix="use another checkpoint")
    return content


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
    try:
        config = ModelConfig.from_dict(content["config"], name=content["config_name"])
        model = DetectionModel(config)
        model.load_state_dict(content["ema"])
    except KeyError as error:
        raise CheckpointError(path, f"lacks {error}", fix="pass a last.pt or best.pt") from error
    except RuntimeError as error:
        first = str(error).splitlines()[-1].strip()
        raise CheckpointError(path, f"weights do not fit its config: {first}", fix="use another checkpoint") from error
    return model.eval(), tuple(content["names"])


def transfer_weights(model: nn.Module, weights: Mapping[str, Tensor], *, source: Path | str) -> list[str]:
    """Copy the entries that agree in name and shape, and say what was not.

    Returns:
        Names of the model's entries that kept their own values.
    """
    own = model.state_dict()
    fitting = {
        name: tensor
        for name, tensor in weights.items()
        if name in own and own[name].shape == tensor.shape and not name.endswith("anchors")
    }
    model.load_state_dict(fitting, strict=False)
    left = [name for name in own if name not in fitting]
    moved = sum(own[name].numel() for name in fitting)
    share = moved / max(sum(tensor.numel() for tensor in own.values()), 1)
    LOGGER.info(f"Transferred {len(fitting)}/{len(own)} items ({share:.1%} of the numbers) from {source}")
    if left:
        layers = sorted({".".join(name.split(".")[:2]) for name in left}, key=lambda n: [len(n), n])
        LOGGER.info(f"Not transferred: {', '.join(layers)}")
    return left
