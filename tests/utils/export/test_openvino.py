"""An AKConv layer alone in OpenVINO, in all its forms and at any size, against the layer itself."""

import io
from typing import Any

import pytest
import torch
from torch import nn

from tests.helpers.moving_layer import moving_layer
from utils.export.formats import openvino_model

openvino = pytest.importorskip("openvino")
pytest.importorskip("onnx")
FORMS: tuple[dict[str, Any], ...] = (
    {},
    {"offsets": "depthwise", "points": "centered"},
    {"modulated": True, "gradient": "symmetric"},
    {"offsets": "depthwise", "modulated": True, "bias": True},
)
SHAPES = ((1, 4, 7, 16), (3, 4, 16, 5), (2, 4, 1, 9), (1, 4, 33, 2))


def opened(layer: nn.Module, opset: int) -> Any:
    """Return a layer as a function of OpenVINO in full precision."""
    buffer, axes = io.BytesIO(), {"x": {0: "batch", 2: "height", 3: "width"}}
    names = {"input_names": ["x"], "output_names": ["y"]}
    example = (torch.rand(2, 4, 8, 12),)
    torch.onnx.export(layer, example, buffer, dynamo=False, opset_version=opset, dynamic_axes=axes, **names)  # type: ignore[arg-type]
    properties = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(openvino_model(buffer.getvalue()), "CPU", properties)
    return lambda x: torch.from_numpy(compiled([x.numpy()])[0].copy())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("opset", [17, 19])
@pytest.mark.parametrize("padding", ["border", "zeros"])
@pytest.mark.parametrize("form", FORMS, ids=str)
@torch.no_grad()
def test_every_form_at_sizes_never_traced(form: dict[str, Any], padding: str, opset: int) -> None:
    for num_points, stride in ((1, 1), (3, 2), (8, 2), (9, 1)):
        layer = moving_layer(num_points, stride, padding=padding, **form)
        run = opened(layer, opset)
        for shape in SHAPES:
            x = torch.randn(shape)
            torch.testing.assert_close(run(x), layer(x), atol=2e-5, rtol=1e-4)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("padding", ["border", "zeros"])
@torch.no_grad()
def test_absurd_numbers_reach_no_other_pixels(padding: str) -> None:
    layer = moving_layer(3, 1, padding=padding)
    run = opened(layer, 19)
    for value in (float("nan"), float("inf"), 1e30):
        x = torch.randn(2, 4, 9, 12)
        clean, x[1, 2, 3, 4] = layer(x), value
        found, expected = run(x), layer(x)
        untouched = expected.isclose(clean).all(1, keepdim=True).expand_as(expected)
        assert untouched[0].all() and untouched[1].any() and not untouched[1].all()
        torch.testing.assert_close(found[untouched], clean[untouched], atol=2e-5, rtol=1e-4)
