"""Exported files against PyTorch on sizes that were never traced."""

import pytest
import torch
from torch import nn

from models.modules import AKConv
from models.yolo import DetectionModel
from tests.helpers.exports import METADATA, UNTRACED_SHAPES, random_input_and_output
from tests.helpers.small_model import SMALL_NAMES, small_model
from utils.export.formats import to_torchscript
from utils.inference.exported_model import open_onnx, open_torchscript
from utils.inference.onnx_conversion import ExportWrapper, to_onnx
from utils.inference.parity import max_difference

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.mark.parametrize("name", ["yolov5n.yaml", "yolov5n-AKConv.yaml"])
def test_every_format_matches_pytorch_on_untraced_sizes(name: str, torchscript_file: bytes, onnx_file: bytes) -> None:
    model = small_model(name)
    wrapper = ExportWrapper(model, half=False).eval()
    if name == "yolov5n.yaml":
        torchscript_file, graphs = to_torchscript(wrapper, METADATA), [to_onnx(wrapper, METADATA, opset=12)]
    else:
        graphs = [onnx_file, to_onnx(wrapper, METADATA, opset=19)]
    networks = [
        open_torchscript(torchscript_file, CPU, path="a"),
        *(open_onnx(graph, CPU, path="b") for graph in graphs),
    ]
    for network in networks:
        for shape in UNTRACED_SHAPES:
            images, exported = random_input_and_output(network, shape)
            with torch.no_grad():
                expected = model(images)[0]
            assert expected[..., 4].std() > 1e-3, "a model with constant output would prove nothing"
            assert max_difference(expected, exported) <= 1e-4


def test_exported_akconv_depends_on_its_offsets(onnx_file: bytes, model: DetectionModel) -> None:
    images, exported = random_input_and_output(open_onnx(onnx_file, CPU, path="a"), UNTRACED_SHAPES[0])
    without_offsets = small_model("yolov5n-AKConv.yaml")
    for layer in without_offsets.modules():
        if isinstance(layer, AKConv):
            nn.init.zeros_(layer.p_conv.weight)
    with torch.no_grad():
        assert max_difference(without_offsets(images)[0], exported) > 1e-2
        assert max_difference(model(images)[0], exported) <= 1e-4


def test_the_graph_has_dynamic_axes_and_standard_operators_only(onnx_file: bytes) -> None:
    graph = onnx.load_model_from_string(onnx_file).graph
    axes = [
        [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in (graph.input[0], graph.output[0])
    ]
    assert axes == [["batch", 3, "height", "width"], ["batch", "predictions", 5 + len(SMALL_NAMES)]]
    assert {node.domain for node in graph.node} == {""}


def test_half_precision_halves_the_file_and_keeps_boxes_accurate(model: DetectionModel, onnx_file: bytes) -> None:
    data = to_onnx(ExportWrapper(model, half=True).eval(), METADATA, opset=17)
    assert len(data) < 0.65 * len(onnx_file)
    images, exported = random_input_and_output(open_onnx(data, CPU, path="a"), UNTRACED_SHAPES[0])
    with torch.no_grad():
        assert 0 < max_difference(model(images)[0], exported) < 0.05
    assert exported.dtype == torch.float32


def test_files_store_their_metadata(torchscript_file: bytes, onnx_file: bytes) -> None:
    for exported in (open_onnx(onnx_file, CPU, path="a"), open_torchscript(torchscript_file, CPU, path="b")):
        assert exported.metadata == METADATA
        assert (exported.num_classes, exported.max_stride) == (3, 32)
