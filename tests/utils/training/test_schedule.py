"""Learning rate, momentum and accumulation at given steps, as numbers worked out by hand."""

from dataclasses import replace

import pytest

from utils.options.hyperparameters import Hyperparameters
from utils.training.schedule import Schedule

# 10 epochs of 50 batches of 16; 3 epochs of warmup are 150 steps; 64 / 16 = 4 batches make an optimizer step.
LINEAR = Schedule(
    epochs=10,
    batches=50,
    batch_size=16,
    cosine=False,
    hyperparameters=Hyperparameters(
        lr0=0.01, lrf=0.1, warmup_epochs=3.0, momentum=0.9, warmup_momentum=0.8, warmup_bias_lr=0.1, nbs=64
    ),
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
