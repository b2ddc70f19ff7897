"""The compiled kernel: a whole layer in one pass against the layer in two."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from models.modules import AKConv, ak_conv2d
from models.sampling.cpu_kernel import ak_layer_cpu_kernel, load
from models.sampling.dispatch import VARIABLE
from models.sampling.offset_convolution import last_convolution
from models.sampling.operator import ak_layer2d
from models.sampling.sampling_grid import SamplingGrid

pytestmark = pytest.mark.kernels
COMPILED = pytest.mark.skipif(load(torch.float32) is None, reason="needs python -m utils.compiled")
BOTH = {"offsets": "depthwise", "modulated": True}
# Batch, channels, outputs, height, width, points, stride: outputs and widths beside, at and beyond whole vectors.
CASES = (
    (2, 5, 7, 9, 12, 5, 2),
    (3, 16, 8, 11, 7, 3, 1),
    (1, 24, 33, 13, 6, 4, 1),
    (1, 16, 32, 20, 26, 3, 2),
    (1, 3, 1, 1, 1, 1, 1),
    (2, 4, 16, 1, 9, 13, 3),
    (1, 8, 17, 40, 23, 9, 1),
)


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


@COMPILED
@pytest.mark.parametrize("padding", ["border", "zeros"])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("form", [{}, {"offsets": "depthwise"}, {"modulated": True}, BOTH])
def test_one_pass_is_the_layer_itself(
    padding: str, threads: int, form: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(
        "models.sampling.operator.ak_layer_cpu_kernel", lambda *args: calls.append(1) or ak_layer_cpu_kernel(*args)
    )
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    monkeypatch.setattr("models.sampling.cpu_kernel.SMALL", 0)  # so that small maps too are shared among threads
    try:
        for number, case in enumerate(CASES):
            layer, x = moving_layer(case, padding, bias=number % 2 == 0, **form)
            layer, x = layer.double(), x.double()
            monkeypatch.setenv(VARIABLE, "gather")
            expected = layer(x).detach()
            monkeypatch.delenv(VARIABLE)
            for layout in (torch.contiguous_format, torch.channels_last):
                with torch.inference_mode():
                    found = layer.to(memory_format=layout)(x.contiguous(memory_format=layout))
                    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)
                    # In single precision an offset is off by some 1e-6 pixels, and as much of a pixel's difference.
                    single = layer.float()(x.float())
                    torch.testing.assert_close(single.double(), expected, rtol=1e-3, atol=1e-3)
                layer = layer.double()
    finally:
        torch.set_num_threads(before)
    assert len(calls) == 4 * len(CASES)


@COMPILED
def test_numbers_that_are_none_stay_in_their_neighbourhood() -> None:
    layer, x = moving_layer((1, 4, 6, 30, 20, 3, 1), "border")
    torch.nn.init.zeros_(layer.p_conv.weight)
    torch.nn.init.zeros_(layer.p_conv.bias)
    x[0, :, 15, 10] = torch.nan
    with torch.no_grad():
        found = layer(x)
    assert found[0, :, 15, 10].isnan().all()
    found[:, :, 13:17, 8:12] = 0
    assert found.isfinite().all()


@pytest.mark.parametrize("implementation", ["gather", pytest.param("cpu_kernel", marks=COMPILED)])
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
def test_who_watches_the_offsets_sees_them() -> None:
    for form in ({}, {"offsets": "depthwise"}):
        layer, x = moving_layer(CASES[0], "border", **form)
        seen: list[torch.Tensor] = []
        for part in layer.p_conv.modules():
            handle = part.register_forward_hook(lambda module, args, output, seen=seen: seen.append(output))
            with torch.inference_mode():
                watched = layer(x)
            handle.remove()
            with torch.inference_mode():
                torch.testing.assert_close(layer(x), watched, rtol=1e-4, atol=1e-4)
        assert len(seen) == len([*layer.p_conv.modules()])


@COMPILED
def test_what_does_not_fit_is_an_error_and_no_read_beyond_the_tensor() -> None:
    layer, x = moving_layer(CASES[0], "border")
    weights = layer.conv[0].weight  # type: ignore[union-attr]
    grid = SamplingGrid(layer.points, layer.stride)
    with torch.inference_mode():
        with pytest.raises(RuntimeError, match="channels"):
            layer(x[:, :-1])
        with pytest.raises(ValueError, match="weight"):
            ak_layer2d(x, layer.p_conv, weights[:, :-1], None, grid)
        with pytest.raises(ValueError, match="offset"):
            ak_layer2d(x, layer.p_conv, weights, None, replace(grid, stride=layer.stride + 1))
        with pytest.raises(ValueError, match="offset"):
            ak_layer2d(x, layer.p_conv, weights, None, replace(grid, modulated=True))
        with pytest.raises(RuntimeError, match="bias"):
            ak_layer2d(x, layer.p_conv, weights, weights.new_zeros(1), grid)
        with pytest.raises(RuntimeError, match=r"dtype|type"):
            layer(x.double())
        with pytest.raises(ValueError, match="CPU"):
            offset = torch.empty(2, 10, 5, 6, device="meta")
            ak_conv2d(x, offset, weights, points=grid.points, stride=grid.stride, implementation="cpu_kernel")


def test_a_kernel_asked_for_and_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.sampling.dispatch.load", lambda dtype: None)
    monkeypatch.setenv(VARIABLE, "cpu_kernel")
    with pytest.raises(ValueError, match=r"python -m utils\.compiled"):
        moving_layer(CASES[0], "border")[0](torch.rand(1, 5, 4, 6))
