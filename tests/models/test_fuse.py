"""Batch norm folded into convolutions, and offset convolutions widened: exact values and unchanged outputs."""

import pytest
import torch
from torch import nn

from models.common import BottleneckCSP, Conv, DWConv
from models.fuse import fused
from models.modules.akconv import AKConv

SIZE = (2, 3, 11, 18)


def settled(model):
    """The model in float64, with statistics and offsets that leave nothing at its initial value."""
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
            nn.init.normal_(layer.weight)
            nn.init.normal_(layer.bias)
        if isinstance(layer, AKConv):
            nn.init.normal_(layer.p_conv.weight, std=0.1)
            nn.init.normal_(layer.p_conv.bias, std=0.5)
    return model.double()


def network():
    return settled(
        nn.Sequential(
            Conv(3, 8, 3, 2),
            AKConv(8, 6, 5, 2, bias=True),
            DWConv(6, 12, 3),
            AKConv(12, 4, 3, points="centered", padding="zeros", act=False),
            nn.Conv2d(4, 2, 1),
        )
    )


def norms(model):
    return [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]


def set_norm(norm):
    """Make it 1.5 * (x - 1) + 0.5: weight 3, mean 1, standard deviation 2, bias 0.5."""
    with torch.no_grad():
        norm.weight.fill_(3)
        norm.bias.fill_(0.5)
        norm.running_mean.fill_(1)
        norm.running_var.fill_(4 - norm.eps)


def test_folded_convolution_has_the_product_of_both():
    layer = Conv(1, 2, 1, act=False).double()
    set_norm(layer.bn)
    with torch.no_grad():
        layer.conv.weight.copy_(torch.tensor([2.0, -4.0]).view(2, 1, 1, 1))
    folded = fused(layer)
    assert folded.conv.weight.flatten().tolist() == pytest.approx([3, -6], rel=1e-12)
    assert folded.conv.bias.tolist() == pytest.approx([-1, -1], rel=1e-12)


def test_folded_akconv_has_the_product_of_both():
    layer = AKConv(1, 1, 3, bias=True, act=False).double()
    set_norm(layer.conv[1])
    with torch.no_grad():
        layer.conv[0].weight.copy_(torch.tensor([2.0, 4.0, -6.0]).view(1, 1, 3, 1))
        layer.conv[0].bias.fill_(0.25)
    folded = fused(layer)
    assert folded.conv[0].weight.shape == (1, 1, 3, 1)
    assert folded.conv[0].weight.flatten().tolist() == pytest.approx([3, 6, -9], rel=1e-12)
    assert folded.conv[0].bias.tolist() == pytest.approx([-0.625], rel=1e-12)  # 1.5 * (0.25 - 1) + 0.5


def test_fused_model_predicts_the_same_without_batch_norms():
    model = network().eval()
    images = torch.randn(SIZE, dtype=torch.float64)
    folded = fused(model)
    with torch.no_grad():
        expected = model(images)
        found = folded(images)
    assert expected.shape == (2, 2, 3, 5) and expected.std() > 0.01
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    assert len(norms(model)) == 4 and norms(folded) == []


def test_the_original_is_unchanged_and_has_no_tensor_in_common():
    model = network().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    folded = fused(model)
    with torch.no_grad():
        for tensor in (*folded.parameters(), *folded.buffers()):
            tensor.fill_(9)
    after = model.state_dict()
    assert [*after] == [*before] and all(torch.equal(after[name], before[name]) for name in before)
    assert all(layer.training for layer in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_fused_copy_is_for_evaluation_only():
    folded = fused(network().train())
    assert not folded.training and not any(layer.training for layer in folded)
    assert not any(parameter.requires_grad for parameter in folded.parameters())


def test_fusing_twice_changes_nothing():
    once = fused(network())
    twice = fused(once).state_dict()
    assert [*twice] == [*once.state_dict()]
    assert all(torch.equal(twice[name], value) for name, value in once.state_dict().items())


def test_batch_norm_after_no_single_convolution_stays():
    block = settled(BottleneckCSP(3, 8, 1)).train()
    images = torch.randn(SIZE, dtype=torch.float64)
    folded = fused(block)
    block.eval()
    assert len(norms(folded)) == 1 and isinstance(folded.bn, nn.BatchNorm2d) and not folded.bn.training
    with torch.no_grad():
        torch.testing.assert_close(folded(images), block(images), rtol=1e-10, atol=1e-10)
