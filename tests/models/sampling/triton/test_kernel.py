"""The fused Triton kernels against the oracles: on a GPU, or else in Triton's interpreter.

The interpreter must be chosen before Triton is imported, and for the whole process. So without a GPU most tests here
are skipped, and one runs this file again in a process that has TRITON_INTERPRET set.
"""

import functools
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from models.modules import ak_conv2d
from models.sampling.triton import kernel as triton_kernel
from models.sampling.triton import problem
from models.sampling.triton.kernel import ak_conv2d_triton
from tests.helpers.akconv_oracles import akconv_pixelwise, initial_shape

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[4]
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
HAS_TRITON = importlib.util.find_spec("triton") is not None
DEVICE = "cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu"
PADDINGS = ("border", "zeros")
LAYOUTS = ("contiguous", "channels_last", "sliced")
NAMES = ("x", "offset", "weight", "bias")
OLD_INTERPRETER = "only 0-dimensional arrays can be converted"

plain_ak_conv2d = functools.partial(ak_conv2d, implementation="embedding_bag")
runs_kernels = pytest.mark.skipif(not HAS_TRITON or (DEVICE == "cpu" and not INTERPRETED), reason="no GPU to run on")


def seeds(start, short, stop):
    """Some for the short form, all for the long one."""
    return [*range(start, short), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(short, stop))]


@pytest.mark.skipif(not HAS_TRITON or DEVICE == "cuda" or INTERPRETED, reason="the kernels run in this process")
@pytest.mark.parametrize("which", ["not long", pytest.param("long", marks=pytest.mark.long)])
def test_in_interpreter(which):
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", which, __file__]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    if OLD_INTERPRETER in run.stdout:
        pytest.skip("this version of Triton's interpreter fails with this version of numpy")
    assert run.returncode == 0, run.stdout[-5000:] + run.stderr[-2000:]
    assert "passed" in run.stdout


