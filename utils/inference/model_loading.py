"""Open what `--weights` names: checkpoints, exported files, or several of them as an ensemble."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from models.summary import model_line
from models.yolo import DetectionModel
from utils.errors import CheckpointError, ConfigError
from utils.inference.detector import TorchNetwork, torch_network
from utils.inference.ensemble import Ensemble
from utils.inference.exported_model import ExportedModel, is_trusted, open_onnx, open_openvino, open_torchscript
from utils.inference.metadata import DEFAULT_IMAGE_SIZE, ModelMetadata
from utils.inference.ncnn_model import PARAM, open_ncnn
from utils.log import LOGGER
from utils.weights.checkpoint import Checkpoint, load_checkpoint, load_model
from utils.weights_file import read_weights_file

Model = DetectionModel | ExportedModel
CPU = torch.device("cpu")
MAX_IMAGE_SIZE = 8192
UNSUPPORTED_SUFFIXES = (".engine", ".mlmodel", ".mlpackage", ".tflite", ".pb", ".pdmodel")


def is_exported(weights: Path | str) -> bool:
    """Whether `--weights` names an exported file rather than a checkpoint."""
    path = Path(weights)
    return path.is_dir() or path.suffix.lower() in (".onnx", ".torchscript", ".xml", *UNSUPPORTED_SUFFIXES)


def model_name(weights: Path | str) -> str:
    """Return the name of a model: that of the run for `runs/train/NAME/weights/best.pt`, otherwise of the file."""
    file = Path(weights).resolve()
    return file.parent.parent.name if file.parent.name == "weights" else file.stem


def open_weights(
    weights: Path | str, device: torch.device = CPU, *, trust: bool = False
) -> tuple[Model, ModelMetadata]:
    """Open a checkpoint, whose model stays on the CPU, or an .onnx, .torchscript, .xml, OpenVINO or ncnn folder.

    With `trust`, run a TorchScript file that was not exported on this machine.

    Raises:
        CheckpointError: missing, damaged, or a TorchScript file of unknown origin.
        ConfigError: unsupported format, or a required package is missing.
    """
    path = Path(weights)
    if is_exported(path):
        exported = _open_exported(path, device, trust=trust)
        return exported, exported.metadata
    content = load_checkpoint(path)
    model, names = load_model(path, content=content)
    return model, checkpoint_metadata(content, names, model.max_stride, path)


def open_ensemble(
    paths: Sequence[str], device: torch.device = CPU, *, trust: bool = False
) -> tuple[Model | Ensemble, ModelMetadata]:
    """Open one or several files; several form an ensemble with the data yaml of the first and the largest image size.

    The size of each checkpoint's model is logged.

    Raises:
        CheckpointError: a file cannot be used, or the class names differ; see `open_weights`.
    """
    opened = [open_weights(path, device, trust=trust) for path in paths]
    first = opened[0][1]
    for path, (_, metadata) in zip(paths[1:], opened[1:], strict=True):
        if metadata.names != first.names:
            what = _name_difference(metadata.names, first.names)
            raise CheckpointError(path, what, fix="combine models of one data set")
    models = [model for model, _ in opened]
    for network in models:
        if isinstance(network, DetectionModel):
            LOGGER.info(model_line(network))
    model = models[0] if len(models) == 1 else Ensemble(models)
    return model, replace(
        first,
        stride=model.max_stride,
        image_size=max(metadata.image_size for _, metadata in opened),
        single_class=any(metadata.single_class for _, metadata in opened),
    )


def open_torch_network(
    paths: Sequence[str], device: torch.device, *, trust: bool = False, half: bool = False
) -> tuple[TorchNetwork, ModelMetadata]:
    """Open one or several files as `open_ensemble` does, prepared for inference in torch on a device."""
    model, metadata = open_ensemble(paths, device, trust=trust)
    return torch_network(model, device=device, half=half), metadata


def _name_difference(names: Sequence[str], expected: Sequence[str]) -> str:
    """Describe how class names differ from those of the first model of an ensemble."""
    if len(names) != len(expected):
        return f"has {len(names)} classes, but the first model has {len(expected)}"
    class_id = next(i for i, (name, other) in enumerate(zip(names, expected, strict=True)) if name != other)
    return f"names class {class_id} {names[class_id]!r}, but the first model {expected[class_id]!r}"


def checkpoint_metadata(content: Checkpoint, names: tuple[str, ...], stride: int, path: Path) -> ModelMetadata:
    """Return the metadata of a checkpoint's model.

    Raises:
        CheckpointError: its image size or training options are invalid.
    """
    size, stored = content.get("image_size"), content.get("options")
    options: dict[str, Any] = stored if isinstance(stored, dict) else {}
    data, single_class = options.get("data", ""), options.get("single_cls", False)
    valid = type(data) is str and isinstance(single_class, (bool, type(None)))
    if not valid or not (stored is None or isinstance(stored, dict)):
        raise CheckpointError(path, "has invalid options", fix="use another checkpoint")
    if size is not None and not (type(size) is int and 0 <= size <= MAX_IMAGE_SIZE):
        raise CheckpointError(path, f"has an invalid image_size ({size!r})", fix="use another checkpoint")
    return ModelMetadata(
        names=names, stride=stride, image_size=size or DEFAULT_IMAGE_SIZE, data=data, single_class=bool(single_class)
    )


def _open_exported(path: Path, device: torch.device, *, trust: bool) -> ExportedModel:
    """Open an exported file by its suffix."""
    suffix = path.suffix.lower()
    if suffix in UNSUPPORTED_SUFFIXES:
        raise ConfigError(path, f"{suffix} files are not supported", fix="pass the .pt, .onnx or .torchscript")
    if (path / PARAM).exists():
        return open_ncnn(path, path=path)
    if path.is_dir() or suffix == ".xml":
        graphs = [path] if suffix == ".xml" else sorted(path.glob("*.xml"))
        if len(graphs) != 1:
            raise CheckpointError(
                path, f"holds {len(graphs)} .xml files, not one", fix="pass an OpenVINO or ncnn folder"
            )
        return open_openvino(read_weights_file(graphs[0]), read_weights_file(graphs[0].with_suffix(".bin")), path=path)
    data = read_weights_file(path)
    if suffix == ".onnx":
        return open_onnx(data, device, path=path)
    if not (trust or is_trusted(data)):
        raise CheckpointError(
            path,
            "is a TorchScript file, which is a program, and was not exported on this machine",
            fix="pass --trust-torchscript (in Python trust=True) if you trust its source, or use the .onnx",
        )
    return open_torchscript(data, device, path=path)
