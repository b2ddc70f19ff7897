"""Parameter groups and the optimizer settings of each; learning rate, momentum and accumulation worked out by hand."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from models.common import Conv
from models.modules.akconv import AKConv
from utils.files import PROJECT_ROOT
from utils.options.hyperparameters import Hyperparameters
from utils.training.optim import Schedule, build_optimizer, parameter_groups, set_rates

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


def test_both_convolutions_of_depthwise_offsets_are_in_these_groups():
    layer = nn.Sequential(AKConv(4, 6, 5, offsets="depthwise", modulated=True))
    *_, biases, weights = described(layer, parameter_groups(layer, weight_decay=0.05, offset_lr=0.1))
    assert biases == ("bias", 0.1, 0.0, {"0.p_conv.1.bias"})
    assert weights == ("weight", 0.1, 0.05, {"0.p_conv.0.weight", "0.p_conv.1.weight"})


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
    assert isinstance(optimizer, torch.optim.SGD)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.0, 0.05, 0.0, 0.0, 0.05]
    assert {group["momentum"] for group in optimizer.param_groups} == {momentum}
    assert {group["nesterov"] for group in optimizer.param_groups} == {momentum > 0}
    assert {group["lr"] for group in optimizer.param_groups} == {0.02}


@pytest.mark.parametrize(("name", "kind"), [("Adam", torch.optim.Adam), ("AdamW", torch.optim.AdamW)])
def test_adam_takes_momentum_as_beta1(model, name, kind):
    groups = parameter_groups(model, weight_decay=0.05, offset_lr=1.0)
    optimizer = build_optimizer(name, groups, lr=0.02, momentum=0.85)
    assert isinstance(optimizer, kind)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.0, 0.05, 0.0]
    assert {group["betas"] for group in optimizer.param_groups} == {(0.85, 0.999)}


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_steps_have_the_bits_of_torchs_own_optimizer(name):
    built, own = torch.nn.Parameter(torch.arange(6.0)), torch.nn.Parameter(torch.arange(6.0))
    ours = build_optimizer(name, [{"params": [built], "weight_decay": 0.1}], lr=0.02, momentum=0.9)
    settings = {"momentum": 0.9, "nesterov": True} if name == "SGD" else {"betas": (0.9, 0.999)}
    theirs = getattr(torch.optim, name)([{"params": [own], "weight_decay": 0.1}], lr=0.02, **settings)
    for optimizer, parameter in ((ours, built), (theirs, own)):
        for step in range(3):
            (parameter * torch.arange(step, step + 6)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            assert parameter.grad is None and parameter.requires_grad
        optimizer.load_state_dict(optimizer.state_dict())
    assert torch.equal(built, own)
    assert ours.state_dict()["param_groups"] == theirs.state_dict()["param_groups"]
    for key, value in theirs.state[own].items():
        assert torch.equal(ours.state[built][key], value)


def test_no_optimizer_imports_the_compiler():
    code = """
import sys, torch
from utils.training.optim import build_optimizer
for name in ("SGD", "Adam", "AdamW"):
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = build_optimizer(name, [dict(params=[parameter])], lr=0.1, momentum=0.9)
    optimizer.zero_grad()
    parameter.sum().backward()
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
sys.exit("torch._dynamo" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], cwd=PROJECT_ROOT, check=True)


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
@pytest.mark.parametrize(
    ("step", "bias", "weight", "momentum"),
    # 4 epochs of 100 batches, 200 steps of warmup: half-way at step 100 in epoch 1, whose rate is 0.02 * 0.8.
    [(0, 0.1, 0.0, 0.8), (100, 0.058, 0.008, 0.85), (399, 0.008, 0.008, 0.9)],
)
def test_rates_per_group(model, name, step, bias, weight, momentum):
    hyperparameters = Hyperparameters(
        lr0=0.02, lrf=0.2, warmup_epochs=2, momentum=0.9, warmup_momentum=0.8, warmup_bias_lr=0.1, nbs=64
    )
    schedule = Schedule(hyperparameters=hyperparameters, epochs=4, batches=100, batch_size=8)
    groups = parameter_groups(model, weight_decay=0.05, offset_lr=0.25)
    optimizer = build_optimizer(name, groups, lr=0.5, momentum=0.5)
    set_rates(optimizer, schedule, step)
    rates = [group["lr"] for group in optimizer.param_groups]
    assert rates == pytest.approx([bias, weight, weight, bias / 4, weight / 4], rel=1e-12, abs=1e-15)
    for group in optimizer.param_groups:
        actual = group["momentum"] if name == "SGD" else group["betas"][0]
        assert actual == pytest.approx(momentum, rel=1e-12)
        assert name == "SGD" or group["betas"][1] == 0.999


# 10 epochs of 50 batches of 16; 3 epochs of warmup are 150 steps; 64 / 16 = 4 batches make an optimizer step.
LINEAR = Schedule(
    hyperparameters=Hyperparameters(
        lr0=0.01, lrf=0.1, warmup_epochs=3.0, momentum=0.9, warmup_momentum=0.8, warmup_bias_lr=0.1, nbs=64
    ),
    epochs=10,
    batches=50,
    batch_size=16,
)
COSINE = replace(LINEAR, cosine=True)


