"""Guards against non-finite values: the snapshot of batch norm statistics, and the check of gradients."""

import math

import pytest
import torch
from torch import nn

from models.common import Conv
from models.modules.akconv import AKConv
from utils.training.non_finite import BatchNormSnapshot, finite_gradients

NON_FINITE = [math.nan, math.inf, -math.inf]


def network():
    model = nn.Sequential(Conv(3, 4, 3, 2), AKConv(4, 5, 3), nn.Conv2d(5, 2, 1))
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
            layer.num_batches_tracked.fill_(7)
    return model


def copied(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("value", [3.0, *NON_FINITE])
def test_statistics_are_restored_exactly(value):
    model = network()
    snapshot = BatchNormSnapshot(model)
    snapshot.save()
    before = copied(model)
    images = torch.randn(2, 3, 9, 14)
    images[0, 1, 2, 3] = value
    model.train()(images)
    changed = copied(model)
    statistics = {name for name in before if name.endswith(("running_mean", "running_var"))}
    assert len(statistics) == 4
    assert all(not torch.equal(changed[name], before[name]) for name in statistics)
    assert math.isfinite(value) or any(not changed[name].isfinite().all() for name in statistics)
    snapshot.restore()
    after = model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in statistics)


def test_only_floating_point_statistics_are_restored():
    # num_batches_tracked is an integer and keeps counting; nothing reads it unless momentum is None.
    model = network()
    snapshot = BatchNormSnapshot(model)
    snapshot.save()
    before = copied(model)
    model.train()(torch.randn(2, 3, 9, 14))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    snapshot.restore()
    for name, value in model.state_dict().items():
        if name.endswith("num_batches_tracked"):
            assert before[name] == 7 and value == 8
        elif "running" not in name:
            assert torch.equal(value, before[name] + 1)


def test_the_latest_snapshot_is_restored_any_number_of_times():
    norm = nn.BatchNorm2d(3)
    snapshot = BatchNormSnapshot(norm)
    snapshot.save()
    norm.running_mean.copy_(torch.tensor([1.0, 2.0, 3.0]))
    norm.running_var.copy_(torch.tensor([4.0, 5.0, 6.0]))
    snapshot.save()
    for value in NON_FINITE:
        norm.running_mean.fill_(value)
        norm.running_var.fill_(value)
        snapshot.restore()
        assert norm.running_mean.tolist() == [1, 2, 3]
        assert norm.running_var.tolist() == [4, 5, 6]


def test_statistics_are_restored_in_place():
    norm = nn.BatchNorm2d(3)
    buffers = [*norm.buffers()]
    snapshot = BatchNormSnapshot(norm)
    snapshot.save()
    snapshot.restore()
    assert all(a is b for a, b in zip(buffers, norm.buffers(), strict=True))


def test_without_gradients_all_are_finite():
    assert finite_gradients(network()) is True


@pytest.mark.parametrize("name", ["0.conv.weight", "1.p_conv.bias", "2.bias"])
@pytest.mark.parametrize("value", NON_FINITE)
def test_a_single_bad_element_is_found(name, value):
    model = network()
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    assert finite_gradients(model) is True
    model.get_parameter(name).grad.view(-1)[-1] = value
    assert finite_gradients(model) is False


def test_parameters_without_a_gradient_are_ignored():
    model = network()
    model[2].bias.grad = torch.tensor([1.0, 2.0])
    assert finite_gradients(model) is True
    model[2].bias.grad[0] = math.nan
    assert finite_gradients(model) is False


def test_gradients_whose_squares_overflow_are_finite():
    model = nn.Conv2d(1, 2, 1)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 3e38)
    assert finite_gradients(model) is True


def test_bad_parameters_with_finite_gradients_are_ignored():
    model = nn.Conv2d(1, 2, 1)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
        parameter.data.fill_(math.nan)
    assert finite_gradients(model) is True