@pytest.mark.skipif(INTERPRETED, reason="runs outside")
def test_import_needs_no_triton():
    program = """
import sys
sys.modules["triton"] = None
import torch
from models.sampling.triton.kernel import ak_conv2d_triton
try:
    ak_conv2d_triton(torch.ones(1, 1, 2, 3), torch.zeros(1, 2, 2, 3), torch.ones(1, 1, 1, 1), points=torch.zeros(1, 2))
except RuntimeError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert "needs the package triton" in run.stdout, run.stdout + run.stderr


@pytest.fixture(autouse=True)
def untuned(monkeypatch, request):
    """Trying every tile for every size would take minutes on a GPU."""
    if DEVICE == "cuda" and "tuned" not in request.node.name:
        for kernel in triton_kernel.kernels():
            monkeypatch.setattr(kernel, "tuned", None)


def lay_out(tensor, layout):
    if layout == "channels_last":
        return tensor.contiguous(memory_format=torch.channels_last)
    if layout == "sliced":
        large = tensor.new_full([size + 2 for size in tensor.shape], torch.nan)
        large = large.contiguous(memory_format=torch.channels_last)
        part = large[1:-1, 1:-1, 1:-1, 1:-1]
        return part.copy_(tensor)
    return tensor.contiguous()


def draw(seed, dtype=torch.float32, *, batch=None, channels=None, out_channels=None, max_points=3):
    """Inputs by name, and settings by name. Positions are multiples of 1/64, so they are the same in any precision."""
    rng = np.random.default_rng(seed)
    batch = int(rng.integers(1, 3)) if batch is None else batch
    channels = channels or int(rng.choice([1, 3, 16, 37]))
    out_channels = out_channels or int(rng.choice([1, 5, 32, 70]))
    num_points, stride = int(rng.integers(1, max_points + 1)), int(rng.integers(1, 4))
    height, width = rng.choice(np.arange(1, 9), 2, replace=False).tolist()
    out_height, out_width = (height - 1) // stride + 1, (width - 1) // stride + 1
    offset = np.round(rng.normal(0, 2, (batch, 2 * num_points, out_height, out_width)) * 64) / 64
    offset = np.where(rng.random(offset.shape) < 0.1, np.round(offset), offset)
    offset = np.where(rng.random(offset.shape) < 0.05, rng.choice([-1e30, 1e4], offset.shape), offset)
    # A position of exactly -1 has its own test: its gradient differed between versions of torch.
    arrays = {
        "x": rng.normal(size=(batch, channels, height, width)),
        "offset": offset + 1 / 128,
        "weight": rng.normal(size=(out_channels, channels, num_points, 1)),
        "bias": rng.normal(size=out_channels),
    }
    tensors = {name: torch.tensor(array, dtype=dtype, device=DEVICE) for name, array in arrays.items()}
    for name in ("x", "offset"):
        tensors[name] = lay_out(tensors[name], rng.choice(LAYOUTS))
    if rng.random() < 0.3:
        tensors["bias"] = None
    points = torch.tensor(initial_shape(num_points), dtype=torch.float32, device=DEVICE)
    return tensors, {"points": points, "stride": stride, "padding": str(rng.choice(PADDINGS))}


def compare(actual, expected, tolerance, what=""):
    """Agree to within a share of the largest expected magnitude."""
    actual, expected = actual.detach().double().cpu(), expected.detach().double().cpu()
    assert actual.shape == expected.shape, what
    if expected.numel():
        error = (actual - expected).abs().max().item()
        assert error <= tolerance * max(expected.abs().max().item(), 1e-30), (what, error)


def gradients(function, tensors, settings, seed=0):
    """The result, and gradients by name, for a random upper gradient."""
    leaves = {name: t.detach().requires_grad_() for name, t in tensors.items() if t is not None}
    y = function(**{**tensors, **leaves}, **settings)
    upper = torch.randn(y.shape, generator=torch.Generator().manual_seed(seed)).to(y)
    results = torch.autograd.grad(y, list(leaves.values()), upper)
    for leaf, result in zip(leaves.values(), results, strict=True):
        assert result.dtype == leaf.dtype
    return y, dict(zip(leaves, results, strict=True))


def expected_gradients(tensors, settings):
    """The same from the plain implementation on the CPU in float64."""
    tensors = {name: None if t is None else t.detach().cpu().double() for name, t in tensors.items()}
    return gradients(plain_ak_conv2d, tensors, {**settings, "points": settings["points"].cpu()})


@runs_kernels
@pytest.mark.parametrize("seed", seeds(0, 10, 30))
def test_forward(seed):
    tensors, settings = draw(seed, batch=0 if seed == 0 else None, max_points=9)
    y = ak_conv2d_triton(**tensors, **settings)
    arrays = {name: t.cpu().numpy() for name, t in tensors.items() if t is not None}
    bias = arrays.pop("bias", None)
    points = settings.pop("points").tolist()
    expected, scale = akconv_pixelwise(**arrays, points=points, **settings)
    expected = expected if bias is None else expected + bias[:, None, None]
    assert y.dtype == torch.float32
    np.testing.assert_allclose(y.cpu().numpy(), expected, rtol=0, atol=1e-5 * (scale + 1))


@runs_kernels
@pytest.mark.parametrize("seed", seeds(100, 104, 110))
def test_gradients(seed):
    tensors, settings = draw(seed, max_points=6)
    y, actual = gradients(ak_conv2d_triton, tensors, settings)
    expected_y, expected = expected_gradients(tensors, settings)
    compare(y, expected_y, 1e-5)
    for name, gradient in expected.items():
        compare(actual[name], gradient, 1e-4, name)


@runs_kernels
@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("seed", seeds(150, 153, 160))
def test_factors_and_symmetric_gradients(seed, deterministic):
    tensors, settings = draw(seed, max_points=4)
    # Half of the positions are integers.
    offset = torch.where(torch.rand_like(tensors["offset"]) < 0.5, tensors["offset"].round(), tensors["offset"])
    factors = 2 * torch.rand_like(offset[:, : offset.shape[1] // 2])
    tensors["offset"] = torch.cat((offset, factors), 1)
    settings |= {"modulated": True, "gradient": "symmetric"}
    y, actual = gradients(ak_conv2d_triton, tensors, {**settings, "deterministic": deterministic})
    expected_y, expected = expected_gradients(tensors, settings)
    compare(y, expected_y, 1e-5)
    for name, gradient in expected.items():
        compare(actual[name], gradient, 1e-4, name)


@runs_kernels
@pytest.mark.parametrize("padding", PADDINGS)
def test_gradient_at_whole_positions_is_towards_the_next_pixel(padding):
    x = torch.randn(1, 3, 4, 6, device=DEVICE)
    weight = torch.randn(2, 3, 1, 1, device=DEVICE)
    upper = torch.randn(1, 2, 4, 6, device=DEVICE)
    settings = {"points": torch.zeros(1, 2, device=DEVICE), "padding": padding}
    for shift in range(-7, 9, 3):
        offset = torch.full((1, 2, 4, 6), float(shift), device=DEVICE)
        offset[:, 0] += torch.arange(6, device=DEVICE) % 3
        leaf = offset.clone().requires_grad_()
        y = ak_conv2d_triton(x, leaf, weight, **settings)
        (gradient,) = torch.autograd.grad(y, leaf, upper)
        for axis in (0, 1):
            moved = offset.clone()
            moved[:, axis] += 1 / 64
            change = (
                plain_ak_conv2d(*(t.cpu() for t in (x, moved, weight)), points=torch.zeros(1, 2), padding=padding)
            ).to(y)
            slope = ((change - y) * 64 * upper).sum(1)
            torch.testing.assert_close(gradient[:, axis], slope, rtol=0, atol=2e-3)


@runs_kernels
@pytest.mark.parametrize(
    ("bad", "padding", "deterministic"),
    [
        (torch.nan, "border", False),
        (torch.nan, "zeros", True),
        (torch.inf, "zeros", False),
        (-torch.inf, "border", True),
    ],
)
def test_non_finite_offset_spoils_its_pixel_only(bad, padding, deterministic):
    tensors, settings = draw(7, batch=2, channels=3, out_channels=5)
    settings["padding"] = padding
    good, good_gradients = gradients(ak_conv2d_triton, tensors, settings)
    offset = tensors["offset"].clone()
    last_row, last_column = offset.shape[2] - 1, offset.shape[3] - 1
    spoilt = [(0, 0, 0, 0), (1, offset.shape[1] - 1, last_row, last_column)]
    for place in spoilt:
        offset[place] = bad
    y, actual = gradients(ak_conv2d_triton, {**tensors, "offset": offset}, {**settings, "deterministic": deterministic})
    is_spoilt = torch.zeros(2, *offset.shape[2:], dtype=torch.bool, device=DEVICE)
    for image, _, row, column in spoilt:
        is_spoilt[image, row, column] = True
    assert y.permute(0, 2, 3, 1)[is_spoilt].isnan().all()
    assert torch.equal(y.permute(0, 2, 3, 1)[~is_spoilt], good.permute(0, 2, 3, 1)[~is_spoilt])
    assert actual["x"].isfinite().all()
    for place in spoilt:
        assert actual["offset"][place] == 0
    others = ~is_spoilt[:, None].expand_as(offset)
    torch.testing.assert_close(actual["offset"][others], good_gradients["offset"][others])
    assert actual["weight"].isnan().any()


@runs_kernels
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("seed", range(200, 201))
def test_other_precisions(dtype, seed):
    if INTERPRETED and dtype == torch.bfloat16:
        pytest.skip("the interpreter multiplies the bits of bfloat16 as integers")
    tensors, settings = draw(seed, dtype)
    tensors["offset"] = (tensors["offset"].clamp(-100, 100) * 8).round() / 8 + 1 / 16  # what bfloat16 holds exactly
    y, actual = gradients(ak_conv2d_triton, tensors, settings)
    expected_y, expected = expected_gradients(tensors, settings)
    tolerance = 1e-12 if dtype == torch.float64 else 4 * torch.finfo(dtype).eps
    assert y.dtype == dtype
    compare(y, expected_y, tolerance)
    for name, gradient in expected.items():
        compare(actual[name], gradient, tolerance, name)


@runs_kernels
@pytest.mark.parametrize("offset_dtype", [torch.float16, torch.float32, torch.float64])
def test_mixed_precisions(offset_dtype):
    tensors, settings = draw(300)
    tensors["offset"] = (tensors["offset"].clamp(-100, 100) * 8).round() / 8 + 1 / 16
    expected_y, expected = expected_gradients(tensors, settings)
    tensors["x"], tensors["offset"] = tensors["x"].half(), tensors["offset"].to(offset_dtype)
    y, actual = gradients(ak_conv2d_triton, tensors, settings)
    assert y.dtype == torch.float16
    compare(y, expected_y, 4e-3)
    for name, gradient in expected.items():
        compare(actual[name], gradient, 4e-3, name)


@runs_kernels
def test_positions_are_float32_whatever_the_map():
    """Half precision has steps of 1 between 1024 and 2048: a ramp along a long row would come out in stairs."""
    x = torch.arange(1500.0, device=DEVICE).div(1500).expand(1, 1, 2, 1500)
    offset = torch.full((1, 2, 2, 1500), 0.25, device=DEVICE)
    y = ak_conv2d_triton(x.half(), offset.half(), torch.ones(1, 1, 1, 1, device=DEVICE), points=torch.zeros(1, 2))
    expected = ((torch.arange(1500.0, device=DEVICE) + 0.25) / 1500).clamp(max=1499 / 1500)
    compare(y[0, 0, 0], expected, 1e-3)
    steps = y[0, 0, 0, 1100:1104].float().diff()
    assert (steps > 0).any()


@runs_kernels
def test_autocast_gives_the_dtype_of_the_plain_implementation():
    dtype = torch.float16
    tensors, settings = draw(301)
    with torch.autocast(DEVICE, dtype=dtype):
        y, actual = gradients(ak_conv2d_triton, tensors, settings)
        plain = plain_ak_conv2d(**tensors, **settings)
    assert y.dtype == plain.dtype == dtype
    compare(y, plain, 2e-2)
    for name, gradient in expected_gradients(tensors, settings)[1].items():
        compare(actual[name], gradient, 3e-2, name)


@runs_kernels
@pytest.mark.parametrize("seed", range(400, 402))
def test_deterministic_mode(seed):
    tensors, settings = draw(seed)
    y, actual = gradients(ak_conv2d_triton, tensors, settings)
    for _ in range(2):
        same_y, same = gradients(ak_conv2d_triton, tensors, {**settings, "deterministic": True})
        compare(same_y, y, 1e-6)
        for name, gradient in same.items():
            compare(gradient, actual[name], 1e-6, name)
    torch.use_deterministic_algorithms(True)
    try:
        again_y, again = gradients(ak_conv2d_triton, tensors, settings)
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(again_y, same_y)
    for name, gradient in again.items():
        assert torch.equal(gradient, same[name]), name


@runs_kernels
@pytest.mark.parametrize("deterministic", [False, True])
def test_wide_indices(monkeypatch, deterministic):
    tensors, settings = draw(500)
    settings["deterministic"] = deterministic
    y, narrow = gradients(ak_conv2d_triton, tensors, settings)
    monkeypatch.setattr(problem, "WIDE_FROM", 0)
    wide_y, wide = gradients(ak_conv2d_triton, tensors, settings)
    compare(wide_y, y, 1e-6)
    for name, gradient in wide.items():
        compare(gradient, narrow[name], 1e-6, name)


@runs_kernels
@pytest.mark.parametrize("needed", [*NAMES, None])
def test_only_the_gradients_asked_for(needed):
    tensors, settings = draw(503)
    tensors["bias"] = torch.randn(tensors["weight"].shape[0], device=DEVICE)
    if needed is None:
        assert not ak_conv2d_triton(**tensors, **settings).requires_grad
        return
    _, expected = expected_gradients(tensors, settings)
    leaf = tensors[needed].detach().requires_grad_()
    y = ak_conv2d_triton(**{**tensors, needed: leaf}, **settings)
    upper = torch.randn(y.shape, generator=torch.Generator().manual_seed(0)).to(y)
    y.backward(upper)
    compare(leaf.grad, expected[needed], 1e-4)


@runs_kernels
def test_expanded_gradient():
    tensors, settings = draw(504)
    leaf = tensors["weight"].requires_grad_()
    ak_conv2d_triton(**tensors, **settings).sum().backward()
    double = {name: None if t is None else t.detach().cpu().double() for name, t in tensors.items()}
    double["weight"].requires_grad_()
    plain_ak_conv2d(**double, **{**settings, "points": settings["points"].cpu()}).sum().backward()
    compare(leaf.grad, double["weight"].grad, 1e-4)


@runs_kernels
def test_empty_batch_has_gradients():
    tensors, settings = draw(505, batch=0)
    y, actual = gradients(ak_conv2d_triton, tensors, settings)
    assert y.shape[0] == 0
    assert actual["x"].shape == tensors["x"].shape
    assert not actual["weight"].any()


@runs_kernels
def test_tile_sums_of_many_splits():
    """More pixels than one program takes, for every kernel."""
    tensors, settings = draw(506, batch=2, channels=70, out_channels=130, max_points=2)
    y, actual = gradients(ak_conv2d_triton, tensors, settings)
    expected_y, expected = expected_gradients(tensors, settings)
    compare(y, expected_y, 1e-5)
    for name, gradient in expected.items():
        compare(actual[name], gradient, 1e-4, name)


@runs_kernels
def test_compiled_without_graph_breaks():
    def function(**arguments):
        return ak_conv2d_triton(**arguments).relu()

    compiled = torch.compile(function, backend="aot_eager", fullgraph=True)
    tensors, settings = draw(600)
    y, actual = gradients(compiled, tensors, settings)
    expected_y, expected = gradients(function, tensors, settings)
    compare(y, expected_y, 1e-6)
    for name, gradient in expected.items():
        compare(actual[name], gradient, 1e-6, name)


@runs_kernels
@pytest.mark.skipif(DEVICE == "cpu", reason="the interpreter does not tune")
def test_tuned_tiles():
    tensors, settings = draw(700, channels=16, out_channels=32)
    y, actual = gradients(ak_conv2d_triton, tensors, settings)
    expected_y, expected = expected_gradients(tensors, settings)
    compare(y, expected_y, 1e-5)
    for name, gradient in expected.items():
        compare(actual[name], gradient, 1e-4, name)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("weight", (4, 3, 2, 2)),
        ("weight", (4, 5, 2, 1)),
        ("weight", (4, 3, 3, 1)),
        ("offset", (2, 4, 6, 5)),
        ("offset", (2, 2, 5, 6)),
        ("offset", (1, 4, 5, 6)),
        ("bias", (3,)),
        ("bias", (4, 1)),
    ],
)
def test_bad_shapes(name, shape):
    tensors = {"x": (2, 3, 5, 6), "offset": (2, 4, 5, 6), "weight": (4, 3, 2, 1), "bias": (4,)}
    tensors = {key: torch.zeros(size, device=DEVICE) for key, size in {**tensors, name: shape}.items()}
    with pytest.raises(ValueError, match=name):
        ak_conv2d_triton(**tensors, points=torch.zeros(2, 2))


def test_bad_padding():
    with pytest.raises(ValueError, match="padding"):
        ak_conv2d_triton(
            torch.zeros(1, 1, 2, 3), torch.zeros(1, 2, 2, 3), torch.zeros(1, 1, 1, 1), points=torch.zeros(1, 2),
            padding="reflect",
        )  # fmt: skip