def with_warmup(epochs):
    return replace(LINEAR, hyperparameters=replace(LINEAR.hyperparameters, warmup_epochs=epochs))


# Linear: lr0 * (1 - 0.09 * epoch), times step / 150 during warmup; biases: 0.1 + (that - 0.1) * step / 150.
@pytest.mark.parametrize(
    ("step", "weight", "bias"),
    [
        (0, 0.0, 0.1),
        (30, 0.01 * 30 / 150, 0.082),  # epoch 0
        (75, 0.00455, 0.05455),  # epoch 1: 0.0091
        (149, 0.0082 * 149 / 150, 0.0082 + 0.0918 / 150),  # epoch 2: 0.0082
        (150, 0.0073, 0.0073),  # epoch 3, the first without warmup
        (199, 0.0073, 0.0073),
        (200, 0.0064, 0.0064),
        (275, 0.0055, 0.0055),
        (499, 0.0019, 0.0019),  # epoch 9, the last: not lr0 * lrf, which epoch 10 would have
    ],
)
def test_linear_learning_rate(step, weight, bias):
    assert LINEAR.learning_rate(step) == pytest.approx(weight, rel=1e-12, abs=1e-15)
    assert LINEAR.learning_rate(step, bias=True) == pytest.approx(bias, rel=1e-12)


# Cosine: lr0 * (0.55 + 0.45 * cos(18 degrees * epoch)); the cosines of 18, 36, 54 and 162 degrees from a table.
@pytest.mark.parametrize(
    ("step", "weight"),
    [
        (0, 0.0),
        (25, 0.01 / 6),
        (75, 0.01 * (0.55 + 0.45 * 0.9510565162951535) / 2),
        (149, 0.01 * (0.55 + 0.45 * 0.8090169943749475) * 149 / 150),
        (150, 0.01 * (0.55 + 0.45 * 0.5877852522924731)),
        (250, 0.0055),
        (499, 0.01 * (0.55 - 0.45 * 0.9510565162951535)),
    ],
)
def test_cosine_learning_rate(step, weight):
    assert COSINE.learning_rate(step) == pytest.approx(weight, rel=1e-12, abs=1e-15)


def test_cosine_bias_learning_rate():
    after = 0.01 * (0.55 + 0.45 * 0.9510565162951535)
    assert COSINE.learning_rate(75, bias=True) == pytest.approx((0.1 + after) / 2, rel=1e-12)
    assert COSINE.learning_rate(499, bias=True) == COSINE.learning_rate(499)


@pytest.mark.parametrize("schedule", [LINEAR, COSINE])
def test_epoch_factor_goes_from_one_to_lrf(schedule):
    assert schedule.epoch_factor(0) == 1
    assert schedule.epoch_factor(5) == pytest.approx(0.55, rel=1e-12)
    assert schedule.epoch_factor(10) == pytest.approx(0.1, rel=1e-12)


@pytest.mark.parametrize("schedule", [LINEAR, COSINE])
def test_momentum(schedule):
    expected = {0: 0.8, 30: 0.82, 75: 0.85, 149: 0.9 - 0.1 / 150, 150: 0.9, 275: 0.9, 499: 0.9}
    assert {step: schedule.momentum_at(step) for step in expected} == pytest.approx(expected, rel=1e-12)


def test_accumulation():
    # 1 + 3 * step / 150, rounded: 24 -> 1.48, 26 -> 1.52, 74 -> 2.48, 76 -> 2.52, 124 -> 3.48, 126 -> 3.52.
    expected = {0: 1, 24: 1, 26: 2, 74: 2, 76: 3, 124: 3, 126: 4, 149: 4, 150: 4, 275: 4, 499: 4}
    assert {step: LINEAR.accumulate(step) for step in expected} == expected
    assert all(type(LINEAR.accumulate(step)) is int for step in expected)


def test_accumulation_at_half_is_even():
    # Steps 25, 75 and 125 give exactly 1.5, 2.5 and 3.5.
    assert [LINEAR.accumulate(step) for step in (25, 75, 125)] == [2, 2, 4]


@pytest.mark.parametrize(("batch_size", "batches"), [(1, 64), (24, 3), (40, 2), (64, 1), (128, 1), (1000, 1)])
def test_accumulation_after_warmup(batch_size, batches):
    schedule = replace(LINEAR, batch_size=batch_size)
    assert schedule.accumulate(0) == 1
    assert schedule.accumulate(150) == batches


@pytest.mark.parametrize(
    ("warmup_epochs", "steps"), [(0, 0), (-1, 0), (0.01, 100), (1, 100), (2, 100), (2.5, 125), (3, 150)]
)
def test_warmup_takes_at_least_100_steps(warmup_epochs, steps):
    assert with_warmup(warmup_epochs).warmup_steps == steps


def test_without_warmup_the_first_step_is_already_full():
    schedule = with_warmup(0)
    assert schedule.learning_rate(0) == 0.01
    assert schedule.learning_rate(0, bias=True) == 0.01
    assert schedule.momentum_at(0) == 0.9
    assert schedule.accumulate(0) == 4
