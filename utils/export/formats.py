"""A network in each format: TorchScript, ONNX, OpenVINO; as bytes, for any batch, height and width."""

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

from models.fuse import fused, widen_offsets
from models.head import decode
from models.yolo import DetectionModel
from utils.export.onnx_nms import EmbeddedNms, with_nms
from utils.inference.exported_model import (
    INPUT,
    OPENVINO_NOTE,
    OUTPUT,
    TORCHSCRIPT_NOTE,
    ModelMetadata,
    require_package,
)

TRACED_CELLS = (3, 5)  # cells of the coarsest level, high and wide, of the images that are traced
TRACED_BATCH = 2
OPENVINO_OPSET = 17  # its reader does not know the form that AKConv takes from opset 19 on


class ExportForm(nn.Module):
    """What is written to a file: images (B, 3, H, W) float32 in [0, 1] to predictions (B, n, 5 + classes) float32."""

    def __init__(self, model: DetectionModel, *, half: bool) -> None:
        """Copy a model with its batch norms folded.

        Args:
            model: in float32; left as it is.
            half: compute in half precision, boxes excepted: half precision steps by half a pixel at 640.
        """
        super().__init__()
        self.network = fused(model)
        widen_offsets(self.network)
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
        """Return images to trace with."""
        stride = max(self.strides)
        height, width = (cells * stride for cells in TRACED_CELLS)
        return torch.rand(TRACED_BATCH, self.network.in_channels, height, width, device=self.anchors.device)


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep tracers' remarks to themselves: what they warn of is what the check on other sizes finds."""
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def to_torchscript(form: ExportForm, description: ModelMetadata) -> bytes:
    """Return a TorchScript file."""
    with _quietly(), torch.no_grad():
        traced = cast(torch.jit.ScriptModule, torch.jit.trace(form, form.example(), check_trace=False))
        buffer = io.BytesIO()
        torch.jit.save(traced, buffer, _extra_files={TORCHSCRIPT_NOTE: json.dumps(description.to_text())})
    return buffer.getvalue()


def to_onnx(form: ExportForm, description: ModelMetadata, *, opset: int, simplify: bool = False) -> bytes:
    """Return an ONNX file.

    Args:
        form: on the CPU.
        description: goes into the file's metadata.
        opset: version of ONNX's set of operators, 12 to 20.
        simplify: run onnxslim over it.

    Raises:
        ConfigError: onnx or onnxslim is not installed.
    """
    onnx = require_package("onnx", "--include onnx")
    axes = {INPUT: {0: "batch", 2: "height", 3: "width"}, OUTPUT: {0: "batch", 1: "predictions"}}
    with tempfile.TemporaryDirectory() as folder, _quietly(), torch.no_grad():
        path = Path(folder) / "model.onnx"
        torch.onnx.export(
            form,
            (form.example(),),
            path,
            dynamo=False,  # the other exporter takes minutes for a model with open sizes, and knows no opset below 18
            opset_version=opset,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes=axes,
        )
        model = onnx.load_model(path)
    numbers = model.graph.output[0].type.tensor_type.shape.dim[2]
    numbers.dim_value = 5 + len(description.names)
    if simplify:
        with _quietly():
            model = require_package("onnxslim", "--simplify").slim(model)
    return _described(model, description)


def add_nms(data: bytes, description: ModelMetadata, nms: EmbeddedNms) -> bytes:
    """Return an ONNX file with suppression inside."""
    model = require_package("onnx", "--nms").load_model_from_string(data)
    return _described(with_nms(model, len(description.names), nms), replace(description, nms=True))


def _described(model: Any, description: ModelMetadata) -> bytes:  # noqa: ANN401
    """Return a checked ONNX model as bytes, with its description inside."""
    onnx = require_package("onnx", "--include onnx")
    onnx.helper.set_model_props(model, description.to_text())
    onnx.checker.check_model(model)
    return cast(bytes, model.SerializeToString())


def to_openvino(form: ExportForm, description: ModelMetadata) -> dict[str, bytes]:
    """Return an OpenVINO network as the bytes of its `.xml` and its `.bin` file.

    Raises:
        ConfigError: openvino or onnx is not installed.
    """
    openvino = require_package("openvino", "--include openvino")
    model: Any = openvino.Core().read_model(to_onnx(form, description, opset=OPENVINO_OPSET))
    for key, text in description.to_text().items():
        model.set_rt_info(text, [OPENVINO_NOTE, key])
    with tempfile.TemporaryDirectory() as folder:
        xml, weights = Path(folder) / "model.xml", Path(folder) / "model.bin"
        openvino.serialize(model, xml, weights)
        return {".xml": xml.read_bytes(), ".bin": weights.read_bytes()}
