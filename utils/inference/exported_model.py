"""Exported models: the metadata in their files, and how each format is run."""

from __future__ import annotations

import hashlib
import io
import json
import os
import threading
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from utils.boxes import xyxy_to_cxcywh
from utils.errors import CheckpointError, ConfigError, DetectorError
from utils.files import try_write, user_cache_dir
from utils.inference.metadata import ModelMetadata
from utils.inference.onnx_session import open_session, require_package
from utils.inference.raw_heads import decode_heads
from utils.log import LOGGER

TORCHSCRIPT_METADATA = "config.txt"  # the extra file in which YOLOv5 stores it too
OPENVINO_METADATA = "model_info"
Run = Callable[[Tensor], Tensor]


class ExportedModel(nn.Module):
    """A model from an exported file, called like `DetectionModel` in evaluation mode.

    It stays on the device where it was opened: copying, moving and casting have no effect.

    Attributes:
        metadata: from the file.
        device: where it was opened; inputs are best there.
    """

    def __init__(
        self,
        run: Run,
        metadata: ModelMetadata,
        *,
        path: Path | str = "the exported file",
        device: torch.device | None = None,
    ) -> None:
        """Wrap a function from images (B, 3, H, W) float32 to the file's output; the CPU is the default device."""
        super().__init__()
        self._run, self._path = run, path
        self.metadata = metadata
        self.device = device or torch.device("cpu")
        self.num_classes = len(metadata.names)
        self.max_stride = metadata.stride

    def __deepcopy__(self, memo: dict[int, Any]) -> ExportedModel:
        """Return itself: it has no parameters to copy."""
        return self

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Map images (B, 3, H, W) in [0, 1] to predictions (B, n, 5 + classes); there are no raw maps.

        A CheckpointError if the file accepts no images, or its output is not that of this project or YOLOv5.
        """
        fix = "export it with export.py or YOLOv5"
        try:
            rows = self._run(images.float())
        except (DetectorError, torch.OutOfMemoryError, MemoryError):
            raise
        except Exception as error:  # each runtime raises its own
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            raise CheckpointError(self._path, f"cannot be run: {reason}", fix=fix) from error
        if not isinstance(rows, Tensor) or not rows.is_floating_point():
            kind = rows.dtype if isinstance(rows, Tensor) else type(rows).__name__
            raise CheckpointError(self._path, f"returns {kind}, not floating-point numbers", fix=fix)
        columns = 6 if self.metadata.nms else 5 + self.num_classes
        if rows.ndim != 3 or rows.shape[0] != len(images) or rows.shape[2] != columns:
            shape, wanted = "x".join(map(str, rows.shape)), f"{len(images)}xNx{columns}"
            what = f"returns {shape} values, not {wanted} for {len(images)} images and {self.num_classes} classes"
            raise CheckpointError(self._path, what, fix=fix)
        rows = rows.float()
        return (_as_predictions(rows, self.num_classes) if self.metadata.nms else rows), []


def _as_predictions(rows: Tensor, classes: int) -> Tensor:
    """Convert (B, n, 6) detections x1, y1, x2, y2, score, class into predictions from which NMS restores them."""
    one_hot = nn.functional.one_hot(rows[..., 5].long().clamp(0, classes - 1), classes).to(rows.dtype)
    return torch.cat((xyxy_to_cxcywh(rows[..., :4]), rows[..., 4:5], one_hot), -1)


def open_torchscript(data: bytes, device: torch.device, *, path: Path | str) -> ExportedModel:
    """Open a TorchScript file. It is a program that runs from here on: the caller must trust it.

    Raises:
        CheckpointError: damaged.
        ConfigError: exported for another type of device.
    """
    stored = {TORCHSCRIPT_METADATA: ""}
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*deprecated")
            module = torch.jit.load(io.BytesIO(data), map_location=device, _extra_files=stored).eval()
        text = json.loads(stored[TORCHSCRIPT_METADATA] or "{}")
    except (RuntimeError, ValueError) as error:
        what = f"is not a TorchScript file, or is damaged ({len(data)} bytes)"
        raise CheckpointError(path, what, fix="export it again") from error
    metadata = ModelMetadata.from_text(text if isinstance(text, dict) else {}, path=path)
    if metadata.device and metadata.device != device.type:
        fix = f"export it again with --device {device}, or pass --device {metadata.device}"
        raise ConfigError(path, f"was exported for {metadata.device}, not {device.type}", fix=fix)

    def run(images: Tensor) -> Tensor:
        output = module(images)
        return output[0] if isinstance(output, tuple) else output

    return ExportedModel(run, metadata, path=path, device=device)


def open_onnx(data: bytes, device: torch.device, *, path: Path | str) -> ExportedModel:
    """Open an ONNX file in ONNX Runtime; CheckpointError if it is damaged or has no metadata."""
    onnxruntime = require_package("onnxruntime", path)
    providers = ["CPUExecutionProvider"]
    if device.type == "cuda":
        if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            providers.insert(0, "CUDAExecutionProvider")
        else:
            LOGGER.warning(f"{path} runs on the CPU: no CUDAExecutionProvider (install onnxruntime-gpu)")
    try:
        session = open_session(data, providers=providers)
    except Exception as error:  # ONNX Runtime's exceptions have no common base class
        reason = str(error).splitlines()[0][:200]
        raise CheckpointError(path, f"cannot be opened by ONNX Runtime: {reason}", fix="export it again") from error
    metadata = ModelMetadata.from_text(session.get_modelmeta().custom_metadata_map, path=path)
    inputs, types = session.get_inputs(), {"tensor(float)": np.float32, "tensor(float16)": np.float16}
    if len(inputs) != 1 or inputs[0].type not in types or len(inputs[0].shape) != 4 or not session.get_outputs():
        listed = ", ".join(f"{one.type} {one.shape}"[:60] for one in inputs[:3]) or "nothing"
        what = f"is not a detector of images: its input is {listed}"
        raise CheckpointError(path, what, fix="export it with export.py or YOLOv5")
    graph_input, outputs = inputs[0], session.get_outputs()
    dtype = types[graph_input.type]
    sizes = [size if isinstance(size, int) else None for size in graph_input.shape]  # None: any
    if sizes[2] is not None and sizes[3] is not None:
        metadata = replace(metadata, fixed_hw=(sizes[2], sizes[3]))

    def run_batch(array: np.ndarray) -> np.ndarray:
        if metadata.heads is None:
            return session.run([outputs[0].name], {graph_input.name: array})[0]
        maps = session.run([output.name for output in outputs], {graph_input.name: array})
        return decode_heads(maps, anchors=metadata.heads.anchors, strides=metadata.heads.strides)

    def run(images: Tensor) -> Tensor:
        if any(expected not in (None, size) for expected, size in zip(sizes[1:], images.shape[1:], strict=True)):
            shape = "x".join(str(size) for size in graph_input.shape)
            raise ConfigError(path, f"accepts images of shape {shape} only", fix="export it with dynamic axes")
        array = np.ascontiguousarray(images.cpu().numpy(), dtype=dtype)
        step = sizes[0] or max(len(array), 1)
        missing = -len(array) % step  # a file of a fixed batch size gets whole batches
        array = np.concatenate((array, np.zeros((missing, *array.shape[1:]), dtype))) if missing else array
        parts = [run_batch(array[start : start + step]) for start in range(0, max(len(array), 1), step)]
        rows = np.concatenate(parts) if len(parts) > 1 else parts[0]
        return torch.from_numpy(rows[: len(rows) - missing]).to(images.device)

    return ExportedModel(run, metadata, path=path, device=device)


def open_openvino(xml: bytes, weights: bytes, *, path: Path | str) -> ExportedModel:
    """Open an OpenVINO model, in full precision on the CPU; CheckpointError if it is damaged or has no metadata."""
    core = require_package("openvino", path).Core()
    properties = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    try:
        model = core.read_model(model=xml, weights=weights)
        compiled = core.compile_model(model, "CPU", properties)
        keys = {key: [OPENVINO_METADATA, key] for key in ModelMetadata(names=(), stride=1).to_text()}
        text = {key: model.get_rt_info(entry).astype(str) for key, entry in keys.items() if model.has_rt_info(entry)}
    except RuntimeError as error:
        reason = str(error).splitlines()[0][:200]
        raise CheckpointError(path, f"cannot be opened by OpenVINO: {reason}", fix="export it again") from error
    lock = threading.Lock()  # the compiled model has one request, which a second caller would find busy

    def run(images: Tensor) -> Tensor:
        with lock:
            output = np.array(compiled([np.ascontiguousarray(images.cpu().numpy())])[0])
        return torch.from_numpy(output).to(images.device)

    return ExportedModel(run, ModelMetadata.from_text(text, path=path), path=path)


def _trust_marker(data: bytes) -> Path:
    return user_cache_dir() / "exported" / hashlib.sha256(data).hexdigest()


def mark_trusted(data: bytes) -> None:
    """Record that export.py made this TorchScript file on this machine."""
    try_write(_trust_marker(data), "")


def is_trusted(data: bytes) -> bool:
    """Whether `mark_trusted` has recorded exactly this file."""
    return os.path.exists(_trust_marker(data))  # False also if the folder cannot be read
