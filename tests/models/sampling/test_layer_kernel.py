"""The kernel of a whole layer: every level of vector instructions against the layer in float64, and packed weights."""

import copy
import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.fuse import fused
from models.modules import AKConv
from models.sampling.dispatch import VARIABLE
from models.sampling.layer_kernel import VARIABLE as LEVEL
from models.sampling.layer_kernel import available_levels, layer
from models.sampling.offset_convolution import last_convolution

pytestmark = [
    pytest.mark.kernels,
    pytest.mark.skipif(not available_levels(), reason="needs python -m utils.compiled"),
]
FORMS: tuple[dict[str, Any], ...] = (
    {},
    {"offsets": "depthwise", "padding": "zeros"},
    {"modulated": True, "padding": "zeros"},
    {"offsets": "depthwise", "modulated": True, "points": "centered"},
)
# Batch, channels, outputs, height, width, points, stride: outputs and widths beside, at and beyond whole vectors.
CASES = (
    (2, 5, 7, 9, 12, 5, 2),
    (3, 16, 8, 11, 7, 3, 1),
    (1, 24, 33, 13, 6, 4, 1),
    (1, 16, 32, 20, 26, 3, 2),
    (1, 3, 1, 1, 1, 1, 1),
    (2, 4, 16, 1, 9, 13, 3),
    (1, 8, 17, 40, 23, 9, 1),
    (1, 130, 50, 6, 9, 2, 1),
)


