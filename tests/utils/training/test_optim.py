"""Parameter groups, and the optimizer settings of each."""

import pytest
import torch
from torch import nn

from models.common import Conv
from models.modules.akconv import AKConv
from utils.options.hyperparameters import Hyperparameters
from utils.training.optim import build_optimizer, parameter_groups, set_rates
from utils.training.schedule import Schedule

BIASES = {"0.bn.bias", "1.conv.1.bias", "2.bias"}
WEIGHTS = {"0.conv.weight", "1.conv.0.weight", "2.weight"}
NORMS = {"0.bn.weight", "1.conv.1.weight"}
OFFSET_BIASES = {"1.p_conv.bias"}
OFFSET_WEIGHTS = {"1.p_conv.weight"}


@pytest.fixture
def model():
    return nn.Sequential(Conv(3, 4, 3), AKConv(4, 6, 5), nn.Conv2d(6, 2, 1))


def described(model, groups):
    """Kind, learning rate factor, weight decay and parameter names of each group."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for group in groups:
        assert len({*map(id, group["params"])}) == len(group["params"])
    return [
        (group["kind"], group["lr_factor"], group["weight_decay"], {names[id(p)] for p in group["params"]})
        for group in groups
    ]


@pytest.mark.parametrize("offset_lr", [0.0, 0.1, 3.0])
def test_offset_convolutions_have_separate_groups(model, offset_lr):
    groups = parameter_groups(model, weight_decay=0.05, offset_lr=offset_lr)
    assert described(model, groups) == [
        ("bias", 1.0, 0.0, BIASES),
        ("weight", 1.0, 0.05, WEIGHTS),
        ("norm", 1.0, 0.0, NORMS),
        ("bias", offset_lr, 0.0, OFFSET_BIASES),
        ("weight", offset_lr, 0.05, OFFSET_WEIGHTS),
    ]


def test_with_factor_one_offset_convolutions_are_like_others(model):
    groups = parameter_groups(model, weight_decay=0.05, offset_lr=1.0)
    assert described(model, groups) == [
        ("bias", 1.0, 0.0, BIASES | OFFSET_BIASES),
        ("weight", 1.0, 0.05, WEIGHTS | OFFSET_WEIGHTS),
        ("norm", 1.0, 0.0, NORMS),
    ]


def test_groups_keep_the_order_of_the_model(model):
    groups = parameter_groups(model, weight_decay=0.0, offset_lr=1.0)
    for group in groups:
        positions = [[id(p) for p in model.parameters()].index(id(parameter)) for parameter in group["params"]]
        assert positions == sorted(positions)


def test_frozen_parameters_are_left_out(model):
    model[0].requires_grad_(False)
    model[1].p_conv.bias.requires_grad_(False)
    groups = parameter_groups(model, weight_decay=0.05, offset_lr=0.1)
    assert described(model, groups) == [
        ("bias", 1.0, 0.0, {"1.conv.1.bias", "2.bias"}),
        ("weight", 1.0, 0.05, {"1.conv.0.weight", "2.weight"}),
        ("norm", 1.0, 0.0, {"1.conv.1.weight"}),
        ("weight", 0.1, 0.05, OFFSET_WEIGHTS),
    ]


def test_first_three_groups_stay_when_empty(model):
    groups = parameter_groups(model.requires_grad_(False), weight_decay=0.05, offset_lr=0.1)
    assert described(model, groups) == [
        ("bias", 1.0, 0.0, set()),
        ("weight", 1.0, 0.05, set()),
        ("norm", 1.0, 0.0, set()),
    ]


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd(model, momentum):
    groups = parameter_groups(model, weight_decay=0.05, offset_lr=0.1)
    optimizer = build_optimizer("SGD", groups, lr=0.02, momentum=momentum)
    assert type(optimizer) is torch.optim.SGD
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.0, 0.05, 0.0, 0.0, 0.05]
    assert {group["momentum"] for group in optimizer.param_groups} == {momentum}
    assert {group["nesterov"] for group in optimizer.param_groups} == {momentum > 0}
    assert {group["lr"] for group in optimizer.param_groups} == {0.02}


@pytest.mark.parametrize(("name", "kind"), [("Adam", torch.optim.Adam), ("AdamW", torch.optim.AdamW)])
def test_adam_takes_momentum_as_beta1(model, name, kind):
    groups = parameter_groups(model, weight_decay=0.05, offset_lr=1.0)
    optimizer = build_optimizer(name, groups, lr=0.02, momentum=0.85)
    assert type(optimizer) is kind
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.0, 0.05, 0.0]
    assert {group["betas"] for group in optimizer.param_groups} == {(0.85, 0.999)}


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
@pytest.mark.parametrize(
    ("step", "bias", "weight", "momentum"),
    # 4 epochs of 100 batches, 200 steps of warmup: half-way at step 100 in epoch 1, whose rate is 0.02 * 0.8.
    [(0, 0.1, 0.0, 0.8), (100, 0.058, 0.008, 0.85), (399, 0.008, 0.008, 0.9)],
)
def test_rates_per_group(model, name, step, bias, weight, momentum):
    schedule = Schedule(
        epochs=4,
        batches=100,
        batch_size=8,
        cosine=False,
        hyperparameters=Hyperparameters(
            lr0=0.02, lrf=0.2, warmup_epochs=2, momentum=0.9, warmup_momentum=0.8, warmup_bias_lr=0.1, nbs=64
        ),
    )
    groups = parameter_groups(model, weight_decay=0.05, offset_lr=0.25)
    optimizer = build_optimizer(name, groups, lr=0.5, momentum=0.5)
    set_rates(optimizer, schedule, step)
    rates = [group["lr"] for group in optimizer.param_groups]
    assert rates == pytest.approx([bias, weight, weight, bias / 4, weight / 4], rel=1e-12, abs=1e-15)
    for group in optimizer.param_groups:
        actual = group["momentum"] if name == "SGD" else group["betas"][0]
        assert actual == pytest.approx(momentum, rel=1e-12)
        assert name == "SGD" or group["betas"][1] == 0.999
