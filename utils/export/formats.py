"""Convert a model to TorchScript, ONNX with NMS, or OpenVINO, as bytes, with dynamic batch size, height and width."""

from __future__ import annotations

import io
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from utils.export.onnx_nms import append_nms
from utils.inference import exported_model
from utils.inference.metadata import ModelMetadata
from utils.inference.nms import NmsSettings
from utils.inference.onnx_conversion import ExportWrapper, default_opset, serialize, silenced, to_onnx
from utils.inference.onnx_session import require_package

OPENVINO_FLAG = "--include openvino"


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
    openvino = require_package("openvino", OPENVINO_FLAG)
    opset = default_opset(wrapper.network, half=wrapper.half_precision)
    model = openvino_model(to_onnx(wrapper, metadata, opset=opset))
    for key, text in metadata.to_text().items():
        model.set_rt_info(text, [exported_model.OPENVINO_METADATA, key])
    with tempfile.TemporaryDirectory() as folder:
        xml, weights = Path(folder) / "model.xml", Path(folder) / "model.bin"
        openvino.serialize(model, xml, weights)
        return {".xml": xml.read_bytes(), ".bin": weights.read_bytes()}


def openvino_model(graph: bytes) -> Any:  # noqa: ANN401
    """Return an ONNX graph as an `openvino.Model`.

    OpenVINO's ONNX reader does not know DeformConv, although OpenVINO has the operator.
    """
    core = require_package("openvino", OPENVINO_FLAG).Core()
    reader = require_package("openvino.frontend.onnx", OPENVINO_FLAG)
    core.add_extension(reader.ConversionExtension("DeformConv", "", _deformable_convolution))
    return core.read_model(graph)


def _deformable_convolution(node: Any) -> list[Any]:  # noqa: ANN401
    """Convert a DeformConv node that AKConv has become: its dilation is 1, and it has a bias if it has factors."""
    openvino = require_package("openvino", OPENVINO_FLAG)
    x, weight, offset, *others = (node.get_input(index) for index in range(node.get_input_size()))
    pads, factors = node.get_attribute("pads"), others[1] if len(others) > 1 else None
    constants = node.get_attribute("strides"), pads[:2], pads[2:], [1, 1]
    # As in ONNX, a position less than a pixel outside the map is interpolated between the border and zero.
    interpolation = {"bilinear_interpolation_pad": True}
    y = openvino.opset8.deformable_convolution(x, offset, weight, *constants, factors, **interpolation)
    if others:
        bias = openvino.opset8.reshape(others[0], np.array([1, -1, 1, 1]), special_zero=False)
        y = openvino.opset8.add(y, bias)
    return [y.output(0)]
