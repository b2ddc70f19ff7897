"""Every torch implementation of AKConv against the per-pixel oracle, and the one place that chooses between them."""

import io

import numpy as np
import pytest
import torch
from torch._subclasses import FakeTensorMode

from models.modules import AKConv, ak_conv2d, base_points
from models.sampling.dispatch import VARIABLE, choose
from models.sampling.sampling_grid import MAX_SIDE, SamplingGrid, corners
from models.sampling.training_kernel import load
from tests.helpers.akconv_oracles import akconv_pixelwise

pytestmark = pytest.mark.kernels
COMPILED = pytest.mark.skipif(load(torch.float32) is None, reason="needs python -m utils.compiled")
IMPLEMENTATIONS = ("embedding_bag", "gather", pytest.param("cpu_kernel", marks=COMPILED))
PADDINGS = ("border", "zeros")


def problem(seed: int, *, whole: bool = False) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, int]:
    """Random x, offset, weight, points and stride in float64; `whole` offsets are integers."""
    rng = np.random.default_rng(seed)
    batch, channels, out, num_points, stride = (int(rng.integers(1, high)) for high in (3, 7, 7, 8, 4))
    height, width = (int(v) for v in rng.choice(12, 2, replace=False) + 1)
    size = ((height - 1) // stride + 1, (width - 1) // stride + 1)
    offset = rng.normal(0, 3, (batch, 2 * num_points, *size))
    x, weight = rng.normal(size=(batch, channels, height, width)), rng.normal(size=(out, channels, num_points, 1))
    points = torch.tensor(base_points(num_points), dtype=torch.float64)
    tensors = (torch.from_numpy(array) for array in (x, offset.round() if whole else offset, weight))
    return (*tensors, points, stride)  # type: ignore[return-value]


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("padding", PADDINGS)
def test_forward_equals_the_pixelwise_oracle(implementation: str, padding: str) -> None:
    for seed in range(30):
        x, offset, weight, points, stride = problem(seed, whole=seed % 3 == 0)
        arrays = (x.numpy(), offset.numpy(), weight.numpy(), points.tolist())
        expected, scale = akconv_pixelwise(*arrays, stride=stride, padding=padding)
        for x_given, tolerance in ((x, 1e-12), (x.float(), 2e-5)):
            found = ak_conv2d(
                x_given.contiguous(memory_format=torch.channels_last if seed % 2 else torch.contiguous_format),
                offset.to(x_given.dtype),
                weight.to(x_given.dtype),
                points=points,
                stride=stride,
                padding=padding,
                implementation=implementation,
            )
            assert found.dtype == x_given.dtype
            assert np.abs(found.double().numpy() - expected).max() <= tolerance * max(scale, 1), seed


@pytest.mark.parametrize(("side", "num_points", "dtype"), [(2**14, 7, torch.int32), (2**14, 8, torch.int64)])
def test_an_index_has_room_for_a_row_for_each_point_of_a_pixel(side: int, num_points: int, dtype: torch.dtype) -> None:
    grid = SamplingGrid(torch.zeros(num_points, 2))
    position = torch.full((1, 1, 1, num_points), float(side))
    index, _ = corners(position, position, (side, side), grid)
    assert index.dtype == dtype
    assert (index * num_points + num_points - 1).max() == side * side * num_points - 1  # as `embedding_bag` counts


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("size", [(MAX_SIDE + 1, 1), (1, MAX_SIDE + 1)])
def test_a_map_whose_pixels_int32_cannot_count_is_an_error(implementation: str, size: tuple[int, int]) -> None:
    x = torch.zeros(1).expand(1, 1, *size)
    offset, weight, points = (
        torch.zeros(1, 2, *(1 + side // MAX_SIDE for side in size)),
        torch.ones(1, 1, 1, 1),
        torch.zeros(1, 2),
    )
    with pytest.raises(ValueError, match=str(MAX_SIDE)):
        ak_conv2d(x, offset, weight, points=points, stride=MAX_SIDE, implementation=implementation)


@pytest.mark.slow
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("widens", [False, True])
def test_gradients_are_those_of_finite_differences(implementation: str, padding: str, widens: bool) -> None:
    rng = np.random.default_rng(3)
    points = torch.tensor(base_points(3), dtype=torch.float64)
    for stride in (1, 2):
        x = torch.from_numpy(rng.normal(size=(2, 3, 4, 5)))
        size = (4, 5) if stride == 1 else (2, 3)
        offset = torch.from_numpy(rng.integers(-2, 3, (2, 6, *size)) + rng.uniform(0.2, 0.8, (2, 6, *size)))
        weight = torch.from_numpy(rng.normal(size=(5 if widens else 2, 3, 3, 1)))
        bias = torch.from_numpy(rng.normal(size=weight.shape[0]))
        inputs = [t.requires_grad_() for t in (x, offset, weight, bias)]

        def run(*tensors: torch.Tensor, stride: int = stride) -> torch.Tensor:
            return ak_conv2d(*tensors, points=points, stride=stride, padding=padding, implementation=implementation)  # type: ignore[arg-type]

        assert torch.autograd.gradcheck(run, inputs)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_an_offset_that_is_no_number_spoils_its_own_pixel_only(implementation: str, value: float) -> None:
    for seed in range(6):
        x, offset, weight, points, stride = problem(seed)
        run = {"points": points, "stride": stride, "implementation": implementation}
        before = ak_conv2d(x, offset, weight, **run)
        offset[0, -1, -1, -1] = value
        after = ak_conv2d(x, offset, weight, **run)
        assert after[0, :, -1, -1].isnan().all()
        after[0, :, -1, -1] = before[0, :, -1, -1]
        assert torch.equal(after, before)


def test_the_choice_follows_argument_then_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    x = torch.empty(1, 1, 1, 1)
    assert choose(x) == ("cpu_kernel" if load(torch.float32) else "embedding_bag")
    assert choose(x.to("meta")) == "embedding_bag"
    monkeypatch.setenv(VARIABLE, "gather")
    assert choose(x) == "gather"
    assert choose(x, implementation="embedding_bag") == "embedding_bag"
    monkeypatch.setenv(VARIABLE, "bags")  # a name of version 0.1
    assert choose(x) == "embedding_bag"
    with pytest.raises(ValueError, match="'magic'"):
        choose(x, implementation="magic")
    with pytest.raises(ValueError, match="cpu_kernel"):
        choose(x.to("meta"), implementation="cpu_kernel")
    monkeypatch.setenv(VARIABLE, "cpu_kernel")
    assert choose(x.to("meta")) == "embedding_bag"


def moving_layer(padding: str) -> AKConv:
    layer = AKConv(3, 4, 5, 2, padding=padding).eval()
    torch.nn.init.normal_(layer.p_conv.weight, std=0.5)
    return layer


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("padding", PADDINGS)
def test_a_traced_layer_serves_sizes_never_traced(padding: str) -> None:
    layer = moving_layer(padding)
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(layer, torch.rand(2, 3, 8, 12)), buffer)
    buffer.seek(0)
    loaded = torch.jit.load(buffer)
    for shape in ((1, 3, 7, 16), (3, 3, 16, 5), (2, 3, 1, 9)):
        x = torch.rand(shape)
        torch.testing.assert_close(loaded(x), layer(x), atol=1e-5, rtol=0)


@pytest.mark.parametrize("gradients", [False, True])
def test_tensors_without_memory_give_shapes(gradients: bool) -> None:
    akconv = AKConv(3, 4, 5, 2)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.set_grad_enabled(gradients):
        y = akconv(mode.from_tensor(torch.rand(2, 3, 7, 10)))
    assert tuple(y.shape) == (2, 4, 4, 5)
