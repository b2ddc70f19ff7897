"""What `--weights` may name: a checkpoint, or an exported file. One place opens them all, and all are called alike."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from models.yolo import DetectionModel
from utils.engine.checkpoint import load_checkpoint, load_model
from utils.engine.exported import (
    Description,
    ExportedNetwork,
    is_own,
    open_onnx,
    open_openvino,
    open_torchscript,
)
from utils.errors import CheckpointError, ConfigError

Network = DetectionModel | ExportedNetwork
DEFAULT_IMAGE_SIZE = 640
MAX_BYTES = 16_000_000_000
FOREIGN = (".engine", ".mlmodel", ".mlpackage", ".tflite", ".pb", ".pdmodel")


@dataclass(frozen=True, kw_only=True)
class OpenedNetwork:
    """A network, and what its file says of it."""

    network: Network
    description: Description


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
        stored: dict[str, Any] = content.get("options") or {}
        description = Description(
            names=names,
            stride=model.max_stride,
            image_size=int(content.get("image_size") or DEFAULT_IMAGE_SIZE),
            data=str(stored.get("data", "")),
            single_class=bool(stored.get("single_cls")),
        )
        return OpenedNetwork(network=model, description=description)
    network = _open_exported(path, device, trust=trust)
    return OpenedNetwork(network=network, description=network.description)


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
    if not (trust or is_own(data)):
        what = "is a TorchScript file, which is a program, and was not exported on this machine"
        raise CheckpointError(path, what, fix="pass --trust if you know where it is from, or use the .onnx")
    return open_torchscript(data, device, where=path)


def _read(path: Path) -> bytes:
    """Return a file's bytes."""
    try:
        if path.is_file() and path.stat().st_size > MAX_BYTES:
            raise CheckpointError(path, f"is too large ({path.stat().st_size} bytes)", fix="pass the right file")
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(path, f"cannot be read ({error.strerror})", fix="check the path") from error
