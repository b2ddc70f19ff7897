"""Convert a model to TorchScript, ONNX with NMS, or OpenVINO, as bytes, with dynamic batch size, height and width."""

from __future__ import annotations

import io
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch

from utils.export.onnx_nms import append_nms
from utils.inference import exported_model
from utils.inference.metadata import ModelMetadata
from utils.inference.nms import NmsSettings
from utils.inference.onnx_conversion import ExportWrapper, serialize, silenced, to_onnx
from utils.inference.onnx_session import require_package

OPENVINO_OPSET = 17  # its ONNX reader does not support DeformConv, which AKConv becomes from opset 19 on


def to_torchscript(wrapper: ExportWrapper, metadata: ModelMetadata) -> bytes:
    """Return a TorchScript file."""
    with silenced(), torch.no_grad():
        traced = cast(torch.jit.ScriptModule, torch.jit.trace(wrapper, wrapper.example(), check_trace=False))
        buffer = io.BytesIO()
        torch.jit.save(
            traced, buffer, _extra_files={exported_model.TORCHSCRIPT_METADATA: json.dumps(metadata.to_text())}
        )
    return buffer.getvalue()


def add_nms(data: bytes, metadata: ModelMetadata, nms: NmsSettings, *, max_per_class: int) -> bytes:
    """Return an ONNX file with NMS in its graph."""
    model = require_package("onnx", "--nms").load_model_from_string(data)
    append_nms(model, len(metadata.names), nms, max_per_class=max_per_class)
    return serialize(model, replace(metadata, nms=True))


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
