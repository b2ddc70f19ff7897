"""The copy of batch-norm statistics, and the check for gradients that are not finite."""

import math

import pytest
import torch
from torch import nn

from models.common import Conv
from models.modules.akconv import AKConv
from utils.training.state import BatchNormSnapshot, finite_gradients

SPOILT = [math.nan, math.inf, -math.inf]


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


@pytest.mark.parametrize("value", [3.0, *SPOILT])
def test_statistics_come_back_exactly(value):
    model = network()
    backup = BatchNormSnapshot(model)
    backup.take()
    before = copied(model)
    images = torch.randn(2, 3, 9, 14)
    images[0, 1, 2, 3] = value
    model.train()(images)
    spoilt = copied(model)
    statistics = {name for name in before if name.endswith(("running_mean", "running_var"))}
    assert len(statistics) == 4
    assert all(not torch.equal(spoilt[name], before[name]) for name in statistics)
    assert math.isfinite(value) or any(not spoilt[name].isfinite().all() for name in statistics)
    backup.put_back()
    after = model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in statistics)


def test_only_floating_point_statistics_come_back():
    # The counters of batches are integers and go on counting; nothing reads them while momentum is a number.
    model = network()
    backup = BatchNormSnapshot(model)
    backup.take()
    before = copied(model)
    model.train()(torch.randn(2, 3, 9, 14))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    backup.put_back()
    for name, value in model.state_dict().items():
        if name.endswith("num_batches_tracked"):
            assert before[name] == 7 and value == 8
        elif "running" not in name:
            assert torch.equal(value, before[name] + 1)


def test_the_latest_copy_counts_and_serves_repeatedly():
    norm = nn.BatchNorm2d(3)
    backup = BatchNormSnapshot(norm)
    backup.take()
    norm.running_mean.copy_(torch.tensor([1.0, 2.0, 3.0]))
    norm.running_var.copy_(torch.tensor([4.0, 5.0, 6.0]))
    backup.take()
    for value in SPOILT:
        norm.running_mean.fill_(value)
        norm.running_var.fill_(value)
        backup.put_back()
        assert norm.running_mean.tolist() == [1, 2, 3]
        assert norm.running_var.tolist() == [4, 5, 6]


def test_the_copy_writes_into_the_same_tensors():
    norm = nn.BatchNorm2d(3)
    buffers = [*norm.buffers()]
    backup = BatchNormSnapshot(norm)
    backup.take()
    backup.put_back()
    assert all(one is other for one, other in zip(buffers, norm.buffers(), strict=True))


def test_no_gradients_are_finite():
    assert finite_gradients(network()) is True


@pytest.mark.parametrize("name", ["0.conv.weight", "1.p_conv.bias", "2.bias"])
@pytest.mark.parametrize("value", SPOILT)
def test_one_bad_element_of_one_gradient_is_found(name, value):
    model = network()
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    assert finite_gradients(model) is True
    model.get_parameter(name).grad.view(-1)[-1] = value
    assert finite_gradients(model) is False


def test_parameters_without_a_gradient_are_passed_over():
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


def test_bad_parameters_with_finite_gradients_are_not_its_matter():
    model = nn.Conv2d(1, 2, 1)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
        parameter.data.fill_(math.nan)
    assert finite_gradients(model) is True
