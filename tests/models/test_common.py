"""The standard blocks: shapes, and values against formulas written out."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models import common
from models.modules import Bottleneck_AKConv, C3_AKConv
from models.modules.c3tr import C3TR

SIZE = (2, 8, 12, 16)
SHAPES = [
    (common.Conv, (8, 16), (16, 12, 16)),
    (common.Conv, (8, 16, 3, 2), (16, 6, 8)),
    (common.Conv, (8, 16, 6, 2, 2), (16, 6, 8)),
    (common.Conv, (8, 16, 5, 3), (16, 4, 6)),
    (common.Conv, (8, 16, 3, 1, None, 4), (16, 12, 16)),
    (common.Conv, (8, 16, 3, 1, None, 1, 2), (16, 12, 16)),
    (common.DWConv, (8, 12, 3, 2), (12, 6, 8)),
    (common.Bottleneck, (8, 16), (16, 12, 16)),
    (common.Bottleneck, (8, 8, True, 2, 1.0), (8, 12, 16)),
    (common.BottleneckCSP, (8, 16, 2), (16, 12, 16)),
    (common.C3, (8, 16, 2), (16, 12, 16)),
    (common.C3x, (8, 16, 2), (16, 12, 16)),
    (common.C3SPP, (8, 16, (5, 9)), (16, 12, 16)),
    (common.C3Ghost, (8, 16, 2), (16, 12, 16)),
    (C3TR, (8, 16, 2), (16, 12, 16)),
    (C3_AKConv, (8, 16, 2), (16, 12, 16)),
    (Bottleneck_AKConv, (8, 16), (16, 12, 16)),
    (common.CrossConv, (8, 16), (16, 12, 16)),
    (common.CrossConv, (8, 16, 3, 2), (16, 6, 8)),
    (common.SPP, (8, 16), (16, 12, 16)),
    (common.SPPF, (8, 16), (16, 12, 16)),
    (common.Focus, (8, 16, 3), (16, 6, 8)),
    (common.GhostConv, (8, 16, 3, 2), (16, 6, 8)),
    (common.GhostBottleneck, (8, 8), (8, 12, 16)),
    (common.GhostBottleneck, (8, 16, 3, 2), (16, 6, 8)),
    (common.Contract, (2,), (32, 6, 8)),
    (common.Contract, (4,), (128, 3, 4)),
    (common.Expand, (2,), (2, 24, 32)),
]


def settle(module):
    """Random normalisation statistics, so that evaluation mode is no identity."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
            nn.init.normal_(layer.weight)
            nn.init.normal_(layer.bias)
    return module.eval()


@pytest.mark.parametrize(("block", "args", "expected"), SHAPES)
def test_shapes_and_gradients(block, args, expected):
    x = torch.randn(SIZE, requires_grad=True)
    module = block(*args)
    y = module(x)
    assert y.shape == (2, *expected)
    y.square().sum().backward()
    assert x.grad.count_nonzero() > 0
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_odd_sizes_round_up_at_stride_2():
    assert common.Conv(3, 4, 3, 2)(torch.randn(2, 3, 13, 9)).shape == (2, 4, 7, 5)


def test_conv_is_convolution_batch_norm_silu():
    layer = settle(common.Conv(3, 4, 3, 2))
    x = torch.randn(2, 3, 9, 14)
    y = F.conv2d(x, layer.conv.weight, None, 2, 1)
    y = (y - layer.bn.running_mean[:, None, None]) / (layer.bn.running_var[:, None, None] + 1e-3).sqrt()
    y = y * layer.bn.weight[:, None, None] + layer.bn.bias[:, None, None]
    torch.testing.assert_close(layer(x), y * y.sigmoid())


def test_batch_norm_moves_by_three_hundredths():
    layer = common.Conv(1, 1)
    nn.init.ones_(layer.conv.weight)
    layer(torch.full((2, 1, 4, 6), 10.0))
    assert layer.bn.running_mean.item() == pytest.approx(0.3)
    assert layer.bn.eps == 1e-3


@pytest.mark.parametrize(("act", "kind"), [(True, nn.SiLU), (False, nn.Identity), (nn.LeakyReLU(0.2), nn.LeakyReLU)])
def test_activation_goes_to_every_part_as_a_module_of_its_own(act, kind):
    for block, args, _ in SHAPES:
        if block in (common.Contract, common.Expand):
            continue
        found = [m for m in block(*args, act=act).modules() if isinstance(m, (nn.SiLU, nn.LeakyReLU))]
        assert all(isinstance(m, kind) and m is not act for m in found)
        assert bool(found) is not (act is False)


