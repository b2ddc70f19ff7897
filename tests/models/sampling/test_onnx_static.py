"""AKConv in graphs of fixed sizes against the layer itself, in all its forms, with offsets beyond the map."""

import io
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.fuse import fused
from models.modules import AKConv
from models.sampling.offset_convolution import last_convolution
from models.sampling.onnx_static import Form, fixed_sizes

onnx = pytest.importorskip("onnx")
onnxslim = pytest.importorskip("onnxslim")
onnxruntime = pytest.importorskip("onnxruntime")
FORMS: tuple[dict[str, Any], ...] = (
    {"padding": "border"},
    {"padding": "zeros", "points": "centered", "bias": True},
    {"padding": "border", "offsets": "depthwise", "modulated": True},
    {"padding": "zeros", "offsets": "depthwise", "modulated": True, "gradient": "symmetric", "bias": True},
)
# Points, stride, and shape: batches, sides of one pixel, and heights that differ from widths.
CASES = (
    (3, 2, (1, 4, 7, 16)),
    (4, 1, (2, 4, 16, 5)),
    (5, 2, (3, 4, 1, 9)),
    (8, 1, (1, 4, 33, 1)),
    (9, 2, (2, 4, 8, 12)),
)
OPSETS: dict[Form, int] = {"gather": 12, "deform": 19}


def moving_layer(count: int, stride: int, **form: Any) -> nn.Module:
    """A layer whose offsets reach beyond the map and are no whole numbers."""
    torch.manual_seed(count)
    layer = AKConv(4, 6, count, stride, **form)
    last = last_convolution(layer.p_conv)
    nn.init.normal_(last.weight, std=0.7)
    nn.init.normal_(last.bias, std=2.0)  # type: ignore[arg-type]
    return fused(nn.Sequential(layer))


def exported(layer: nn.Module, example: Tensor, form: Form) -> Any:
    """Return the graph of a layer for the shape of the example, simplified as export.py does."""
    buffer, names = io.BytesIO(), {"input_names": ["x"], "output_names": ["y"]}
    with fixed_sizes(form), torch.no_grad():
        torch.onnx.export(layer, (example,), buffer, dynamo=False, opset_version=OPSETS[form], **names)  # type: ignore[arg-type]
    return onnxslim.slim(onnx.load_from_string(buffer.getvalue()))


def run(graph: Any, x: Tensor) -> Tensor:
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"x": x.numpy()})[0])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", ["gather", "deform"])
@pytest.mark.parametrize("settings", FORMS, ids=str)
def test_every_form_equals_the_layer(settings: dict[str, Any], form: Form) -> None:
    for count, stride, shape in CASES:
        layer, x = moving_layer(count, stride, **settings), torch.randn(shape)
        graph = exported(layer, x, form)
        with torch.no_grad():
            expected = layer(x)
        assert expected.std() > 0.05
        torch.testing.assert_close(run(graph, x), expected, atol=1e-5, rtol=1e-5)
        kinds = {node.op_type for node in graph.graph.node}
        assert not kinds & {"Shape", "Range", "Where", "ConstantOfShape", "Expand", "Unsqueeze", "Size", "NonZero"}
        assert ("DeformConv" in kinds, "Gather" in kinds) == (form == "deform", form == "gather")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", ["gather", "deform"])
@pytest.mark.parametrize("padding", ["border", "zeros"])
def test_infinite_offsets_read_the_border_or_zero(padding: str, form: Form) -> None:
    layer = moving_layer(5, 1, padding=padding, points="centered")
    bias = last_convolution(layer[0].p_conv).bias  # type: ignore[index]
    x = torch.randn(1, 4, 6, 9)
    for value in (1e30, -1e30, np.inf, -np.inf):
        with torch.no_grad():
            bias[2] = value  # type: ignore[index]
            finite = np.clip(value, -1e4, 1e4)
            found = run(exported(layer, x, form), x)
            bias[2] = finite  # type: ignore[index]
            torch.testing.assert_close(found, layer(x), atol=1e-5, rtol=1e-5)


def test_maps_whose_pixels_float32_cannot_count_have_integer_indices() -> None:
    from models.sampling.onnx_static import _first_pixels

    low = torch.tensor([[[[2.0, 4097.0]]]])
    assert _first_pixels(low, 1, 1, 8192, 8192).tolist() == [2 * 8192 + 4097]
    low = torch.tensor([8190.0, 8189.0]).expand(2, 1, 1, 2)
    expected = 8190 * 8192 + 8189
    assert _first_pixels(low, 1, 2, 8192, 8192).tolist() == [expected, expected + 8192**2]
