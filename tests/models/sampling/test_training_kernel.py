"""The kernel with gradients: the layer by it against the layer by four gathers, over shapes, forms and threads."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from models.modules import AKConv
from models.sampling.dispatch import VARIABLE
from models.sampling.offset_convolution import last_convolution
from models.sampling.sampling_grid import SamplingGrid
from models.sampling.training_kernel import ak_layer_training, is_trainable, load

pytestmark = [
    pytest.mark.kernels,
    pytest.mark.skipif(load(torch.float32) is None, reason="needs python -m utils.compiled"),
]
# Batch, channels, outputs, height, width, points, stride: channels and offsets beside, at and beyond whole vectors;
# single rows, columns and pixels; batches that the threads divide evenly, and those of which they divide the channels.
CASES = (
    (2, 5, 7, 9, 12, 5, 2),
    (3, 16, 8, 11, 7, 3, 1),
    (1, 24, 33, 13, 6, 4, 1),
    (1, 16, 32, 20, 26, 3, 2),
    (1, 3, 1, 1, 1, 1, 1),
    (2, 4, 16, 1, 9, 13, 3),
    (4, 40, 8, 6, 5, 2, 2),
    (2, 33, 4, 7, 2, 3, 2),
    (1, 48, 4, 5, 1, 7, 4),
)
FORMS: tuple[dict[str, Any], ...] = ({}, {"modulated": True}, {"gradient": "symmetric"}, {"offsets": "depthwise"})


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Divide even small maps among threads."""
    monkeypatch.setattr("models.sampling.training_kernel.SMALL", 0)
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def moving_layer(case: tuple[int, ...], **form: Any) -> tuple[AKConv, Tensor]:
    batch, channels, outputs, height, width, points, stride = case
    torch.manual_seed(sum(case))
    layer = AKConv(channels, outputs, points, stride, bias=True, **form)
    last = last_convolution(layer.p_conv)
    torch.nn.init.normal_(last.weight, std=0.3)
    torch.nn.init.normal_(last.bias, std=2.0)  # type: ignore[arg-type]
    if form.get("gradient") == "symmetric":  # which differs at integers only
        torch.nn.init.zeros_(last.weight)
        last.bias.data.round_()  # type: ignore[union-attr]
    layer.conv = torch.nn.Sequential(layer.conv[0], torch.nn.Identity(), torch.nn.Tanh())  # type: ignore[index]
    return layer, torch.randn(batch, channels, height, width)


def gradients(layer: AKConv, x: Tensor) -> dict[str, Tensor]:
    x = x.detach().requires_grad_()
    y = layer(x)
    inputs = {"x": x, **dict(layer.named_parameters())}
    found = torch.autograd.grad((y * torch.arange(y.numel()).view_as(y).cos()).sum(), list(inputs.values()))
    return {"y": y.detach(), **dict(zip(inputs, found, strict=True))}


@pytest.mark.parametrize("padding", ["border", "zeros"])
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_gradients_are_those_of_four_gathers(
    padding: str, form: dict[str, Any], threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(
        "models.sampling.operator.ak_layer_training", lambda *args: calls.append(1) or ak_layer_training(*args)
    )
    for case in CASES:
        layer, x = moving_layer(case, padding=padding, **form)
        layer, x = layer.double(), x.double()
        monkeypatch.setenv(VARIABLE, "gather")
        expected = gradients(layer, x)
        monkeypatch.delenv(VARIABLE)
        for layout in (torch.contiguous_format, torch.channels_last):
            found = gradients(layer.to(memory_format=layout), x.contiguous(memory_format=layout))
            for name, value in expected.items():
                torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-10, msg=f"{name} of {case}")
    assert len(calls) == (0 if "offsets" in form else 2 * len(CASES))


@pytest.mark.parametrize("batch", [1, 2])
def test_single_precision_and_repeated_bits(batch: int, threads: int) -> None:
    layer, x = moving_layer((batch, 48, 9, 13, 10, 5, 2))
    found, again, expected = (gradients(layer, x), gradients(layer, x), gradients(layer.double(), x.double()))
    for name, value in expected.items():
        assert torch.equal(found[name], again[name])
        torch.testing.assert_close(found[name].double(), value, rtol=2e-3, atol=2e-3)


def test_neither_samples_nor_columns_are_kept_for_the_backward_pass() -> None:
    layer, x = moving_layer((2, 16, 4, 12, 10, 7, 1))
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        layer(x.requires_grad_())
    assert max(kept) == x.numel()


def test_what_is_frozen_gets_no_gradient_and_the_rest_the_same() -> None:
    for frozen in ("conv.0.bias", "p_conv.bias", "p_conv.weight", "conv.0.weight", "x"):
        layer, x = moving_layer(CASES[1])
        expected = gradients(layer.double(), x.double())
        for name, parameter in layer.named_parameters():
            parameter.requires_grad_(name != frozen)
        x = x.double().requires_grad_(frozen != "x")
        y = layer(x)
        (y * torch.arange(y.numel()).view_as(y).cos()).sum().backward()
        for name, tensor in {"x": x, **dict(layer.named_parameters())}.items():
            assert tensor.grad is None if name == frozen else torch.equal(tensor.grad, expected[name])  # type: ignore[arg-type]


def test_a_value_that_is_not_finite_stays_in_its_neighbourhood() -> None:
    layer, x = moving_layer((1, 16, 6, 30, 20, 3, 1))
    torch.nn.init.zeros_(layer.p_conv.bias)  # type: ignore[arg-type]
    torch.nn.init.zeros_(layer.p_conv.weight)  # type: ignore[arg-type]
    x[0, :, 15, 10] = torch.nan
    y = layer(x)
    assert y[0, :, 15, 10].isnan().all()
    y = y.detach().clone()
    y[:, :, 13:17, 8:12] = 0
    assert y.isfinite().all()


def test_other_convolutions_hooks_and_autocast_take_the_two_steps() -> None:
    layer, x = moving_layer(CASES[0])
    weight, bias = layer.conv[0].weight, layer.conv[0].bias  # type: ignore[index]
    grid = SamplingGrid(layer.points, layer.stride)
    assert is_trainable(x, layer.p_conv, weight, bias, grid)
    with torch.autocast("cpu"):
        assert not is_trainable(x, layer.p_conv, weight, bias, grid)
        assert layer(x).dtype == torch.bfloat16
    assert not is_trainable(x.half(), layer.p_conv, weight, bias, grid)
    assert not is_trainable(x[:, 1:], layer.p_conv, weight, bias, grid)
    assert not is_trainable(x, layer.p_conv, weight[:, 1:], bias, grid)
    seen: list[Tensor] = []
    handle = layer.p_conv.register_forward_hook(lambda module, args, output: seen.append(output))
    watched = layer(x)
    handle.remove()
    torch.testing.assert_close(layer(x), watched, rtol=1e-3, atol=1e-3)
    assert len(seen) == 1


def test_the_output_may_be_changed_in_place() -> None:
    layer = AKConv(8, 6, 3, 2, act=False).train()
    x = torch.randn(2, 8, 7, 12, requires_grad=True)
    grid = SamplingGrid(layer.points, 2)
    y = ak_layer_training(x, layer.p_conv, layer.conv[0].weight, None, grid)
    expected = torch.autograd.grad((2 * y + 1).square().sum(), layer.conv[0].weight, retain_graph=True)[0]
    y.mul_(2).add_(1)
    torch.testing.assert_close(torch.autograd.grad(y.square().sum(), layer.conv[0].weight)[0], expected)
    assert y.is_contiguous(memory_format=torch.channels_last)
