"""The forms of AKConv beyond the published one: factors of samples, symmetric gradients, depthwise offsets."""

import copy
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.fuse import fused
from models.modules import AKConv, C3_AKConv, ak_conv2d, base_points
from models.modules.contract import Contract
from models.sampling.dispatch import VARIABLE
from models.sampling.offset_convolution import last_convolution
from models.sampling.training_kernel import load
from tests.helpers.akconv_oracles import akconv_pixelwise, symmetric_gradient
from tests.models.sampling.test_onnx import OPSETS, SHAPES, TRACED, in_onnx

pytestmark = pytest.mark.kernels
COMPILED = pytest.mark.skipif(load(torch.float32) is None, reason="needs python -m utils.compiled")
TRAINED = ("embedding_bag", "gather", pytest.param("cpu_kernel", marks=COMPILED))
PADDINGS = ("border", "zeros")
FORMS = (
    {"offsets": "depthwise"},
    {"modulated": True},
    {"gradient": "symmetric"},
    {"offsets": "depthwise", "modulated": True, "gradient": "symmetric"},
)


def problem(seed: int, *, modulated: bool, denominator: int = 8) -> tuple[list[torch.Tensor], dict[str, Any]]:
    """Float64 x, offset with or without factors, weight and bias; a part of the positions are integers and borders."""
    rng = np.random.default_rng(seed)
    batch, channels, out, num_points, stride = (int(rng.integers(1, high)) for high in (3, 6, 6, 5, 3))
    height, width = (int(v) for v in rng.choice(7, 2, replace=False) + 1)
    size = ((height - 1) // stride + 1, (width - 1) // stride + 1)
    offset = rng.integers(-3 * denominator, 3 * denominator + 1, (batch, 2 * num_points, *size)) / denominator
    offset = np.where(rng.random(offset.shape) < 0.5, offset.round(), offset)
    if modulated:
        offset = np.concatenate((offset, rng.uniform(0, 2, (batch, num_points, *size))), 1)
    arrays = rng.normal(size=(batch, channels, height, width)), offset, rng.normal(size=(out, channels, num_points, 1))
    tensors = [torch.from_numpy(array) for array in (*arrays, rng.normal(size=out))]
    points = torch.tensor(base_points(num_points), dtype=torch.float64)
    return tensors, {"points": points, "stride": stride, "padding": PADDINGS[seed % 2]}


def moving_layer(stride: int = 2, **form: Any) -> AKConv:
    layer = AKConv(4, 6, 5, stride, **form).eval()
    last = last_convolution(layer.p_conv)
    torch.nn.init.normal_(last.weight, std=0.7)
    torch.nn.init.normal_(last.bias, std=2.0)  # type: ignore[arg-type]
    return layer


@pytest.mark.parametrize("implementation", [*TRAINED, "torchscript", "onnx"])
def test_factors_multiply_samples(implementation: str) -> None:
    for seed in range(20):
        (x, offset, weight, bias), options = problem(seed, modulated=True)
        expected, scale = akconv_pixelwise(
            x, offset, weight, options["points"].tolist(), stride=options["stride"], padding=options["padding"]
        )
        expected += bias.numpy()[:, None, None]
        for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 2e-5)):
            tensors = (tensor.to(dtype) for tensor in (x, offset, weight, bias))
            found = ak_conv2d(*tensors, **options, modulated=True, implementation=implementation)
            assert found.dtype == dtype
            assert np.abs(found.double().numpy() - expected).max() <= tolerance * max(scale, 1), seed


@pytest.mark.parametrize("implementation", TRAINED)
@pytest.mark.parametrize("modulated", [False, True])
def test_a_symmetric_gradient_is_the_central_difference(implementation: str, modulated: bool) -> None:
    integers = 0
    for seed in range(16):
        inputs, options = problem(seed, modulated=modulated)
        x, offset, weight, bias = (tensor.requires_grad_() for tensor in inputs)
        y = ak_conv2d(
            *(x, offset, weight, bias),
            **options,
            modulated=modulated,
            gradient="symmetric",
            implementation=implementation,
        )
        upstream = torch.randn(y.shape, dtype=y.dtype)
        y.backward(upstream)
        arrays = [tensor.detach().numpy() for tensor in (x, offset, weight)]
        expected = symmetric_gradient(
            *arrays, options["points"].tolist(), upstream, stride=options["stride"], padding=options["padding"]
        )
        scale = max(np.abs(expected).max(), 1)
        assert offset.grad is not None
        assert np.abs(offset.grad.numpy() - expected).max() <= 1e-10 * scale, seed
        integers += int((arrays[1] == arrays[1].round()).sum())
    assert integers > 100


