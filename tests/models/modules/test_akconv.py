"""AKConv against its definition in docs/akconv.md."""

import copy
import math
import os
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision.ops import deform_conv2d

from models.common import Conv
from models.modules import (
    AKConv,
    Bottleneck_AKConv,
    Bottleneck_LDConv,
    C3_AKConv,
    C3_LDConv,
    LDConv,
    ak_conv2d,
    base_points,
)
from tests.helpers.akconv_oracles import akconv_gather, akconv_pixelwise, initial_shape

NUM_CASES = int(os.environ.get("AKCONV_CASES", "200"))
OFFSET_KINDS = ("normal", "huge", "tiny", "integer", "border", "mixed")
LAYOUTS = ("contiguous", "channels_last", "sliced")
PADDINGS = ("border", "zeros")
BAD_NUM_POINTS = (0, -1, 1025, 10**6, 3.0, "3", True, None)
ROW_LENGTHS = {
    1: [1],
    2: [1, 1],
    3: [2, 1],
    4: [2, 2],
    5: [2, 2, 1],
    6: [2, 2, 2],
    7: [3, 3, 1],
    8: [3, 3, 2],
    9: [3, 3, 3],
    10: [3, 3, 3, 1],
    11: [3, 3, 3, 2],
    12: [3, 3, 3, 3],
    13: [4, 4, 4, 1],
}


def draw_offset(rng, kind, points, batch, size_hw, out_hw, stride):
    shape = (batch, 2 * len(points), *out_hw)
    if kind == "mixed":
        options = [draw_offset(rng, k, points, batch, size_hw, out_hw, stride) for k in OFFSET_KINDS[:-1]]
        return np.choose(rng.integers(len(options), size=shape), options)
    if kind == "normal":
        return rng.normal(0, 2, shape)
    if kind == "huge":
        return rng.choice([-1e30, 1e30], shape)
    if kind == "tiny":
        return rng.normal(0, 1e-30, shape)
    if kind == "integer":
        return rng.integers(-4, 5, shape).astype(float)
    offset = np.zeros(shape)  # bring each position to a border, or a millionth beside it
    for n, point in enumerate(points):
        for axis in (0, 1):
            first = np.arange(out_hw[axis]) * stride + point[axis]
            first = first[:, None] if axis == 0 else first[None]
            target = rng.choice([-1, 0, size_hw[axis] - 1, size_hw[axis]], (batch, *out_hw))
            offset[:, axis * len(points) + n] = target - first + rng.choice([-1e-6, 0, 1e-6], (batch, *out_hw))
    return offset


