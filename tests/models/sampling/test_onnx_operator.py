"""AKConv as an operator of ONNX Runtime against the layer itself."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.fuse import fused
from models.modules import AKConv
from models.sampling.offset_convolution import last_convolution
from models.sampling.onnx_operator import DOMAIN, NAME, onnx_operators
from utils.compiled import AKCONV_OPERATOR, compiled_library

onnxruntime = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")
pytestmark = [
    pytest.mark.kernels,
    pytest.mark.skipif(compiled_library(AKCONV_OPERATOR) is None, reason="needs python -m utils.compiled"),
]
FORMS: tuple[dict[str, Any], ...] = (
    {},
    {"padding": "zeros", "bias": True, "act": False},
    {"offsets": "depthwise", "padding": "zeros", "points": "centered"},
    {"modulated": True, "act": nn.ReLU()},
    {"offsets": "depthwise", "modulated": True, "gradient": "symmetric"},
)
# Channels, outputs, points, stride: below, at and beyond a whole vector.
CASES = ((5, 7, 5, 2), (16, 32, 3, 1), (8, 33, 1, 1), (24, 16, 9, 3))
SHAPES = ((1, 7, 16), (3, 16, 5), (2, 1, 9), (1, 65, 70))


def moving_layer(case: tuple[int, ...], **form: Any) -> nn.Sequential:
    """A layer whose batch norm is folded, and whose offsets reach beyond the map and are no whole numbers."""
    torch.manual_seed(sum(case))
    layer = AKConv(*case, **form)
    last = last_convolution(layer.p_conv)
    nn.init.normal_(last.weight, std=0.5)
    nn.init.normal_(last.bias, std=2.0)  # type: ignore[arg-type]
    layer.conv[1].running_var.uniform_(0.5, 2)  # type: ignore[union-attr, operator]
    return fused(nn.Sequential(layer))


def open_layer(layer: nn.Module, path: Path, channels: int, *, threads: int = 1) -> Any:
    """Export a layer as an operator, and return ONNX Runtime's session."""
    axes, names = {"x": {0: "batch", 2: "height", 3: "width"}}, {"input_names": ["x"], "output_names": ["y"]}
    with onnx_operators(), torch.no_grad():
        example = (torch.rand(2, channels, 8, 12),)
        torch.onnx.export(layer, example, path, dynamo=False, opset_version=17, dynamic_axes=axes, **names)  # type: ignore[arg-type]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.register_custom_ops_library(str(compiled_library(AKCONV_OPERATOR)))
    return onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])


def run(session: Any, x: Tensor) -> Tensor:
    return torch.from_numpy(session.run(None, {"x": x.numpy()})[0])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_operator_equals_the_layer_at_sizes_never_traced(form: dict[str, Any], threads: int, tmp_path: Path) -> None:
    for case in CASES:
        layer = moving_layer(case, **form)
        session = open_layer(layer, tmp_path / "layer.onnx", case[0], threads=threads)
        nodes = onnx.load(tmp_path / "layer.onnx").graph.node
        assert [node.op_type for node in nodes if node.domain == DOMAIN] == [NAME]
        assert not {"Conv", "Gather", "DeformConv"} & {node.op_type for node in nodes}
        for batch, height, width in SHAPES:
            x = torch.randn(batch, case[0], height, width)
            with torch.no_grad():
                torch.testing.assert_close(run(session, x), layer(x), atol=2e-5, rtol=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_large_maps_are_divided_among_threads(tmp_path: Path) -> None:
    layer = moving_layer((16, 32, 3, 2))
    session, x = open_layer(layer, tmp_path / "layer.onnx", 16, threads=2), torch.randn(3, 16, 90, 101)
    with torch.no_grad():
        torch.testing.assert_close(run(session, x), layer(x), atol=2e-5, rtol=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_absurd_numbers_reach_only_the_pixels_that_read_them(tmp_path: Path) -> None:
    layer = moving_layer((16, 8, 3, 1), padding="zeros")
    nn.init.normal_(layer[0].p_conv.weight, std=0.05)
    session = open_layer(layer, tmp_path / "layer.onnx", 16)
    for value in (float("nan"), float("inf"), 1e30):
        x = torch.randn(2, 16, 12, 15)
        x[1, 3, 2, 13] = value
        with torch.no_grad():
            expected, found = layer(x), run(session, x)
        assert value == 1e30 or not found[1].isfinite().all()
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4, equal_nan=True)


@pytest.mark.filterwarnings("ignore")
def test_a_map_of_other_channels_is_an_error_of_the_session(tmp_path: Path) -> None:
    path = tmp_path / "layer.onnx"
    open_layer(moving_layer((16, 8, 3, 1)), path, 16)
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "channels"
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.register_custom_ops_library(str(compiled_library(AKCONV_OPERATOR)))
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    with pytest.raises(Exception, match="channels"):  # ONNX Runtime's exceptions have no common base class
        run(session, torch.rand(1, 15, 8, 8))
    assert run(session, torch.rand(1, 16, 8, 8)).shape == (1, 8, 8, 8)