@pytest.mark.slow
@pytest.mark.parametrize("implementation", TRAINED)
@pytest.mark.parametrize("modulated", [False, True])
def test_gradcheck_at_integers_too(implementation: str, modulated: bool) -> None:
    for seed in (2, 3):
        inputs, options = problem(seed, modulated=modulated)
        form = {"modulated": modulated, "implementation": implementation, **options}

        def run(*tensors: torch.Tensor, form: dict[str, Any] = form) -> torch.Tensor:
            return ak_conv2d(*tensors, **form, gradient="symmetric")  # type: ignore[arg-type]

        assert torch.autograd.gradcheck(run, [tensor.requires_grad_() for tensor in inputs])


@pytest.mark.parametrize("implementation", TRAINED)
def test_the_gradient_of_positions_leaves_everything_else_bit_for_bit(implementation: str) -> None:
    for seed in range(8):
        found = []
        for gradient in ("one_sided", "symmetric"):
            inputs, options = problem(seed, modulated=seed % 3 == 0)
            x, offset, weight, bias = (tensor.float().requires_grad_() for tensor in inputs)
            form = {"modulated": seed % 3 == 0, "gradient": gradient, "implementation": implementation, **options}
            y = ak_conv2d(x, offset, weight, bias, **form)
            y.square().sum().backward()
            assert offset.grad is not None
            fractional = (offset.detach() != offset.detach().round()).unflatten(1, (-1, len(options["points"])))
            between = fractional[:, :2].all(1).repeat(1, offset.shape[1] // len(options["points"]), 1, 1)
            found.append((y.detach(), x.grad, weight.grad, offset.grad[between]))
        if implementation == "gather":  # which averages two samples, in the map's gradient as well
            torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-5)
        else:
            assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize("implementation", TRAINED)
@pytest.mark.parametrize("channel", [0, 2, 4])  # a row offset, a column offset, a factor
def test_a_nan_spoils_its_own_pixel_only(implementation: str, channel: int) -> None:
    torch.manual_seed(channel)
    x, weight = torch.randn(2, 3, 5, 8, requires_grad=True), torch.randn(4, 3, 2, 1)
    offset = torch.randn(2, 6, 5, 8)
    form: dict[str, Any] = {
        "points": torch.tensor([[0.0, 0.0], [0.0, 1.0]]),
        "modulated": True,
        "gradient": "symmetric",
        "implementation": implementation,
    }
    before = ak_conv2d(x, offset, weight, **form).detach()
    offset[1, channel, 2, 3] = torch.nan
    after = ak_conv2d(x, offset.requires_grad_(), weight, **form)
    after.nansum().backward()
    assert x.grad is not None and x.grad[0].isfinite().all()
    after = after.detach()
    assert after[1, :, 2, 3].isnan().all()
    after[1, :, 2, 3] = before[1, :, 2, 3]
    assert torch.equal(after, before)


