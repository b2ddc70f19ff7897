"""Convert a model to TorchScript, ONNX or OpenVINO, as bytes, with dynamic batch size, height and width."""

from __future__ import annotations

import io
import json
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from models.fuse import fused
from models.head import decode
from models.yolo import DetectionModel
from utils.export.onnx_nms import append_nms
from utils.inference import exported_model
from utils.inference.exported_model import INPUT, OUTPUT, ModelMetadata, require_package
from utils.inference.nms import NmsSettings

TRACED_CELLS = (3, 5)  # height and width of the traced images in cells of the coarsest level
TRACED_BATCH = 2
OPENVINO_OPSET = 17  # its ONNX reader does not support DeformConv, which AKConv becomes from opset 19 on


class ExportWrapper(nn.Module):
    """The traced module: images (B, 3, H, W) float32 in [0, 1] to predictions (B, n, 5 + classes) float32."""

    def __init__(self, model: DetectionModel, *, half: bool) -> None:
        """Copy a float32 model with its batch norms folded.

        With `half`, compute in half precision except for the boxes, whose resolution would be half a pixel at 640.
        """
        super().__init__()
        self.network = fused(model)
        self.anchors: Tensor
        self.register_buffer("anchors", self.network.head.anchors.clone(), persistent=False)
        self.strides = self.network.head.strides
        self.half_precision = half
        if half:
            self.network.half()

    def forward(self, images: Tensor) -> Tensor:
        """Map images to predictions."""
        if not self.half_precision:
            return self.network(images)[0]
        levels = zip(self.network(images.half())[1], self.anchors, self.strides, strict=True)
        return torch.cat([decode(level.float(), anchors, stride) for level, anchors, stride in levels], 1)

    def example(self) -> Tensor:
        """Return images for tracing."""
        height, width = (cells * self.network.max_stride for cells in TRACED_CELLS)
        return torch.rand(TRACED_BATCH, self.network.in_channels, height, width, device=self.anchors.device)


@contextmanager
def _silenced() -> Iterator[None]:
    """Suppress the tracers' warnings: the parity check on other sizes finds what they warn about."""
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def to_torchscript(wrapper: ExportWrapper, metadata: ModelMetadata) -> bytes:
    """Return a TorchScript file."""
    with _silenced(), torch.no_grad():
        traced = cast(torch.jit.ScriptModule, torch.jit.trace(wrapper, wrapper.example(), check_trace=False))
        buffer = io.BytesIO()
        torch.jit.save(
            traced, buffer, _extra_files={exported_model.TORCHSCRIPT_METADATA: json.dumps(metadata.to_text())}
        )
    return buffer.getvalue()


def to_onnx(wrapper: ExportWrapper, metadata: ModelMetadata, *, opset: int, simplify: bool = False) -> bytes:
    """Return an ONNX file of a model on the CPU with an opset from 12 to 20, simplified by onnxslim if requested.

    A missing onnx or onnxslim raises a ConfigError.
    """
    onnx = require_package("onnx", "--include onnx")
    with tempfile.TemporaryDirectory() as folder, _silenced(), torch.no_grad():
        path = Path(folder) / "model.onnx"
        torch.onnx.export(
            wrapper,
            (wrapper.example(),),
            path,
            dynamo=False,  # the new exporter takes minutes with dynamic sizes, and supports no opset below 18
            opset_version=opset,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes={INPUT: {0: "batch", 2: "height", 3: "width"}, OUTPUT: {0: "batch", 1: "predictions"}},
        )
        model = onnx.load_model(path)
    model.graph.output[0].type.tensor_type.shape.dim[2].dim_value = 5 + len(metadata.names)
    if simplify:
        with _silenced():
            model = require_package("onnxslim", "--simplify").slim(model)
    return _serialize(model, metadata)


def add_nms(data: bytes, metadata: ModelMetadata, nms: NmsSettings, *, max_per_class: int) -> bytes:
    """Return an ONNX file with NMS in its graph."""
    model = require_package("onnx", "--nms").load_model_from_string(data)
    append_nms(model, len(metadata.names), nms, max_per_class=max_per_class)
    return _serialize(model, replace(metadata, nms=True))


def _serialize(model: Any, metadata: ModelMetadata) -> bytes:  # noqa: ANN401
    """Store the metadata in an ONNX model, check it, and return it as bytes."""
    onnx = require_package("onnx", "--include onnx")
    onnx.helper.set_model_props(model, metadata.to_text())
    onnx.checker.check_model(model)
    return cast(bytes, model.SerializeToString())


def to_openvino(wrapper: ExportWrapper, metadata: ModelMetadata) -> dict[str, bytes]:
    """Return an OpenVINO model as the bytes of its `.xml` and its `.bin`; ConfigError without openvino or onnx."""
    openvino = require_package("openvino", "--include openvino")
    model: Any = openvino.Core().read_model(to_onnx(wrapper, metadata, opset=OPENVINO_OPSET))
    for key, text in metadata.to_text().items():
        model.set_rt_info(text, [exported_model.OPENVINO_METADATA, key])
    with tempfile.TemporaryDirectory() as folder:
        xml, weights = Path(folder) / "model.xml", Path(folder) / "model.bin"
        openvino.serialize(model, xml, weights)
        return {".xml": xml.read_bytes(), ".bin": weights.read_bytes()}
