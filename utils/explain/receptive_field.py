"""The effective receptive field: how much each pixel of the input moves one position of a layer's map.

Source: Luo, Li, Urtasun and Zemel 2016. Energy is the absolute gradient, summed over the colours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from utils.explain.layers import record_maps

FRACTIONS = (0.2, 0.5, 0.95)  # of the energy, for which areas are given


@dataclass(frozen=True, kw_only=True)
class FieldShape:
    """Size and shape of an effective receptive field."""

    areas: tuple[int, ...]  # pixels: the fewest that hold each of `FRACTIONS` of the energy
    area_fractions: tuple[float, ...]  # the same as fractions of the input
    anisotropy: float  # ratio of the standard deviations along the two principal axes, from 1; nan if one of them is 0
    angle: float  # of the longer axis in degrees in [0, 180), clockwise from the horizontal, since y points down


def receptive_fields(
    network: nn.Module, pixels: Tensor, *, layers: Sequence[str], position: tuple[float, float] = (0.5, 0.5)
) -> dict[str, np.ndarray]:
    """Return the energy (H, W) of each layer for one image, in double precision.

    It is the absolute gradient of the sum of all channels at one position of the layer's map.

    Args:
        network: a model in evaluation mode.
        pixels: (1, 3, H, W) in [0, 1].
        layers: names of modules.
        position: x and y as fractions of the input, in [0, 1]; the position of the map whose cell covers it is taken.
    """
    pixels = pixels.detach().requires_grad_()
    fields = {}
    with torch.enable_grad(), record_maps(network, layers) as maps:
        network(pixels)
        for name in layers if len(maps) == len(layers) else ():
            height, width = maps[name].shape[2:]
            row, column = min(int(position[1] * height), height - 1), min(int(position[0] * width), width - 1)
            unit = maps[name][0, :, row, column].sum()
            (gradient,) = torch.autograd.grad(unit, pixels, retain_graph=True)
            fields[name] = gradient[0].abs().double().sum(0).cpu().numpy()
    return fields


def field_shape(energy: np.ndarray) -> FieldShape:
    """Return size and shape of an energy (H, W); areas are 0 and the rest nan if there is none."""
    total = float(energy.sum())
    if not total > 0:
        nothing = (0,) * len(FRACTIONS)
        return FieldShape(areas=nothing, area_fractions=nothing, anisotropy=math.nan, angle=math.nan)
    held = np.cumsum(np.sort(energy, axis=None)[::-1])
    areas = tuple(int(np.searchsorted(held, fraction * held[-1])) + 1 for fraction in FRACTIONS)
    y, x = np.indices(energy.shape)
    weights = energy / total
    dx, dy = x - (weights * x).sum(), y - (weights * y).sum()
    xy = float((weights * dx * dy).sum())
    moments = np.array([[(weights * dx**2).sum(), xy], [xy, (weights * dy**2).sum()]])
    (small, large), axes = np.linalg.eigh(moments)
    return FieldShape(
        areas=areas,
        area_fractions=tuple(area / energy.size for area in areas),
        anisotropy=math.sqrt(large / small) if small > 1e-9 else math.nan,
        angle=math.degrees(math.atan2(axes[1, 1], axes[0, 1])) % 180,
    )


def energy_levels(energy: np.ndarray) -> np.ndarray:
    """Return (H, W): the smallest fraction of the energy held by a region of highest energy that includes each pixel.

    Values are in (0, 1]; the region of 50 % is where they are at most 0.5.
    """
    order = np.argsort(-energy, axis=None, kind="stable")
    levels = np.empty(energy.size)
    held = np.cumsum(energy.ravel()[order])
    levels[order] = held / held[-1] if held[-1] > 0 else 1.0
    return levels.reshape(energy.shape)