@COMPILED
def test_kernel_gradients_do_not_depend_on_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.sampling.training_kernel.SMALL", 0)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):  # 3 divide the channels of the single image
            torch.set_num_threads(threads)
            torch.manual_seed(2)
            layer = AKConv(24, 6, 5, 2, modulated=True, gradient="symmetric", points="centered", padding="zeros")
            x = torch.randn(1, 24, 9, 12, dtype=torch.float64, requires_grad=True)
            layer.double()(x).square().sum().backward()
            found.append([x.grad, *(parameter.grad for parameter in layer.parameters())])
    finally:
        torch.set_num_threads(before)
    for gradients in found[1:]:
        torch.testing.assert_close(gradients, found[0], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("form", FORMS)
def test_a_layer_starts_as_the_published_one(form: dict[str, Any]) -> None:
    layers = []
    for keywords in ({}, form):
        torch.manual_seed(4)
        layers.append(AKConv(5, 7, 4, 2, **keywords))
    published, layer = layers
    assert all(torch.equal(a, b) for a, b in zip(published.conv.parameters(), layer.conv.parameters(), strict=True))
    x = torch.randn(2, 5, 9, 6)
    assert torch.equal(layer(x), published(x))
    with torch.inference_mode():
        torch.testing.assert_close(layer.eval()(x), published.eval()(x))


@pytest.mark.parametrize("size_hw", [(8, 12), (7, 9)])
def test_four_points_start_as_space_to_depth(size_hw: tuple[int, int]) -> None:
    layer, x = AKConv(3, 5, 4, 2, padding="zeros", offsets="depthwise", points="centered"), torch.randn(2, 3, *size_hw)
    columns, norm, act = layer.conv
    even = torch.nn.functional.pad(x, (0, size_hw[1] % 2, 0, size_hw[0] % 2))
    y = torch.nn.functional.conv2d(Contract(2)(even), columns.weight.permute(0, 2, 1, 3).reshape(5, 12, 1, 1))
    torch.testing.assert_close(layer.eval()(x), act(norm(y)))


@pytest.mark.parametrize("form", FORMS)
def test_everything_learns(form: dict[str, Any]) -> None:
    layer, x = AKConv(4, 6, 5, 2, **form), torch.randn(3, 4, 9, 12)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    for _ in range(2):  # in the first step depthwise weights wait for those of the 1x1 convolution, which are zero
        optimizer.zero_grad()
        layer(x).square().sum().backward()
        optimizer.step()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.count_nonzero(), name


def test_state_dicts_of_the_forms() -> None:
    def shapes(**form: Any) -> dict[str, tuple[int, ...]]:
        return {name: tuple(t.shape) for name, t in AKConv(3, 7, 5, **form).state_dict().items() if "p_conv" in name}

    assert shapes(modulated=True) == {"p_conv.weight": (15, 3, 3, 3), "p_conv.bias": (15,)}
    depthwise = {"p_conv.0.weight": (3, 1, 3, 3), "p_conv.1.weight": (10, 3, 1, 1), "p_conv.1.bias": (10,)}
    assert shapes(offsets="depthwise") == depthwise
    assert shapes(gradient="symmetric") == shapes()


def test_a_layer_is_its_parts() -> None:
    layer = moving_layer(offsets="depthwise", modulated=True)
    x = torch.randn(2, 4, 7, 10)
    first, last = layer.p_conv  # type: ignore[misc]
    maps = torch.nn.functional.conv2d(x, first.weight, stride=2, padding=1, groups=4)  # type: ignore[has-type]
    predicted = torch.einsum("bchw,oc->bohw", maps, last.weight[..., 0, 0]) + last.bias[:, None, None]  # type: ignore[has-type]
    offset = torch.cat((predicted[:, :10], 2 / (1 + (-predicted[:, 10:]).exp())), 1)
    columns, norm, act = layer.conv
    arrays = [tensor.detach().numpy() for tensor in (x, offset, columns.weight)]
    sampled, _ = akconv_pixelwise(*arrays, layer.points.tolist(), stride=2, padding="border")
    torch.testing.assert_close(layer(x), act(norm(torch.from_numpy(sampled).float())), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"offsets": "pointwise"}, "depthwise"),
        ({"modulated": 1}, "modulated"),
        ({"gradient": "left"}, "symmetric"),
        ({"jitter": 2}, "jitter"),
    ],
)
def test_wrong_forms_are_refused(form: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AKConv(3, 4, 2, **form)
    with pytest.raises(ValueError, match=message):
        C3_AKConv(4, 4, 1, **form)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("form", FORMS)
def test_mixed_precision(form: dict[str, Any], dtype: torch.dtype) -> None:
    layer, x = moving_layer(**form), torch.randn(2, 4, 9, 12)
    expected = layer(x)
    with torch.autocast("cpu", dtype):
        y = layer.train()(x)
        found = layer.eval()(x)
    assert y.dtype == dtype
    y.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())
    assert (found.float() - expected).abs().mean() <= 0.1 * expected.abs().mean()
    half = copy.deepcopy(layer).to(dtype)(x.to(dtype))
    assert half.dtype == dtype and half.isfinite().all()