def random_case(seed):
    """Inputs rounded to float32, so that both precisions are given the same numbers."""
    rng = np.random.default_rng(seed)
    num_points, channels, out_channels = (int(v) for v in rng.integers(1, (26, 9, 5)))
    height, width = (int(v) for v in rng.choice(np.arange(1, 41), 2, replace=False))
    if seed % 10 == 0:
        height, width = ((1, max(width, 2)), (max(height, 2), 1))[seed // 10 % 2]
    stride, batch = int(rng.integers(1, 4)), int(rng.integers(0, 4))
    if num_points * height * width // stride**2 > 2000:  # the oracle is slow
        batch = min(batch, 1)
    points = initial_shape(num_points)
    if rng.random() < 0.4:
        points = [tuple(p) for p in rng.integers(-24, 25, (num_points, 2)) / 8]
    out_hw = ((height - 1) // stride + 1, (width - 1) // stride + 1)
    kind = OFFSET_KINDS[seed % len(OFFSET_KINDS)]
    offset = draw_offset(rng, kind, points, batch, (height, width), out_hw, stride)
    x = rng.normal(size=(batch, channels, height, width))
    weight = rng.normal(size=(out_channels, channels, num_points, 1))
    x, offset, weight = (array.astype(np.float32).astype(np.float64) for array in (x, offset, weight))
    options = {"stride": stride, "padding": PADDINGS[int(rng.integers(2))]}
    return x, offset, weight, points, options, LAYOUTS[int(rng.integers(3))]


def lay_out(x, layout):
    if layout == "channels_last":
        return x.contiguous(memory_format=torch.channels_last)
    if layout == "sliced":
        roomy = x.new_full((x.shape[0], x.shape[1] + 2, 2 * x.shape[2] + 1, x.shape[3] + 3), torch.nan)
        view = roomy[:, 1:-1, 1::2, 2:-1]
        view.copy_(x)
        return view
    return x.clone()


def draw_inputs(*, points, size_hw, channels=3, out_channels=4, batch=2, stride=1, spread=2.0):
    """Float64 x, offset, weight, points."""
    out_hw = [(v - 1) // stride + 1 for v in size_hw]
    return (
        torch.randn(batch, channels, *size_hw, dtype=torch.float64),
        torch.randn(batch, 2 * len(points), *out_hw, dtype=torch.float64) * spread,
        torch.randn(out_channels, channels, len(points), 1, dtype=torch.float64),
        torch.tensor(points, dtype=torch.float64),
    )


def assert_near(actual, expected, *, tolerance):
    assert actual.shape == expected.shape
    scale = expected.abs().max().item() if expected.numel() else 1.0
    assert (actual - expected).abs().max().item() <= tolerance * scale if expected.numel() else True


@pytest.mark.parametrize("seed", range(NUM_CASES))
def test_forward_equals_the_pixelwise_oracle(seed):
    x, offset, weight, points, options, layout = random_case(seed)
    expected, scale = akconv_pixelwise(x, offset, weight, points, **options)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 2e-5)):
        tensors = [torch.from_numpy(array).to(dtype) for array in (x, offset, weight)]
        y = ak_conv2d(lay_out(tensors[0], layout), *tensors[1:], points=torch.tensor(points, dtype=dtype), **options)
        assert y.dtype == dtype
        assert y.shape == expected.shape
        assert np.abs(y.double().numpy() - expected).max(initial=0) <= tolerance * scale


@pytest.mark.parametrize("seed", range(0, 60, 3))
def test_the_two_oracles_agree(seed):
    x, offset, weight, points, options, _ = random_case(seed)
    expected, scale = akconv_pixelwise(x, offset, weight, points, **options)
    y = akconv_gather(*(torch.from_numpy(array) for array in (x, offset, weight)), points, **options)
    assert np.abs(y.numpy() - expected).max(initial=0) <= 1e-12 * scale


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize(("stride", "num_points"), [(1, 1), (2, 3), (1, 5), (3, 9)])
def test_gradients_equal_those_of_the_gather_oracle(layout, padding, stride, num_points):
    points = initial_shape(num_points)
    x, offset, weight, points_tensor = draw_inputs(points=points, size_hw=(9, 7), stride=stride)
    inputs = [tensor.requires_grad_() for tensor in (lay_out(x, layout), offset, weight)]
    expected = akconv_gather(*inputs, points, stride=stride, padding=padding)
    y = ak_conv2d(*inputs, points=points_tensor, stride=stride, padding=padding)
    upstream = torch.randn_like(expected)
    for actual, wanted in zip(
        torch.autograd.grad(y, inputs, upstream), torch.autograd.grad(expected, inputs, upstream), strict=True
    ):
        assert_near(actual, wanted, tolerance=1e-12)


@pytest.mark.parametrize("seed", range(100))
def test_gradcheck_away_from_integer_positions(seed):
    rng = np.random.default_rng(seed)
    num_points, channels, stride = (int(v) for v in rng.integers(1, (5, 3, 3)))
    height, width = (int(v) for v in rng.choice(np.arange(1, 4), 2, replace=False))
    out_hw = ((height - 1) // stride + 1, (width - 1) // stride + 1)
    shape = (1, 2 * num_points, *out_hw)
    offset = torch.tensor(rng.integers(-3, 3, shape) + rng.uniform(0.1, 0.9, shape))
    x = torch.tensor(rng.normal(size=(1, channels, height, width)))
    weight = torch.tensor(rng.normal(size=(2, channels, num_points, 1)))
    points = torch.tensor(initial_shape(num_points), dtype=torch.float64)

    def operator(*inputs):
        return ak_conv2d(*inputs, points=points, stride=stride, padding=PADDINGS[seed % 2])

    assert torch.autograd.gradcheck(operator, [tensor.requires_grad_() for tensor in (x, offset, weight)])


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        pytest.param(0.0, 1.0),
        (1.0, 3.0),
        (2.0, 5.0),
        (3.0, 0.0),
        (-0.5, 0.0),
        (3.5, 0.0),
        (2.5, 5.0),
    ],
)
def test_offset_gradient_at_integers_is_the_slope_to_the_right_and_zero_beyond_the_border(column, expected):
    x = torch.tensor([[[[0.0, 1.0, 4.0, 9.0]]]], dtype=torch.float64).expand(1, 1, 2, 4)
    offset = torch.zeros(1, 2, 2, 4, dtype=torch.float64)
    offset[0, 1, 0, 0] = column
    offset.requires_grad_()
    weight = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    ak_conv2d(x, offset, weight, points=torch.zeros(1, 2, dtype=torch.float64))[0, 0, 0, 0].backward()
    assert offset.grad[0, 1, 0, 0] == expected
    assert offset.grad.count_nonzero() == (expected != 0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", ["top_left", "centered"])
def test_a_map_of_ones_stays_ones_in_border_mode(dtype, shape):
    for num_points, stride in ((1, 1), (3, 2), (5, 1), (9, 3), (13, 1)):
        points = AKConv(1, 1, num_points, points=shape).points
        x = torch.ones(2, 1, 11, 6, dtype=dtype)
        out_hw = [(v - 1) // stride + 1 for v in (11, 6)]
        offset = torch.randn(2, 2 * num_points, *out_hw).mul(4).to(dtype)
        for n in range(num_points):
            weight = torch.zeros(1, 1, num_points, 1, dtype=dtype)
            weight[0, 0, n] = 1
            y = ak_conv2d(x, offset, weight, points=points, stride=stride)
            torch.testing.assert_close(y, torch.ones_like(y), rtol=0, atol=1e-6)


def test_zeros_mode_reads_zero_a_pixel_outside_and_fades_towards_it():
    x = torch.ones(1, 1, 2, 3, dtype=torch.float64)
    offset = torch.zeros(1, 2, 2, 3, dtype=torch.float64)
    offset[0, 1, 0] = torch.tensor([-1.0, -1.25, -3.0])  # positions -1, -0.25, -1 of columns 0 to 2
    offset[0, 0, 1] = torch.tensor([0.25, 1.0, -2.5])  # positions 1.25, 2, -1.5 of rows 0 to 1
    y = ak_conv2d(x, offset, torch.ones(1, 1, 1, 1).double(), points=torch.zeros(1, 2), padding="zeros")
    assert y[0, 0].tolist() == [[0.0, 0.75, 0.0], [0.75, 0.0, 0.0]]


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_nonfinite_offset_spoils_its_own_pixel_only(padding, value):
    rng = np.random.default_rng(7)
    for _ in range(25):
        num_points, stride = int(rng.integers(1, 8)), int(rng.integers(1, 4))
        height, width = (int(v) for v in rng.choice(np.arange(1, 9), 2, replace=False))
        x, offset, weight, points = draw_inputs(
            points=initial_shape(num_points), size_hw=(height, width), stride=stride, batch=3
        )
        x, offset, weight, points = (tensor.float() for tensor in (x, offset, weight, points))
        clean = ak_conv2d(x, offset, weight, points=points, stride=stride, padding=padding)
        b, channel, i, j = (int(rng.integers(size)) for size in offset.shape)
        offset[b, channel, i, j] = value
        y = ak_conv2d(x, offset, weight, points=points, stride=stride, padding=padding)
        spoiled = torch.zeros(y.shape, dtype=torch.bool)
        spoiled[b, :, i, j] = True
        assert torch.equal(~y.isfinite(), spoiled)
        torch.testing.assert_close(y[~spoiled], clean[~spoiled])


def test_backward_through_a_nonfinite_offset_reads_nothing_out_of_bounds():
    x, offset, weight, points = draw_inputs(points=initial_shape(3), size_hw=(5, 8))
    offset[1, 2, 4, 7] = math.nan
    offset[1, 4, 0, 3] = math.inf
    inputs = [tensor.requires_grad_() for tensor in (x, offset, weight)]
    ak_conv2d(*inputs, points=points).nansum().backward()
    assert x.grad[0].isfinite().all()  # the other image


def test_a_nan_in_the_image_reaches_only_outputs_that_read_it():
    layer = AKConv(2, 3, 5).eval()
    x = torch.randn(1, 2, 12, 17)
    x[0, 1, 6, 8] = math.nan
    bad = ~layer(x).isfinite()
    assert bad.any()
    bad[:, :, 3:8, 5:10] = False  # the offsets' 3x3 window, and points up to 2 rows and 1 column away
    assert not bad.any()


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize(("padding", "mode"), [("border", "replicate"), ("zeros", "constant")])
@pytest.mark.parametrize(("shape", "before"), [("top_left", 0), ("centered", 1)])
def test_nine_points_without_offsets_equal_a_3x3_convolution(stride, padding, mode, shape, before):
    points = AKConv(1, 1, 9, points=shape).points.double().tolist()
    x, offset, weight, points = draw_inputs(points=points, size_hw=(10, 7), stride=stride, spread=0)
    window = F.pad(x, (before, 2 - before, before, 2 - before), mode)
    expected = F.conv2d(window, weight.view(4, 3, 3, 3), stride=stride)
    y = ak_conv2d(x, offset, weight, points=points, stride=stride, padding=padding)
    assert_near(y, expected, tolerance=1e-14)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_one_point_without_offsets_equals_a_1x1_convolution(padding, stride):
    x, offset, weight, points = draw_inputs(points=[(0, 0)], size_hw=(4, 6), stride=stride, spread=0)
    bias = torch.randn(4, dtype=torch.float64)
    y = ak_conv2d(x, offset, weight, bias, points=points, stride=stride, padding=padding)
    assert_near(y, F.conv2d(x, weight, bias, stride), tolerance=1e-14)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_nine_points_with_zeros_padding_equal_torchvisions_deformable_convolution(stride):
    points = [(r, c) for r in (-1, 0, 1) for c in (-1, 0, 1)]
    x, offset, weight, points = draw_inputs(points=points, size_hw=(8, 13), stride=stride, spread=3)
    pairs = torch.stack(offset.chunk(2, 1), 2).flatten(1, 2)  # row, column of point 0, row, column of point 1...
    expected = deform_conv2d(x, pairs, weight.view(4, 3, 3, 3), stride=stride, padding=1)
    y = ak_conv2d(x, offset, weight, points=points, stride=stride, padding="zeros")
    assert_near(y, expected, tolerance=1e-12)


@pytest.mark.parametrize("size_hw", [(1, 6), (6, 1), (1, 2)])
@pytest.mark.parametrize("padding", PADDINGS)
def test_maps_one_pixel_wide(size_hw, padding):
    points = initial_shape(4)
    x, offset, weight, points_tensor = draw_inputs(points=points, size_hw=size_hw)
    y = ak_conv2d(x, offset, weight, points=points_tensor, padding=padding)
    expected, scale = akconv_pixelwise(x, offset, weight, points, stride=1, padding=padding)
    assert np.abs(y.numpy() - expected).max() <= 1e-13 * scale


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    num_points=st.integers(1, 13),
    height=st.integers(1, 12),
    more=st.integers(1, 6),
    stride=st.integers(1, 3),
    padding=st.sampled_from(PADDINGS),
)
def test_transposing_everything_transposes_the_output(num_points, height, more, stride, padding):
    x, offset, weight, points = draw_inputs(
        points=initial_shape(num_points), size_hw=(height, height + more), stride=stride
    )
    y = ak_conv2d(x, offset, weight, points=points, stride=stride, padding=padding)
    rows, columns = offset.chunk(2, 1)
    turned = torch.cat((columns, rows), 1).mT
    y_turned = ak_conv2d(x.mT, turned, weight, points=points.flip(1), stride=stride, padding=padding)
    assert_near(y_turned, y.mT, tolerance=1e-12)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(batch=st.permutations(range(4)), channels=st.permutations(range(5)), points=st.permutations(range(6)))
def test_permuting_images_channels_or_points_changes_nothing_else(batch, channels, points):
    x, offset, weight, shape = draw_inputs(points=initial_shape(6), size_hw=(5, 9), channels=5, batch=4)
    y = ak_conv2d(x, offset, weight, points=shape)
    rows, columns = offset.chunk(2, 1)
    moved = torch.cat((rows[:, points], columns[:, points]), 1)
    y_moved = ak_conv2d(
        x[batch][:, channels], moved[batch], weight[:, channels][:, :, points], points=shape[list(points)]
    )
    assert_near(y_moved, y[batch], tolerance=1e-13)


@pytest.mark.parametrize("padding", PADDINGS)
def test_moving_the_map_a_pixel_moves_the_inside_of_the_output(padding):
    x, offset, weight, points = draw_inputs(points=initial_shape(5), size_hw=(14, 19), spread=0)
    offset += torch.randint(-128, 129, offset.shape) / 64
    y = ak_conv2d(x, offset, weight, points=points, padding=padding)
    y_moved = ak_conv2d(x.roll((1, 1), (2, 3)), offset.roll((1, 1), (2, 3)), weight, points=points, padding=padding)
    torch.testing.assert_close(y_moved[:, :, 4:-6, 4:-6], y[:, :, 3:-7, 3:-7], rtol=0, atol=1e-13)


@pytest.mark.parametrize("size_hw", [(3, 4096), (4096, 2)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_positions_of_half_precision_maps_are_exact_at_4096_pixels(dtype, size_hw):
    points = initial_shape(3)
    x, offset, weight, points_tensor = draw_inputs(points=points, size_hw=size_hw, batch=1)
    x, offset, weight = (tensor.to(dtype) for tensor in (x, offset, weight))
    y = ak_conv2d(x, offset, weight, points=points_tensor.float())
    assert y.dtype == dtype
    wide = [tensor.double() for tensor in (x, offset, weight)]
    expected = akconv_gather(*wide, points, stride=1, padding="border")
    magnitude = akconv_gather(wide[0].abs(), wide[1], wide[2].abs(), points, stride=1, padding="border")
    assert ((y.double() - expected).abs() <= (1e-3 + torch.finfo(dtype).eps) * magnitude.max()).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_keeps_positions_exact_on_a_wide_map(dtype):
    layer = AKConv(2, 3, 2, act=False).eval()
    nn.init.constant_(layer.p_conv.bias, 0.5)
    x = torch.randn(1, 2, 3, 4096)
    expected = layer(x)
    with torch.autocast("cpu", dtype):
        y = layer(x)
    assert_near(y.float(), expected, tolerance=2e-2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_output_has_the_dtype_of_the_input(dtype):
    layer = AKConv(2, 3, 5, 2).to(dtype).eval()
    y = layer(torch.randn(1, 2, 9, 6).to(dtype))
    assert y.dtype == dtype
    assert y.shape == (1, 3, 5, 3)
    assert y.isfinite().all()


def test_forward_and_backward_repeat_bit_for_bit():
    x, offset, weight, points = draw_inputs(points=initial_shape(5), size_hw=(15, 22), channels=8)
    inputs = [tensor.float().requires_grad_() for tensor in (x, offset, weight)]
    runs = []
    for _ in range(2):
        y = ak_conv2d(*inputs, points=points)
        runs.append((y.detach(), *torch.autograd.grad(y.square().sum(), inputs)))
    assert all(torch.equal(first, second) for first, second in zip(*runs, strict=True))


def test_inputs_are_left_as_they_were():
    x, offset, weight, points = draw_inputs(points=initial_shape(3), size_hw=(4, 7))
    before = [tensor.clone() for tensor in (x, offset, weight, points)]
    ak_conv2d(x, offset, weight, points=points)
    assert all(torch.equal(a, b) for a, b in zip(before, (x, offset, weight, points), strict=True))


@pytest.mark.parametrize(
    ("shape", "points", "stride", "padding", "bias"),
    [
        (None, [(0, 0)], 1, "border", None),
        ("top_left", [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)], 2, "border", True),
        ("centered", [(0, 0), (0, 1), (1, 0)], 3, "zeros", False),
        ([[0, 0], [1, 1], [2, 2], [3, 3], [4, 4]], [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4)], 1, "border", None),
        ([(-0.5, 0.25), (1.5, -2)], [(-0.5, 0.25), (1.5, -2)], 2, "zeros", None),
    ],
)
def test_module_is_offsets_then_operator_then_batch_norm_then_silu(shape, points, stride, padding, bias):
    layer = AKConv(3, 4, len(points), stride, bias, points=shape, padding=padding).double().eval()
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    norm = layer.conv[1]
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    x = torch.randn(2, 3, 9, 6, dtype=torch.float64)
    offset = F.conv2d(x, layer.p_conv.weight, layer.p_conv.bias, stride, 1)
    y = akconv_gather(x, offset, layer.conv[0].weight, points, stride=stride, padding=padding)
    assert (layer.conv[0].bias is not None) is bool(bias)
    if bias:
        y = y + layer.conv[0].bias[:, None, None]
    mean, scale = norm.running_mean, norm.weight / (norm.running_var + 1e-3).sqrt()
    y = (y - mean[:, None, None]) * scale[:, None, None] + norm.bias[:, None, None]
    assert_near(layer(x), y * y.sigmoid(), tolerance=1e-12)


def test_offsets_start_at_zero_and_learn():
    layer = AKConv(3, 4, 3)
    assert layer.p_conv.weight.count_nonzero() == 0
    assert layer.p_conv.bias.count_nonzero() == 0
    layer(torch.randn(2, 3, 8, 5)).square().sum().backward()
    assert layer.p_conv.weight.grad.count_nonzero() > 0
    assert layer.p_conv.bias.grad.count_nonzero() > 0


def test_state_dict_names_and_shapes():
    shapes = {name: tuple(tensor.shape) for name, tensor in AKConv(3, 7, 5).state_dict().items()}
    assert shapes == {
        "conv.0.weight": (7, 3, 5, 1),
        "conv.1.weight": (7,),
        "conv.1.bias": (7,),
        "conv.1.running_mean": (7,),
        "conv.1.running_var": (7,),
        "conv.1.num_batches_tracked": (),
        "p_conv.weight": (10, 3, 3, 3),
        "p_conv.bias": (10,),
    }
    assert set(AKConv(3, 7, 5, bias=True).state_dict()) - set(shapes) == {"conv.0.bias"}


def test_activation_is_none_or_a_copy_on_request():
    example = nn.LeakyReLU(0.3)
    layer = AKConv(2, 3, 1, act=example)
    assert isinstance(layer.conv[2], nn.LeakyReLU)
    assert layer.conv[2] is not example
    assert isinstance(AKConv(2, 3, 1).conv[2], nn.SiLU)
    assert AKConv(2, 3, 1, act=False).eval()(torch.randn(1, 2, 4, 9)).min() < -0.3  # below SiLU's least value


def test_a_deep_copy_is_equal_and_independent():
    layer = AKConv(2, 3, 2, points=[(0.1, 0.2), (-1, 0.7)]).eval()
    duplicate = copy.deepcopy(layer)
    x = torch.randn(1, 2, 6, 4)
    expected = layer(x)
    torch.testing.assert_close(duplicate(x), expected, rtol=0, atol=0)
    nn.init.constant_(duplicate.p_conv.bias, 1.3)
    nn.init.constant_(duplicate.points, 0)
    assert not torch.equal(duplicate(x), expected)
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_the_points_exact(dtype):
    points = [(0.1, 1023.3), (-7.7, 2.0)]
    for layer in (AKConv(2, 3, 2, points=points).to(dtype), nn.Sequential(AKConv(2, 3, 2, points=points)).to(dtype)[0]):
        assert layer.conv[0].weight.dtype == dtype
        assert layer.points.dtype == torch.float32
        assert torch.equal(layer.points, torch.tensor(points))
        assert torch.equal(layer.float().points, torch.tensor(points))


@pytest.mark.parametrize("case", range(16))
def test_published_operator_agrees_where_every_position_lies_inside(case, reference):
    with np.load(reference / "akconv.npz") as arrays:
        data = {key.partition("_")[2]: arrays[key] for key in arrays.files if key.startswith(f"case{case}_")}
    layer = AKConv(3, data["y"].shape[1], int(data["n"]), int(data["stride"])).eval()
    names = {
        "p_conv.weight": "p_conv_weight",
        "p_conv.bias": "p_conv_bias",
        "conv.0.weight": "conv_weight",
        "conv.1.weight": "bn_weight",
        "conv.1.bias": "bn_bias",
        "conv.1.running_mean": "bn_mean",
        "conv.1.running_var": "bn_var",
    }
    state = {ours: torch.from_numpy(data[theirs]) for ours, theirs in names.items()}
    layer.conv[1].eps = 1e-5
    layer.load_state_dict(state, strict=False)  # all but num_batches_tracked
    y = layer(torch.from_numpy(data["x"])).detach().numpy()
    valid = np.broadcast_to(data["y_valid"][:, None], y.shape)
    assert valid.mean() > 0.2
    assert np.abs(y - data["y"])[valid].max() <= 1e-5 * np.abs(data["y"][valid]).max()


@pytest.mark.parametrize("num_points", ROW_LENGTHS)
def test_initial_points_by_hand(num_points):
    expected = [(r, c) for r, length in enumerate(ROW_LENGTHS[num_points]) for c in range(length)]
    assert base_points(num_points) == expected
    assert AKConv(1, 1, num_points).points.tolist() == [list(point) for point in expected]


def test_initial_points_of_five_as_written_in_the_definition():
    assert base_points(5) == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]


def test_initial_points_follow_algorithm_1_up_to_1024():
    assert all(base_points(n) == initial_shape(n) for n in range(1, 1025))


def test_centered_points_move_the_shape_onto_the_output_pixel():
    assert AKConv(1, 1, 9, points="centered").points.tolist() == [[r, c] for r in (-1, 0, 1) for c in (-1, 0, 1)]
    assert AKConv(1, 1, 5, points="centered").points.tolist() == [[-1, 0], [-1, 1], [0, 0], [0, 1], [1, 0]]
    assert AKConv(1, 1, 1, points="centered").points.tolist() == [[0, 0]]


@pytest.mark.parametrize("num_points", BAD_NUM_POINTS)
def test_a_wrong_number_of_points_is_refused(num_points):
    with pytest.raises(ValueError, match=r"1024.*" + re.escape(repr(num_points))):
        base_points(num_points)
    with pytest.raises(ValueError, match=r"1024.*" + re.escape(repr(num_points))):
        AKConv(3, 4, num_points)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stride": 0}, "stride.* 0$"),
        ({"stride": -2}, "stride.* -2$"),
        ({"stride": 1.5}, "stride.* 1.5$"),
        ({"stride": True}, "stride.* True$"),
        ({"padding": "reflect"}, "reflect"),
        ({"points": "middle"}, "'middle'"),
        ({"points": [(0, 0)]}, "2 .* 1$"),
        ({"points": [(0, 0), (1, 1), (2, 2)]}, "2 .* 3$"),
        ({"points": [(0, 0), (1, 2, 3)]}, "point"),
        ({"points": [(0, 0), 1]}, "point"),
        ({"points": [(0, 0), ("a", "b")]}, "point"),
        ({"points": [(0, 0), (math.nan, 0)]}, "point"),
        ({"points": [(0, 0), (0, math.inf)]}, "point"),
        pytest.param({"points": [(0, 0), (0, 1e39)]}, "point"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        AKConv(3, 4, 2, **arguments)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("weight", (4, 2, 3, 1), r"weight .*\(O, 3, 3, 1\), got \(4, 2, 3, 1\)"),
        ("weight", (4, 3, 2, 1), r"weight .*\(O, 3, 3, 1\)"),
        ("weight", (4, 3, 1, 3), r"weight .*\(O, 3, 3, 1\)"),
        ("offset", (2, 6, 7, 5), r"offset .*\(2, 6, 5, 7\), got \(2, 6, 7, 5\)"),
        ("offset", (2, 4, 5, 7), r"offset .*\(2, 6, 5, 7\)"),
        ("offset", (1, 6, 5, 7), r"offset .*\(2, 6, 5, 7\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(name, shape, message):
    x, offset, weight, points = draw_inputs(points=initial_shape(3), size_hw=(5, 7))
    given_tensors = {"offset": offset, "weight": weight, name: torch.zeros(shape, dtype=torch.float64)}
    with pytest.raises(ValueError, match=message):
        ak_conv2d(x, **given_tensors, points=points)


def test_ldconv_is_another_name_for_the_same_modules():
    assert LDConv is AKConv
    assert Bottleneck_LDConv is Bottleneck_AKConv
    assert C3_LDConv is C3_AKConv


def test_bottleneck_has_akconv_with_three_points_second_and_adds_its_input():
    block = Bottleneck_AKConv(8, 8, e=1.0).eval()
    assert isinstance(block.cv2, AKConv)
    assert block.cv2.num_param == 3
    x = torch.randn(1, 8, 5, 9)
    torch.testing.assert_close(block(x), x + block.cv2(block.cv1(x)))
    assert not Bottleneck_AKConv(8, 8, shortcut=False).add
    with pytest.raises(ValueError, match="g=2"):
        Bottleneck_AKConv(8, 8, g=2)


@pytest.mark.parametrize(
    "make", [lambda **more: Bottleneck_AKConv(8, 8, **more), lambda **more: C3_AKConv(8, 16, 2, **more)]
)
def test_blocks_forward_points_shape_and_padding_and_refuse_what_akconv_refuses(make):
    def within(block):
        return [layer for layer in block.modules() if isinstance(layer, AKConv)]

    plain = within(make())
    changed = within(make(num_param=2, points=[[0, 0], [-1, 2]], padding="zeros"))
    assert len(changed) == len(plain) >= 1
    for layer, default in zip(changed, plain, strict=True):
        assert (layer.num_param, layer.padding, layer.points.tolist()) == (2, "zeros", [[0, 0], [-1, 2]])
        assert (default.num_param, default.padding) == (3, "border")
        assert default.points.tolist() == [[0, 0], [0, 1], [1, 0]]
    for wrong in ({"padding": "reflect"}, {"num_param": 0}, {"points": [[0, 0]]}):
        with pytest.raises(ValueError, match=r"padding|points"):
            make(**wrong)


def test_c3_akconv_draws_its_weights_in_the_order_of_c3():
    """A seed goes on to mean the weights that it always meant, in the same places."""
    torch.manual_seed(5)
    block = C3_AKConv(6, 16, 2, False)
    torch.manual_seed(5)
    parts = {"cv1": Conv(6, 8), "cv2": Conv(6, 8), "cv3": Conv(16, 16)}
    parts["m"] = nn.Sequential(*(Bottleneck_AKConv(8, 8, False, e=1.0) for _ in range(2)))
    expected = nn.ModuleDict(parts).state_dict()
    assert list(block.state_dict()) == list(expected)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in block.state_dict().items())


def test_c3_akconv_is_c3_made_of_those_bottlenecks():
    block = C3_AKConv(6, 16, 2, False)
    assert [type(inner) for inner in block.m] == [Bottleneck_AKConv] * 2
    assert [inner.cv2.conv[0].weight.shape for inner in block.m] == [(8, 8, 3, 1)] * 2
    assert not any(inner.add for inner in block.m)
    assert block(torch.randn(2, 6, 7, 4)).shape == (2, 16, 7, 4)
