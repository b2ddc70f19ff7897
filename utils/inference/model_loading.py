"""What `--weights` may name: a checkpoint, or an exported file. One place opens them all, and all are called alike."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from models.yolo import DetectionModel
from utils.errors import CheckpointError, ConfigError
from utils.inference.exported_model import (
    ExportedNetwork,
    ModelMetadata,
    is_trusted,
    open_onnx,
    open_openvino,
    open_torchscript,
)
from utils.weights.checkpoint import Checkpoint, load_checkpoint, load_model

Network = DetectionModel | ExportedNetwork
DEFAULT_IMAGE_SIZE = 640
MAX_IMAGE_SIZE = 8192
MAX_BYTES = 16_000_000_000
FOREIGN = (".engine", ".mlmodel", ".mlpackage", ".tflite", ".pb", ".pdmodel")


@dataclass(frozen=True, kw_only=True)
class OpenedNetwork:
    """A network, and what its file says of it."""

    network: Network
    description: ModelMetadata


def is_exported(weights: Path | str) -> bool:
    """Whether `--weights` names an exported file and not a checkpoint."""
    path = Path(weights)
    return path.is_dir() or path.suffix.lower() in (".onnx", ".torchscript", ".xml", *FOREIGN)


def open_network(weights: Path | str, device: torch.device, *, trust: bool = False) -> OpenedNetwork:
    """Open a checkpoint, or an .onnx, .torchscript, OpenVINO folder or .xml.

    Args:
        weights: path.
        device: where it will run; a checkpoint's model is left on the CPU.
        trust: run a TorchScript file that was not exported here.

    Raises:
        CheckpointError: missing, damaged, of another program, or a program of unknown origin.
        ConfigError: a kind of file that is not run here, or a package is missing.
    """
    path = Path(weights)
    if not is_exported(path):
        content = load_checkpoint(path)
        model, names = load_model(path, content=content)
        return OpenedNetwork(network=model, description=_description(content, names, model.max_stride, path))
    network = _open_exported(path, device, trust=trust)
    return OpenedNetwork(network=network, description=network.description)


def _description(content: Checkpoint, names: tuple[str, ...], stride: int, path: Path) -> ModelMetadata:
    """Return what a checkpoint says of its model.

    Raises:
        CheckpointError: the size or the options it was trained with are none.
    """
    size, stored = content.get("image_size"), content.get("options")
    options: dict[str, Any] = stored if isinstance(stored, dict) else {}
    data, single = options.get("data", ""), options.get("single_cls", False)
    plain = type(data) is str and isinstance(single, (bool, type(None)))
    if not plain or not (stored is None or isinstance(stored, dict)):
        raise CheckpointError(path, "has options that are none", fix="use another checkpoint")
    if size is not None and not (type(size) is int and 0 <= size <= MAX_IMAGE_SIZE):
        raise CheckpointError(path, "has an image_size that is no number of pixels", fix="use another checkpoint")
    return ModelMetadata(
        names=names, stride=stride, image_size=size or DEFAULT_IMAGE_SIZE, data=data, single_class=bool(single)
    )


def _open_exported(path: Path, device: torch.device, *, trust: bool) -> ExportedNetwork:
    """Open an exported file by its suffix."""
    suffix = path.suffix.lower()
    if suffix in FOREIGN:
        raise ConfigError(path, f"{suffix} files are not run here", fix="pass the .pt, .onnx or .torchscript")
    if path.is_dir() or suffix == ".xml":
        graphs = [path] if suffix == ".xml" else sorted(path.glob("*.xml"))
        if len(graphs) != 1:
            raise CheckpointError(path, f"holds {len(graphs)} .xml files, not one", fix="pass an OpenVINO folder")
        return open_openvino(_read(graphs[0]), _read(graphs[0].with_suffix(".bin")), where=path)
    data = _read(path)
    if suffix == ".onnx":
        return open_onnx(data, device, where=path)
    if not (trust or is_trusted(data)):
        what = "is a TorchScript file, which is a program, and was not exported on this machine"
        raise CheckpointError(
            path,
            what,
            fix="pass --trust-torchscript (in Python trust=True) if you trust its source, or use the .onnx",
        )
    return open_torchscript(data, device, where=path)


def _read(path: Path) -> bytes:
    """Return a file's bytes."""
    try:
        if path.is_file() and path.stat().st_size > MAX_BYTES:
            raise CheckpointError(path, f"is too large ({path.stat().st_size} bytes)", fix="pass the right file")
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(path, f"cannot be read ({error.strerror})", fix="check the path") from error
