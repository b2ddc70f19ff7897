"""An AKConv layer alone in TorchScript and ONNX, at any batch and size, against the layer itself and the oracle."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch

from models.modules import AKConv, ak_conv2d
from models.sampling.dispatch import VARIABLE, choose
from tests.helpers.akconv_oracles import akconv_pixelwise

PADDINGS = ("border", "zeros")
TRACED = (2, 4, 8, 12)
SHAPES = ((1, 4, 7, 16), (3, 4, 16, 5), (2, 4, 1, 9), (1, 4, 33, 2))
OPSETS = (12, 17, 19)


def moving_layer(padding: str, stride: int, points: int = 5, **more: object) -> AKConv:
    """A layer whose offsets reach beyond the map and are no whole numbers."""
    layer = AKConv(4, 6, points, stride, padding=padding, **more).eval()  # type: ignore[arg-type]
    torch.nn.init.normal_(layer.p_conv.weight, std=0.7)
    torch.nn.init.normal_(layer.p_conv.bias, std=2.0)  # type: ignore[arg-type]
    return layer


def in_onnx(layer: torch.nn.Module, folder: Path, opset: int, example: torch.Tensor):
    """Export as any user would, and return what ONNX Runtime makes of images."""
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    path = folder / "layer.onnx"
    axes = {"x": {0: "batch", 2: "height", 3: "width"}}
    names = {"input_names": ["x"], "output_names": ["y"]}
    torch.onnx.export(layer, (example,), path, dynamo=False, opset_version=opset, dynamic_axes=axes, **names)
    onnx.checker.check_model(onnx.load(path))
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(None, {"x": x.numpy()})[0])


def kinds_of_nodes(folder: Path) -> set[str]:
    return {node.op_type for node in pytest.importorskip("onnx").load(folder / "layer.onnx").graph.node}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", PADDINGS)
def test_onnx_serves_sizes_never_traced(padding: str, stride: int, opset: int, tmp_path: Path) -> None:
    layer = moving_layer(padding, stride)
    run = in_onnx(layer, tmp_path, opset, torch.rand(TRACED))
    assert ("DeformConv" in kinds_of_nodes(tmp_path)) == (opset >= 19)
    for shape in SHAPES:
        x = torch.randn(shape)
        torch.testing.assert_close(run(x), layer(x), atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", PADDINGS)
def test_torchscript_serves_sizes_never_traced(padding: str, stride: int) -> None:
    layer = moving_layer(padding, stride, points=3, bias=True)
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(layer, torch.rand(TRACED)), buffer)
    buffer.seek(0)
    loaded = torch.jit.load(buffer)
    for shape in SHAPES:
        x = torch.randn(shape)
        torch.testing.assert_close(loaded(x), layer(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("implementation", ["torchscript", "onnx"])
@pytest.mark.parametrize("padding", PADDINGS)
def test_what_is_traced_equals_the_pixelwise_oracle(implementation: str, padding: str) -> None:
    rng = np.random.default_rng(5)
    for stride, points in (
        (1, [(0.0, 0.0), (0.5, -1.0)]),
        (2, [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0)]),
        (3, [(-2.0, 4.0)]),
    ):
        x = rng.normal(size=(2, 3, 6, 9))
        size = ((6 - 1) // stride + 1, (9 - 1) // stride + 1)
        offset = rng.normal(0, 3, (2, 2 * len(points), *size))
        weight = rng.normal(size=(4, 3, len(points), 1))
        expected, scale = akconv_pixelwise(x, offset, weight, points, stride=stride, padding=padding)
        found = ak_conv2d(
            *(torch.from_numpy(array) for array in (x, offset, weight)),
            points=torch.tensor(points, dtype=torch.float64),
            stride=stride,
            padding=padding,  # type: ignore[arg-type]
            implementation=implementation,
        )
        assert np.abs(found.numpy() - expected).max() <= 1e-12 * max(scale, 1)


class Operator(torch.nn.Module):
    """The operator alone, offsets given from outside."""

    def __init__(self, padding: str) -> None:
        super().__init__()
        self.padding = padding
        self.weight = torch.nn.Parameter(torch.randn(5, 4, 2, 1))
        self.register_buffer("points", torch.tensor([[0.0, 0.0], [0.5, 1.0]]))

    def forward(self, x: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
        return ak_conv2d(x, offset, self.weight, points=self.points, padding=self.padding)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("opset", [17, 19])
@pytest.mark.parametrize("padding", PADDINGS)
def test_an_absurd_offset_touches_no_other_pixel(padding: str, opset: int, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    layer, path = Operator(padding).eval(), tmp_path / "operator.onnx"
    axes = {name: {0: "batch", 2: "height", 3: "width"} for name in ("x", "offset")}
    example = (torch.rand(1, 4, 5, 7), torch.randn(1, 4, 5, 7))
    names = {"input_names": ["x", "offset"], "output_names": ["y"]}
    torch.onnx.export(layer, example, path, dynamo=False, opset_version=opset, dynamic_axes=axes, **names)
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    for value in (float("nan"), float("inf"), float("-inf"), 1e30, -1e30):
        x, offset = torch.randn(2, 4, 6, 9), torch.randn(2, 4, 6, 9)
        offset[1, 2, 3, 4] = value
        found = torch.from_numpy(session.run(None, {"x": x.numpy(), "offset": offset.numpy()})[0])
        expected = layer(x, offset)
        if opset >= 19 and not np.isfinite(value):  # DeformConv knows no such places
            expected[1, :, 3, 4] = found[1, :, 3, 4].nan_to_num(nan=torch.inf)
            assert found.isfinite().all()
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5, equal_nan=True)


def test_the_form_follows_from_who_traces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(torch.jit, "is_tracing", lambda: True)
    assert choose(torch.empty(1)) == "torchscript"
    monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)
    assert choose(torch.empty(1)) == "onnx"
