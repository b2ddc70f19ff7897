"""Effective receptive fields: against numerical derivatives, and the figures of known shapes."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from models.modules.akconv import AKConv
from utils.explain.receptive_field import FRACTIONS, energy_levels, field_shape, receptive_fields


def network() -> nn.Sequential:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1), nn.SiLU(), AKConv(4, 5, 3, 1), nn.Conv2d(5, 6, (3, 1), padding=(1, 0)), nn.Tanh()
    )
    nn.init.normal_(model[2].p_conv.weight, std=0.3)
    nn.init.normal_(model[2].p_conv.bias, std=0.3)
    return model.double().eval()


@pytest.mark.parametrize("position", [(0.5, 0.5), (0.0, 1.0), (0.8, 0.3)])
@pytest.mark.parametrize("layer", ["1", "4"])
def test_the_energy_equals_a_numerical_derivative(position: tuple[float, float], layer: str) -> None:
    model, pixels = network(), torch.rand(1, 3, 10, 14, dtype=torch.float64)
    field = receptive_fields(model, pixels, layers=[layer], position=position)[layer]
    row, column = min(int(position[1] * 5), 4), min(int(position[0] * 7), 6)

    step, count = 1e-5, 3 * 10 * 14
    changes = step * torch.eye(count, dtype=torch.float64).view(count, 3, 10, 14)
    with torch.no_grad():
        above, below = (model[: int(layer) + 1](pixels + sign * changes)[:, :, row, column].sum(1) for sign in (1, -1))
    expected = ((above - below) / (2 * step)).abs().view(3, 10, 14).sum(0)
    np.testing.assert_allclose(field, expected, atol=1e-6)
    assert field.any()


def test_the_field_of_a_linear_layer_is_its_kernel() -> None:
    conv = nn.Sequential(nn.Conv2d(3, 2, (3, 5), padding=(1, 2)))
    field = receptive_fields(conv, torch.rand(1, 3, 9, 12), layers=["0"], position=(0.5, 0.5))["0"]
    expected = np.zeros((9, 12))
    expected[3:6, 4:9] = conv[0].weight.detach().sum(0).abs().sum(0)
    np.testing.assert_allclose(field, expected, atol=1e-6)


def test_parameters_need_no_gradient_and_gradients_are_not_left_behind() -> None:
    model, pixels = network().requires_grad_(False), torch.rand(1, 3, 10, 14, dtype=torch.float64)
    with torch.no_grad():
        assert receptive_fields(model, pixels, layers=["4"])["4"].any()
    assert pixels.grad is None and not pixels.requires_grad


def test_areas_are_the_fewest_pixels_that_hold_the_energy() -> None:
    energy = np.zeros((4, 8))
    energy[1, 2:7] = (50, 25, 15, 6, 4)
    shape = field_shape(energy)
    assert [shape[name] for name in FRACTIONS] == [1 / 32, 1 / 32, 4 / 32]
    uniform = field_shape(np.ones((5, 8)))
    assert [uniform[name] for name in FRACTIONS] == [math.ceil(40 * part) / 40 for part in FRACTIONS.values()]
    levels = energy_levels(energy)
    assert [int((levels <= fraction).sum()) for fraction in (0.5, 0.75, 0.9, 0.96)] == [1, 2, 3, 4]


@pytest.mark.parametrize("angle", [0, 30, 90, 150])
def test_anisotropy_is_the_ratio_of_the_spreads_in_any_direction(angle: float) -> None:
    y, x = np.indices((161, 201)) - np.array((80, 100))[:, None, None]
    along = x * math.cos(math.radians(angle)) + y * math.sin(math.radians(angle))
    across = -x * math.sin(math.radians(angle)) + y * math.cos(math.radians(angle))
    shape = field_shape(np.exp(-((along / 15) ** 2 + (across / 5) ** 2) / 2))
    assert shape["anisotropy"] == pytest.approx(3, rel=1e-3)
    assert min(abs(shape["angle"] - angle), 180 - abs(shape["angle"] - angle)) < 0.01
    assert shape["area_50"] * 161 * 201 == pytest.approx(2 * math.pi * 15 * 5 * math.log(2), rel=0.01)


def test_no_energy_has_no_shape() -> None:
    for energy in (np.zeros((3, 5)), np.full((3, 5), np.nan)):
        shape = field_shape(energy)
        assert [shape[name] for name in FRACTIONS] == [0, 0, 0] and math.isnan(shape["anisotropy"])
    single = np.zeros((3, 5))
    single[1, 1] = 2
    shape = field_shape(single)
    assert [shape[name] for name in FRACTIONS] == [1 / 15] * 3 and math.isnan(shape["anisotropy"])
    assert (energy_levels(np.zeros((3, 5))) == 1).all()
