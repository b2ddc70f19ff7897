"""The compiled kernel of the sampling."""

from typing import Any

import pytest
import torch

from models.modules import AKConv, ak_conv2d
from models.sampling.dispatch import VARIABLE
from models.sampling.offset_convolution import last_convolution
from models.sampling.training_kernel import load

pytestmark = pytest.mark.kernels
COMPILED = pytest.mark.skipif(load(torch.float32) is None, reason="needs python -m utils.compiled")
CASE = (2, 5, 7, 9, 12, 5, 2)  # batch, channels, outputs, height, width, points, stride


def moving_layer(
    case: tuple[int, ...], padding: str, *, bias: bool = False, **form: Any
) -> tuple[AKConv, torch.Tensor]:
    batch, channels, outputs, height, width, points, stride = case
    torch.manual_seed(sum(case))
    layer = AKConv(channels, outputs, points, stride, bias, padding=padding, **form).eval()  # type: ignore[arg-type]
    last = last_convolution(layer.p_conv)
    torch.nn.init.normal_(last.weight, std=0.3)
    torch.nn.init.normal_(last.bias, std=2.0)  # type: ignore[arg-type]
    return layer, torch.randn(batch, channels, height, width)


@pytest.mark.parametrize("implementation", ["embedding_bag", "gather", pytest.param("cpu_kernel", marks=COMPILED)])
@pytest.mark.parametrize("padding", ["border", "zeros"])
def test_a_map_too_wide_for_single_precision_is_not_left(implementation: str, padding: str) -> None:
    width = 2**24 + 4  # its last index, 2**24 + 3, is rounded up to 2**24 + 4
    memory = torch.zeros(width + 8)
    memory[width - 1], memory[width:] = 3.0, 7.0  # the last pixel, and what lies beyond the map
    x = memory[:width].view(1, 1, 1, width).requires_grad_()
    offset = torch.full((1, 2, 1, 2), 1e9)
    offset[:, 0] = 0
    weight, points = torch.ones(1, 1, 1, 1), torch.zeros(1, 2)
    y = ak_conv2d(
        x, offset, weight, points=points, stride=width // 2 + 1, padding=padding, implementation=implementation
    )
    y.sum().backward()
    inside = float(padding == "border")
    assert y.flatten().tolist() == [3 * inside] * 2
    assert x.grad is not None and x.grad[0, 0, 0, -1] == 2 * inside and x.grad.sum() == 2 * inside


@COMPILED
def test_another_device_is_an_error() -> None:
    layer, x = moving_layer(CASE, "border")
    offset = torch.empty(2, 10, 5, 6, device="meta")
    weight = layer.conv[0].weight
    with pytest.raises(ValueError, match="CPU"):
        ak_conv2d(x, offset, weight, points=layer.points, stride=2, implementation="cpu_kernel")  # type: ignore[arg-type]


def test_a_kernel_asked_for_and_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.sampling.dispatch.load", lambda dtype: None)
    monkeypatch.setenv(VARIABLE, "cpu_kernel")
    with pytest.raises(ValueError, match=r"python -m utils\.compiled"):
        moving_layer(CASE, "border")[0](torch.rand(1, 5, 4, 6))