@pytest.fixture(params=available_levels())
def level(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(LEVEL, request.param)
    return str(request.param)


@pytest.fixture
def threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """As many threads as the parameter says, also for small maps."""
    monkeypatch.setattr("models.sampling.layer_kernel.SMALL", 0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: request.param)
    return int(request.param)


def exact_layer(case: tuple[int, ...], **form: Any) -> tuple[AKConv, Tensor]:
    """Return a layer and a map whose results are exact in single precision: few bits in each number."""
    batch, channels, outputs, height, width, points, stride = case
    torch.manual_seed(sum(case))
    akconv = AKConv(channels, outputs, points, stride, bias=True, act=False, **form).eval()
    with torch.no_grad():
        for convolution in (*akconv.p_conv.modules(), *akconv.conv):
            if isinstance(convolution, nn.Conv2d):
                convolution.weight.copy_(torch.randint(-1, 2, convolution.weight.shape))
                if convolution.bias is not None:
                    convolution.bias.copy_(torch.randint(-3, 4, convolution.bias.shape))
        last = last_convolution(akconv.p_conv)
        last.weight.mul_((torch.rand_like(last.weight) < 0.1) / 4)
    akconv.conv[1] = nn.Identity()
    return akconv, torch.randint(-3, 4, (batch, channels, height, width)).float()


def random_layer(case: tuple[int, ...], **form: Any) -> tuple[AKConv, Tensor]:
    batch, channels, outputs, height, width, points, stride = case
    torch.manual_seed(sum(case))
    akconv = AKConv(channels, outputs, points, stride, **form).eval()
    norm, last = akconv.conv[1], last_convolution(akconv.p_conv)
    nn.init.normal_(last.weight, std=0.3)
    nn.init.normal_(last.bias, std=2.0)  # type: ignore[arg-type]
    nn.init.normal_(norm.bias)  # type: ignore[arg-type]
    norm.running_var.uniform_(0.5, 2)  # type: ignore[union-attr, operator]
    return akconv, torch.randn(batch, channels, height, width)


def oracle(akconv: AKConv, x: Tensor, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """Return the output of the layer by four gathers in float64."""
    with monkeypatch.context() as context, torch.no_grad():
        context.setenv(VARIABLE, "gather")
        return copy.deepcopy(akconv).double()(x.double())


def by_kernel(akconv: AKConv, x: Tensor) -> Tensor:
    """Return the output of the layer, which must come from the kernel."""
    with torch.inference_mode():
        y = akconv(x)
    assert akconv._kernel._packed is not None
    return y


@pytest.mark.parametrize("threads", [0, 1, 2, 3], indirect=True)
@pytest.mark.parametrize("form", [f for f in FORMS if "modulated" not in f], ids=str)
def test_small_integers_give_the_same_numbers_bit_by_bit(
    form: dict[str, Any], level: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for case in CASES:
        akconv, x = exact_layer(case, **form)
        expected = oracle(akconv, x, monkeypatch)
        assert by_kernel(akconv, x).double().equal(expected)
        assert by_kernel(akconv, x.to(memory_format=torch.channels_last)).double().equal(expected)


@pytest.mark.parametrize("stride", [1, 2])
def test_all_numbers_of_channels(level: str, stride: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for channels in range(1, 41):
        akconv, x = exact_layer((1, channels, 41 - channels, 5, 2 * (channels % 5) + 1, 2, stride))
        assert by_kernel(akconv, x).double().equal(oracle(akconv, x, monkeypatch)), channels


@pytest.mark.parametrize("folded", [True, False])
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_random_layers_are_those_of_double_precision(
    form: dict[str, Any], folded: bool, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for case in CASES:
        akconv, x = random_layer(case, **form)
        expected = oracle(akconv, x, monkeypatch)
        found = by_kernel(fused(akconv) if folded else akconv, x)
        # An offset is off by some 1e-6 pixels, and a sample by as much of the difference of two pixels.
        torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("padding", ["border", "zeros"])
def test_numbers_that_are_none_and_offsets_far_outside(
    padding: str, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    akconv, x = exact_layer((1, 18, 20, 7, 9, 1, 1), padding=padding)
    nn.init.zeros_(akconv.p_conv.weight)  # type: ignore[arg-type]
    for value in (1e9, -1e9, 1e30, torch.inf, -torch.inf, torch.nan):
        for axis in (0, 1):
            akconv.p_conv.bias.data = torch.tensor([0.0, 0.0])  # type: ignore[union-attr]
            akconv.p_conv.bias.data[axis] = value  # type: ignore[union-attr, index]
            found, expected = by_kernel(fused(akconv), x), oracle(akconv, x, monkeypatch)
            torch.testing.assert_close(found.double(), expected, rtol=0, atol=0, equal_nan=True)
            assert bool(found.isnan().all()) != bool(torch.tensor(value).isfinite())


def test_a_pixel_that_is_no_number_stays_in_its_neighbourhood(level: str) -> None:
    akconv, x = random_layer((1, 4, 6, 30, 20, 3, 1))
    for parameter in akconv.p_conv.parameters():
        nn.init.zeros_(parameter)
    x[0, :, 15, 10] = torch.nan
    found = by_kernel(akconv, x).clone()
    assert found[0, :, 15, 10].isnan().all()
    found[:, :, 13:17, 8:12] = 0
    assert found.isfinite().all()


def test_a_map_too_wide_for_single_precision_is_not_left(level: str) -> None:
    width = 2**24 + 4  # its last index, 2**24 + 3, is rounded up to 2**24 + 4
    memory = torch.zeros(width + 8)
    memory[width - 1], memory[width:] = 3.0, 7.0  # the last pixel, and what lies beyond the map
    for padding, value in (("border", 3.0), ("zeros", 0.0)):
        akconv = AKConv(1, 1, 1, width // 2 + 1, padding=padding, act=False).eval()  # type: ignore[arg-type]
        akconv.conv[1] = nn.Identity()
        nn.init.ones_(akconv.conv[0].weight)  # type: ignore[arg-type]
        akconv.p_conv.bias.data[1] = 1e9  # type: ignore[union-attr, index]
        assert by_kernel(akconv, memory[:width].view(1, 1, 1, width)).flatten().tolist() == [value] * 2


def silu_layer() -> AKConv:
    """Return a folded layer that computes SiLU of each element of a map of one channel."""
    akconv = AKConv(1, 1, 1).eval()
    akconv.conv[1] = nn.Identity()
    nn.init.ones_(akconv.conv[0].weight)  # type: ignore[arg-type]
    return akconv


def test_silu_is_exact_to_a_few_units_in_the_last_place(level: str) -> None:
    bits = torch.arange(0, 0x42B00000, 997, dtype=torch.int32)  # floats from 0 to 88
    x = bits.view(torch.float32)
    x = torch.cat((x, -x[x <= 87]))
    found = by_kernel(silu_layer(), x.view(1, 1, 1, -1)).flatten().double()
    expected = x.double() * x.double().sigmoid()
    exponent = expected.abs().clamp(min=2.0**-126).log2().floor()
    error = (found - expected).abs() / torch.exp2(exponent - 23)
    assert error.max() < 2.5


def test_silu_far_from_zero(level: str) -> None:
    x = torch.tensor([1e30, torch.inf, -88.5, -1e4, -1e30, torch.nan, -torch.inf, 0.0, -0.0])
    akconv = AKConv(1, len(x), 1, bias=True).eval()
    akconv.conv[1] = nn.Identity()
    akconv.conv[0].bias.data = x  # type: ignore[union-attr]
    found = by_kernel(akconv, torch.zeros(1, 1, 1, 1)).flatten()
    torch.testing.assert_close(found[:2], x[:2], rtol=0, atol=0)
    assert found[2:5].tolist() == [0, 0, 0]
    assert found[5:7].isnan().all()  # as torch's own
    assert found[7:].tolist() == [0, 0]


@pytest.mark.parametrize("shape", [(0, 5, 9, 12), (2, 5, 0, 12), (2, 5, 9, 0)])
def test_empty_maps(shape: tuple[int, ...]) -> None:
    akconv, _ = exact_layer(CASES[0])
    with torch.inference_mode():
        assert akconv(torch.empty(shape)).shape == (shape[0], 7, (shape[2] + 1) // 2, (shape[3] + 1) // 2)


def test_what_does_not_fit_is_an_error_and_no_read_beyond_the_tensor() -> None:
    akconv, x = random_layer(CASES[0])
    with torch.inference_mode():
        by_kernel(akconv, x)
        with pytest.raises(RuntimeError, match="channels"):
            akconv(x[:, :-1])
        with pytest.raises(RuntimeError, match=r"dtype|type"):
            akconv(x.double())
        akconv.stride = 3
        with pytest.raises(ValueError, match="offset"):
            akconv(x)
        akconv.stride, akconv.modulated = 2, True
        with pytest.raises(ValueError, match="offset"):
            akconv(x)


def test_an_unknown_level_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LEVEL, "avx3")
    with pytest.raises(ValueError, match=LEVEL):
        AKConv(3, 4, 3)


def assign(akconv: AKConv, name: str) -> None:
    module, _, attribute = name.rpartition(".")
    setattr(akconv.get_submodule(module), attribute, nn.Parameter(2 * akconv.get_parameter(name).detach()))


def load(akconv: AKConv, name: str, *, replace: bool) -> None:
    state = {key: 2 * value if key == name else value.clone() for key, value in akconv.state_dict().items()}
    akconv.load_state_dict(state, assign=replace)


def fused_step(parameter: nn.Parameter) -> None:
    parameter.grad = torch.ones_like(parameter)
    torch.optim.SGD([parameter], lr=1, fused=True).step()


CHANGES: dict[str, Callable[[AKConv, str], object]] = {
    "in place": lambda akconv, name: akconv.get_parameter(name).mul_(2),
    "through a view": lambda akconv, name: akconv.get_parameter(name).view(-1).mul_(2),
    "another parameter": assign,
    "other data": lambda akconv, name: setattr(akconv.get_parameter(name), "data", 2 * akconv.get_parameter(name).data),
    "data in place": lambda akconv, name: akconv.get_parameter(name).data.mul_(2),
    "fused optimizer": lambda akconv, name: fused_step(akconv.get_parameter(name)),
    "NumPy": lambda akconv, name: akconv.get_parameter(name).detach().numpy().__imul__(2),
    "state": lambda akconv, name: load(akconv, name, replace=False),
    "assigned state": lambda akconv, name: load(akconv, name, replace=True),
    "half precision and back": lambda akconv, name: akconv.half().float().get_parameter(name).mul_(2),
    "double precision and back": lambda akconv, name: akconv.double().float().get_parameter(name).mul_(2),
}


@pytest.mark.parametrize("name", ["conv.0.weight", "conv.0.bias", "p_conv.weight", "p_conv.bias"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_parameter_is_read_anew(change: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    akconv, x = exact_layer(CASES[0])
    before = by_kernel(akconv, x)
    with torch.no_grad():
        CHANGES[change](akconv, name)
    after = by_kernel(akconv, x)
    assert not after.equal(before)
    assert after.double().equal(oracle(akconv, x, monkeypatch))


def test_a_changed_depthwise_weight_point_and_form_are_read_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    akconv, x = exact_layer(CASES[0], offsets="depthwise")
    before = by_kernel(akconv, x)
    with torch.no_grad():
        akconv.p_conv[0].weight.mul_(2)  # type: ignore[index, union-attr, operator]
    second = by_kernel(akconv, x)
    akconv.points += 1
    third = by_kernel(akconv, x)
    akconv.padding = "zeros"
    fourth = by_kernel(akconv, x)
    assert len({y.double().sum().item() for y in (before, second, third, fourth)}) == 4
    assert fourth.double().equal(oracle(akconv, x, monkeypatch))


def test_weights_are_packed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    akconv, x = exact_layer(CASES[0])
    by_kernel(akconv, x)
    packed = akconv._kernel._packed
    by_kernel(akconv, torch.cat((x, x)))
    assert akconv._kernel._packed is packed


def test_memory_of_another_tensor_at_the_same_address_is_no_hit() -> None:
    """The storage that was packed is kept, so that its address is not given to other weights."""
    akconv, x = exact_layer(CASES[0])
    by_kernel(akconv, x)
    address = akconv.conv[0].weight.data_ptr()  # type: ignore[union-attr, operator]
    for _ in range(20):
        akconv.conv[0].weight = nn.Parameter(akconv.conv[0].weight.detach() * 1)  # type: ignore[union-attr, operator]
        assert akconv.conv[0].weight.data_ptr() != address  # type: ignore[union-attr, operator]


def test_a_copy_has_weights_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    akconv, x = exact_layer(CASES[0])
    before = by_kernel(akconv, x)
    other = copy.deepcopy(akconv)
    assert copy.copy(akconv._kernel)._packed is None, "nor do pickles, by the same method, hold addresses"
    with torch.no_grad():
        akconv.conv[0].weight.zero_()  # type: ignore[union-attr, operator]
    assert by_kernel(other, x).equal(before)
    assert by_kernel(akconv, x).double().equal(oracle(akconv, x, monkeypatch))


def test_weights_made_in_inference_mode_are_packed_at_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    akconv, x = exact_layer(CASES[0])
    with torch.inference_mode():
        akconv.conv[0].weight = nn.Parameter(akconv.conv[0].weight * 1, requires_grad=False)  # type: ignore[union-attr, operator]
        by_kernel(akconv, x)
        akconv.conv[0].weight.mul_(2)  # type: ignore[union-attr, operator]
        assert by_kernel(akconv, x).double().equal(oracle(akconv, x, monkeypatch))


def test_the_folded_layer_applies_silu_and_other_activations(monkeypatch: pytest.MonkeyPatch) -> None:
    for act in (True, False, nn.Hardswish(), nn.LeakyReLU(0.1)):
        akconv, x = random_layer(CASES[0], act=act)
        found = by_kernel(fused(akconv), x)
        torch.testing.assert_close(found.double(), oracle(akconv, x, monkeypatch), rtol=1e-3, atol=1e-3)


def test_who_watches_a_part_sees_it() -> None:
    for form in ({}, {"offsets": "depthwise"}):
        akconv, x = random_layer(CASES[0], **form)
        akconv = fused(akconv)
        expected = by_kernel(akconv, x)
        for part in (*akconv.p_conv.modules(), *akconv.conv[1:]):
            seen: list[Tensor] = []
            handle = part.register_forward_hook(lambda module, args, output, seen=seen: seen.append(output))
            with torch.inference_mode():
                torch.testing.assert_close(akconv(x), expected, rtol=1e-4, atol=1e-4)
            handle.remove()
            assert len(seen) == 1


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_the_operator_satisfies_torch(form: dict[str, Any]) -> None:
    akconv, x = random_layer(CASES[0], **form)
    akconv = fused(akconv)
    depthwise = akconv.p_conv[0].weight if "offsets" in form else None  # type: ignore[index, union-attr]
    last, columns = last_convolution(akconv.p_conv), akconv.conv[0]
    tensors = x, depthwise, last.weight, last.bias, akconv.points, columns.weight, columns.bias
    constants = akconv.stride, akconv.padding, akconv.modulated, True
    torch.library.opcheck(layer, (*tensors, *constants))
    assert layer(*tensors, *constants).equal(by_kernel(akconv, x))


def test_an_exported_program_holds_the_operator_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    akconv, x = random_layer(CASES[3])
    akconv = fused(akconv)
    found = {}
    for name in ("cpu_kernel", None):
        monkeypatch.setenv(VARIABLE, name) if name else monkeypatch.delenv(VARIABLE)
        with torch.no_grad():
            program = torch.export.export(akconv, (x,))
            torch.testing.assert_close(program.module()(x), by_kernel(akconv, x), rtol=1e-3, atol=1e-3)
        found[name] = [node for node in program.graph.nodes if node.target is torch.ops.akconv.layer.default]
    assert len(found["cpu_kernel"]) == 1 and found[None] == []


@pytest.mark.slow
@pytest.mark.skipif("AKCONV_CFLAGS" in os.environ, reason="torch.compile starts compilers without the sanitizers")
def test_a_compiled_model_calls_the_operator_without_a_graph_break(monkeypatch: pytest.MonkeyPatch) -> None:
    model = fused(nn.Sequential(random_layer(CASES[3])[0], AKConv(32, 8, 2, act=nn.Hardswish())))
    x = torch.randn(1, 16, 20, 26)
    with torch.no_grad():
        expected = model(x)
        compiled = torch.compile(model, fullgraph=True)
        torch.testing.assert_close(compiled(x), expected)
        torch.testing.assert_close(compiled(x), expected)
        model[0].conv[0].weight.mul_(2)
        torch.testing.assert_close(compiled(x), model(x))
        torch.testing.assert_close(compiled(x[:, :, :14]), model(x[:, :, :14]))