@pytest.mark.parametrize(("c1", "c2", "shortcut", "added"), [(8, 8, True, 1), (8, 8, False, 0), (8, 6, True, 0)])
def test_bottleneck_adds_its_input_when_asked_and_possible(c1, c2, shortcut, added):
    block = settle(common.Bottleneck(c1, c2, shortcut))
    x = torch.randn(1, c1, 5, 7)
    y = block.cv2(block.cv1(x))
    torch.testing.assert_close(block(x), y + x if added else y)
    assert block.cv1.conv.weight.shape == (c2 // 2, c1, 1, 1)
    assert block.cv2.conv.weight.shape == (c2, c2 // 2, 3, 3)


@pytest.mark.parametrize("block", [common.C3, common.C3x, common.C3Ghost, C3_AKConv, C3TR, common.C3SPP])
def test_c3_joins_the_inner_blocks_before_the_bypass(block):
    layer = settle(block(8, 16))
    x = torch.randn(1, 8, 5, 7)
    expected = layer.cv3(torch.cat((layer.m(layer.cv1(x)), layer.cv2(x)), 1))
    torch.testing.assert_close(layer(x), expected)
    assert layer.cv1.conv.weight.shape == (8, 8, 1, 1)
    assert layer.cv3.conv.weight.shape == (16, 16, 1, 1)


def test_bottleneck_csp_formula():
    layer = settle(common.BottleneckCSP(8, 16, 2))
    x = torch.randn(1, 8, 5, 7)
    both = torch.cat((layer.cv3(layer.m(layer.cv1(x))), layer.cv2(x)), 1)
    torch.testing.assert_close(layer(x), layer.cv4(F.silu(layer.bn(both))))


def test_sppf_equals_spp_with_the_same_weights():
    fast, slow = settle(common.SPPF(8, 6, 5)), common.SPP(8, 6, (5, 9, 13)).eval()
    slow.load_state_dict(fast.state_dict())
    x = torch.randn(2, 8, 17, 23)
    assert torch.equal(fast(x), slow(x))


def test_spp_pools_do_not_see_padding():
    layer = common.SPP(2, 4, (3, 5))
    assert [pool(torch.full((1, 1, 3, 4), -2.0)).unique().item() for pool in layer.m] == [-2.0, -2.0]


@pytest.mark.parametrize("gain", [2, 3])
def test_contract_and_expand_undo_each_other(gain):
    x = torch.randn(2, 2 * gain**2, 2 * gain, 5 * gain)
    contract, expand = common.Contract(gain), common.Expand(gain)
    assert torch.equal(expand(contract(x)), x)
    assert torch.equal(contract(expand(x)), x)


@pytest.mark.parametrize("gain", [2, 3])
def test_contract_puts_each_neighbour_into_its_own_channels(gain):
    x = torch.randn(2, 5, 2 * gain, 4 * gain)
    parts = common.Contract(gain)(x).chunk(gain**2, 1)
    for place, part in enumerate(parts):
        assert torch.equal(part, x[:, :, place // gain :: gain, place % gain :: gain])


def test_focus_orders_neighbours_top_left_bottom_left_top_right_bottom_right():
    layer = common.Focus(1, 4, act=False).eval()
    layer.conv.conv.weight.data = torch.eye(4)[:, :, None, None]
    x = torch.tensor([[[[1.0, 2.0, 5.0, 6.0], [3.0, 4.0, 7.0, 8.0]]]])
    expected = torch.tensor([[1.0, 5.0], [3.0, 7.0], [2.0, 6.0], [4.0, 8.0]]).view(1, 4, 1, 2)
    torch.testing.assert_close(layer(x), expected / (1 + 1e-3) ** 0.5)


def test_concat_joins_along_its_dimension():
    parts = [torch.randn(2, 3, 4, 6), torch.randn(2, 5, 4, 6)]
    assert torch.equal(common.Concat()(parts), torch.cat(parts, 1))
    assert common.Concat(3)([parts[0], parts[0]]).shape == (2, 3, 4, 12)


def test_depthwise_convolution_has_as_many_groups_as_channels_allow():
    assert common.DWConv(8, 12, 3).conv.groups == 4
    assert common.DWConv(8, 8, 3).conv.weight.shape == (8, 1, 3, 3)


def test_ghost_convolution_makes_its_second_half_from_the_first():
    layer = settle(common.GhostConv(4, 6, 3))
    x = torch.randn(1, 4, 5, 7)
    y = layer(x)
    torch.testing.assert_close(y[:, :3], layer.cv1(x))
    torch.testing.assert_close(y[:, 3:], layer.cv2(y[:, :3]))
    assert layer.cv2.conv.groups == 3


@pytest.mark.parametrize("stride", [1, 2])
def test_ghost_bottleneck_adds_a_shortcut(stride):
    layer = settle(common.GhostBottleneck(8, 8, 3, stride))
    x = torch.randn(1, 8, 6, 10)
    torch.testing.assert_close(layer(x), layer.conv(x) + (layer.shortcut(x) if stride == 2 else x))


def test_cross_convolution_is_a_row_then_a_column():
    layer = settle(common.CrossConv(4, 4, 3, shortcut=True))
    assert layer.cv1.conv.weight.shape[2:] == (1, 3)
    assert layer.cv2.conv.weight.shape[2:] == (3, 1)
    x = torch.randn(1, 4, 5, 8)
    torch.testing.assert_close(layer(x), x + layer.cv2(layer.cv1(x)))


def test_transformer_block_treats_pixels_as_a_set_and_images_apart():
    layer = settle(C3TR(8, 16))
    x = torch.randn(2, 8, 5, 7)
    torch.testing.assert_close(layer(x.mT), layer(x).mT, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(layer(x)[:1], layer(x[:1]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kernel", "padding", "dilation", "expected"), [(3, None, 1, 1), (3, None, 2, 2), (6, 2, 1, 2)]
)
def test_autopad(kernel, padding, dilation, expected):
    assert common.autopad(kernel, padding, dilation) == expected


@pytest.mark.parametrize(
    "name", ["GhostConv", "GhostBottleneck", "C3Ghost", "CrossConv", "C3x", "Contract", "Expand", "C3TR"]
)
def test_blocks_with_files_of_their_own_can_be_imported_from_common(name):
    assert issubclass(getattr(common, name), nn.Module)
    with pytest.raises(AttributeError):
        _ = common.NoSuchBlock