@pytest.mark.parametrize("form", FORMS)
def test_repeats_bit_for_bit_in_deterministic_mode(form: dict[str, Any]) -> None:
    torch.use_deterministic_algorithms(True)
    try:
        runs = []
        for _ in range(2):
            torch.manual_seed(1)
            layer, x = moving_layer(**form).train(), torch.randn(2, 4, 9, 12)
            y = layer(x)
            y.square().sum().backward()
            runs.append([y.detach(), *(parameter.grad for parameter in layer.parameters())])
        assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))  # type: ignore[arg-type]
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("form", FORMS)
def test_onnx(form: dict[str, Any], padding: str, opset: int, tmp_path: Path) -> None:
    layer = moving_layer(bias=padding == "zeros", padding=padding, **form)
    expected = [layer(torch.manual_seed(i) and torch.randn(shape)) for i, shape in enumerate(SHAPES)]
    run = in_onnx(layer, tmp_path, opset, torch.rand(TRACED))
    for i, shape in enumerate(SHAPES):
        torch.manual_seed(i)
        torch.testing.assert_close(run(torch.randn(shape)), expected[i], atol=2e-5, rtol=1e-4)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("form", FORMS)
def test_torchscript(form: dict[str, Any], padding: str) -> None:
    layer, buffer = moving_layer(padding=padding, **form), io.BytesIO()
    torch.jit.save(torch.jit.trace(layer, torch.rand(TRACED)), buffer)
    buffer.seek(0)
    loaded = torch.jit.load(buffer)
    for shape in SHAPES:
        x = torch.randn(shape)
        torch.testing.assert_close(loaded(x), layer(x), atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("form", [*(pytest.param(form, marks=pytest.mark.long) for form in FORMS[:-1]), FORMS[-1]])
def test_a_compiler_sees_one_graph(form: dict[str, Any]) -> None:
    torch._dynamo.reset()
    layer, x = moving_layer(**form).double().train(), torch.randn(2, 4, 7, 9, dtype=torch.float64)
    found = []
    for run in (layer, torch.compile(layer, fullgraph=True, backend="aot_eager")):
        layer.zero_grad()
        y = run(x)
        y.square().sum().backward()
        found.append([y.detach(), *(parameter.grad for parameter in layer.parameters())])
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("form", FORMS)
def test_exported_program_and_folded_batch_norm(form: dict[str, Any]) -> None:
    layer, x = moving_layer(**form), torch.randn(2, 4, 7, 9)
    folded = fused(torch.nn.Sequential(layer))
    torch.testing.assert_close(folded(x), layer(x), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(torch.export.export(folded, (x,)).module()(x), folded(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("implementation", TRAINED)
def test_blocks_pass_the_form_on(implementation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, implementation)
    block = C3_AKConv(4, 8, 2, offsets="depthwise", modulated=True, gradient="symmetric")
    layers = [layer for layer in block.modules() if isinstance(layer, AKConv)]
    assert [(type(layer.p_conv), layer.modulated, layer.gradient) for layer in layers] == [
        (torch.nn.Sequential, True, "symmetric")
    ] * 2
    assert block(torch.randn(2, 4, 5, 7)).shape == (2, 8, 5, 7)


@pytest.mark.parametrize("form", [{}, {"offsets": "depthwise"}, {"modulated": True}])
def test_jitter_moves_the_points_by_a_constant_and_nothing_else(form: dict[str, Any]) -> None:
    torch.manual_seed(3)
    plain = AKConv(4, 6, 5, 2, **form)
    torch.manual_seed(3)
    layer = C3_AKConv(12, 12, 1, num_param=5, jitter=0.25, **form).m[0].cv2
    torch.manual_seed(3)
    moved = AKConv(4, 6, 5, 2, jitter=0.25, **form)
    for found in (layer, moved):
        bias = last_convolution(found.p_conv).bias.detach()
        assert bias[:10].abs().max() <= 0.25 and bias[:10].unique().numel() == 10 and not bias[10:].any()
    expected = plain.state_dict()
    different = [name for name, t in moved.state_dict().items() if not torch.equal(t, expected[name])]
    assert different == ["p_conv.1.bias" if form.get("offsets") else "p_conv.bias"]
    last_convolution(plain.p_conv).bias.data.copy_(last_convolution(moved.p_conv).bias)
    x = torch.randn(2, 4, 9, 14)
    torch.testing.assert_close(moved(x), plain(x))
