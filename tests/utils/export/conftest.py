"""One small AKConv model and its exports, shared by the tests of this folder."""

import pytest

from models.yolo import DetectionModel
from tests.helpers.exports import METADATA
from tests.helpers.small_model import small_model
from utils.export.formats import to_torchscript
from utils.inference.onnx_conversion import ExportWrapper, to_onnx


@pytest.fixture(scope="session")
def model() -> DetectionModel:
    return small_model("yolov5n-AKConv.yaml")


@pytest.fixture(scope="session")
def onnx_file(model: DetectionModel) -> bytes:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    return to_onnx(ExportWrapper(model, half=False).eval(), METADATA, opset=17)


@pytest.fixture(scope="session")
def torchscript_file(model: DetectionModel) -> bytes:
    return to_torchscript(ExportWrapper(model, half=False).eval(), METADATA)
