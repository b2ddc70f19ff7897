"""Exported networks: what a file says of itself, and how each kind of file is run."""

from __future__ import annotations

import ast
import hashlib
import importlib
import io
import json
import threading
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from utils.boxes import xyxy_to_cxcywh
from utils.errors import CheckpointError, ConfigError
from utils.files import try_write, user_cache_dir
from utils.log import LOGGER

INPUT, OUTPUT = "images", "output0"
TORCHSCRIPT_NOTE = "config.txt"  # where YOLOv5's TorchScript files keep theirs
OPENVINO_NOTE = "model_info"
Run = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class ModelMetadata:
    """What is known of a network beside its weights; exported files carry it, under the names that YOLOv5's use.

    Attributes:
        names: class names.
        stride: image sides must be multiples of it.
        image_size: longer side in pixels that it was made for.
        data: data yaml it was trained on.
        single_class: whether all classes were trained as one.
        nms: whether suppression is inside, and rows are x1, y1, x2, y2, score, class.
        device: kind of device a TorchScript file runs on: its constants are bound to it.
    """

    names: tuple[str, ...]
    stride: int
    image_size: int = 640
    data: str = ""
    single_class: bool = False
    nms: bool = False
    device: str = "cpu"

    def to_text(self) -> dict[str, str]:
        """Return it as text for a file."""
        return {
            "names": str(dict(enumerate(self.names))),
            "stride": str(self.stride),
            "imgsz": str(self.image_size),
            "data": self.data,
            "single_cls": str(self.single_class),
            "nms": str(self.nms),
            "device": self.device,
        }

    @classmethod
    def from_text(cls, text: Mapping[str, Any], *, where: Path | str) -> ModelMetadata:
        """Read what `to_text` wrote, or YOLOv5.

        Raises:
            CheckpointError: class names or stride are missing, or are none.
        """
        try:
            names = text["names"]
            names = ast.literal_eval(names) if isinstance(names, str) else names
            by_number = {int(n): str(v) for n, v in (names.items() if isinstance(names, dict) else enumerate(names))}
            stride, size = int(text["stride"]), str(text.get("imgsz", ""))
            if sorted(by_number) != list(range(len(by_number))) or not by_number or not 1 <= stride <= 4096:
                raise ValueError
        except (KeyError, ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
            raise CheckpointError(
                where, "holds no class names and stride", fix="export it with export.py, or with YOLOv5"
            ) from error
        return cls(
            names=tuple(by_number[n] for n in range(len(by_number))),
            stride=stride,
            image_size=int(size) if size.isdigit() else 640,
            data=str(text.get("data", "")),
            single_class=str(text.get("single_cls")) == "True",
            nms=str(text.get("nms")) == "True",
            device=str(text.get("device", "")),
        )


class ExportedNetwork(nn.Module):
    """A network from an exported file, called like `DetectionModel` in evaluation mode.

    It stays where it was opened: copying, moving and casting leave it as it is.

    Attributes:
        description: what the file says of itself.
        device: where it was opened, and where it is best given images.
    """

    def __init__(self, run: Run, description: ModelMetadata, *, device: torch.device | None = None) -> None:
        """Wrap a function from images (B, 3, H, W) float32 to the file's output; the CPU is the default device."""
        super().__init__()
        self._run = run
        self.description = description
        self.device = device or torch.device("cpu")

    @property
    def num_classes(self) -> int:
        """How many classes it tells apart."""
        return len(self.description.names)

    @property
    def max_stride(self) -> int:
        """Image sides must be multiples of it."""
        return self.description.stride

    def __deepcopy__(self, memo: dict[int, Any]) -> ExportedNetwork:
        """Return itself: it has no state of its own."""
        return self

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Map images (B, 3, H, W) in [0, 1] to predictions (B, n, 5 + classes), and no raw maps.

        Raises:
            CheckpointError: the file answers in another form, as other families of detectors do.
        """
        rows = self._run(images.float())
        wanted = 6 if self.description.nms else 5 + self.num_classes
        if rows.ndim != 3 or rows.shape[2] != wanted:
            shape = "x".join(map(str, rows.shape))
            raise CheckpointError(
                "the exported file",
                f"answers with {shape} numbers, not {wanted} for each box of {self.num_classes} classes",
                fix="export it with export.py, or with YOLOv5",
            )
        return (_as_predictions(rows, self.num_classes) if self.description.nms else rows), []


def _as_predictions(rows: Tensor, classes: int) -> Tensor:
    """Turn (B, n, 6) detections x1, y1, x2, y2, score, class into predictions that suppression leaves as they are."""
    kinds = nn.functional.one_hot(rows[..., 5].long().clamp(0, classes - 1), classes).to(rows.dtype)
    return torch.cat((xyxy_to_cxcywh(rows[..., :4]), rows[..., 4:5], kinds), -1)


def require_package(name: str, where: Path | str) -> Any:  # noqa: ANN401
    """Import a package that only exported files need.

    Raises:
        ConfigError: it is not installed; names the line that installs it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(where, f"needs {name}, which is not installed", fix=f"pip install {name}") from error


def open_torchscript(data: bytes, device: torch.device, *, where: Path | str) -> ExportedNetwork:
    """Open a TorchScript file. It is a program, which runs from here on.

    Raises:
        CheckpointError: damaged.
        ConfigError: exported for another kind of device.
    """
    note = {TORCHSCRIPT_NOTE: ""}
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*deprecated")
            module = torch.jit.load(io.BytesIO(data), map_location=device, _extra_files=note).eval()
        text = json.loads(note[TORCHSCRIPT_NOTE] or "{}")
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(
            where, f"is no TorchScript file, or damaged ({len(data)} bytes)", fix="export it again"
        ) from error
    description = ModelMetadata.from_text(text if isinstance(text, dict) else {}, where=where)
    if description.device and description.device != device.type:
        fix = f"export it again with --device {device}, or pass --device {description.device}"
        raise ConfigError(where, f"was exported for {description.device}, not {device.type}", fix=fix)

    def run(images: Tensor) -> Tensor:
        output = module(images)
        return output[0] if isinstance(output, tuple) else output

    return ExportedNetwork(run, description, device=device)


def open_onnx(data: bytes, device: torch.device, *, where: Path | str) -> ExportedNetwork:
    """Open an ONNX file in ONNX Runtime.

    Raises:
        CheckpointError: damaged, or of another program.
        ConfigError: ONNX Runtime is not installed.
    """
    onnxruntime = require_package("onnxruntime", where)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = torch.get_num_threads()
    settings.log_severity_level = 3
    providers = ["CPUExecutionProvider"]
    if device.type == "cuda":
        if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            providers.insert(0, "CUDAExecutionProvider")
        else:
            LOGGER.warning(f"{where} runs on the CPU: this ONNX Runtime knows no CUDA (onnxruntime-gpu does)")
    try:
        session = onnxruntime.InferenceSession(data, settings, providers=providers)
    except Exception as error:  # ONNX Runtime's own kinds have no common ancestor
        reason = str(error).splitlines()[0][:200]
        raise CheckpointError(where, f"cannot be opened by ONNX Runtime: {reason}", fix="export it again") from error
    description = ModelMetadata.from_text(session.get_modelmeta().custom_metadata_map, where=where)
    entry, output = session.get_inputs()[0], session.get_outputs()[0].name
    entry_type = np.float16 if entry.type == "tensor(float16)" else np.float32

    def run(images: Tensor) -> Tensor:
        for wanted, given in zip(entry.shape, images.shape, strict=True):
            if isinstance(wanted, int) and wanted != given:
                shape = "x".join(str(size) for size in entry.shape)
                raise ConfigError(where, f"takes images {shape} only", fix="export it with sizes left open")
        array = np.ascontiguousarray(images.cpu().numpy(), dtype=entry_type)
        return torch.from_numpy(session.run([output], {entry.name: array})[0]).float().to(images.device)

    return ExportedNetwork(run, description, device=device)


def open_openvino(xml: bytes, weights: bytes, *, where: Path | str) -> ExportedNetwork:
    """Open an OpenVINO network, in full precision on the CPU.

    Raises:
        CheckpointError: damaged, or of another program.
        ConfigError: OpenVINO is not installed.
    """
    openvino = require_package("openvino", where)
    core = openvino.Core()
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    try:
        model = core.read_model(model=xml, weights=weights)
        network = core.compile_model(model, "CPU", settings)
        paths = {key: [OPENVINO_NOTE, key] for key in ModelMetadata(names=(), stride=1).to_text()}
        text = {key: model.get_rt_info(path).astype(str) for key, path in paths.items() if model.has_rt_info(path)}
    except RuntimeError as error:
        reason = str(error).splitlines()[0][:200]
        raise CheckpointError(where, f"cannot be opened by OpenVINO: {reason}", fix="export it again") from error
    description = ModelMetadata.from_text(text, where=where)

    one_at_a_time = threading.Lock()  # the network has one request, which a second caller would find busy

    def run(images: Tensor) -> Tensor:
        with one_at_a_time:
            found = np.array(network([np.ascontiguousarray(images.cpu().numpy())])[0])
        return torch.from_numpy(found).to(images.device)

    return ExportedNetwork(run, description)


def _own_mark(data: bytes) -> Path:
    return user_cache_dir() / "exported" / hashlib.sha256(data).hexdigest()


def mark_trusted(data: bytes) -> None:
    """Note that this program, on this machine, made a TorchScript file."""
    try_write(_own_mark(data), "")


def is_trusted(data: bytes) -> bool:
    """Whether `mark_trusted` was told of this very file."""
    return _own_mark(data).exists()
