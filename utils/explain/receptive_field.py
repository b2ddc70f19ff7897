"""The effective receptive field: how much each pixel of the input moves one position of a layer's map.

Source: Luo, Li, Urtasun and Zemel 2016. Energy is the absolute gradient, summed over the colours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from utils.explain.layers import record_maps

FRACTIONS = {"area_20": 0.2, "area_50": 0.5, "area_95": 0.95}  # of the energy, for which areas are given


def receptive_fields(
    network: nn.Module, pixels: Tensor, *, layers: Sequence[str], position: tuple[float, float] = (0.5, 0.5)
) -> dict[str, np.ndarray]:
    """Return the energy (H, W) of each layer for one image, (1, 3, H, W) in [0, 1], in double precision.

    It is the absolute gradient of the sum of all channels at one position of the layer's map: the one whose cell covers
    `position`, x and y as fractions of the input in [0, 1]. The network is in evaluation mode, `layers` are modules.
    """
    pixels, fields = pixels.detach().requires_grad_(), {}
    with torch.enable_grad():
        with record_maps(network, layers) as maps:
            network(pixels)
        for name in layers:
            height, width = maps[name].shape[2:]
            row, column = min(int(position[1] * height), height - 1), min(int(position[0] * width), width - 1)
            (gradient,) = torch.autograd.grad(maps[name][0, :, row, column].sum(), pixels, retain_graph=True)
            fields[name] = gradient[0].abs().double().sum(0).cpu().numpy()
    return fields


def field_shape(energy: np.ndarray) -> dict[str, float]:
    """Return the areas, anisotropy and angle of an energy (H, W); areas are 0 and the others nan without energy.

    Areas are the fewest pixels that hold each of `FRACTIONS` of the energy, as fractions of all pixels. Anisotropy is
    the ratio of the standard deviations along the two principal axes, at least 1, or nan if one of them is 0. The
    angle is that of the longer axis in degrees in [0, 180), clockwise from the horizontal, since y points down.
    """
    total = float(energy.sum())
    if not total > 0:
        return {**dict.fromkeys(FRACTIONS, 0.0), "anisotropy": math.nan, "angle": math.nan}
    held = np.sort(energy_levels(energy), axis=None)
    areas = {name: (np.searchsorted(held, part) + 1) / energy.size for name, part in FRACTIONS.items()}
    y, x = np.indices(energy.shape)
    weights = energy / total
    centred = np.stack((x - (weights * x).sum(), y - (weights * y).sum())).reshape(2, -1)
    (small, large), axes = np.linalg.eigh(weights.ravel() * centred @ centred.T)
    return {
        **{name: float(area) for name, area in areas.items()},
        "anisotropy": math.sqrt(large / small) if small > 1e-9 else math.nan,
        "angle": math.degrees(math.atan2(axes[1, 1], axes[0, 1])) % 180,
    }


def energy_levels(energy: np.ndarray) -> np.ndarray:
    """Return (H, W): the smallest fraction of the energy held by a region of highest energy that includes each pixel.

    Values are in (0, 1]; the region of 50 % is where they are at most 0.5.
    """
    order = np.argsort(-energy, axis=None, kind="stable")
    levels = np.empty(energy.size)
    held = np.cumsum(energy.ravel()[order])
    levels[order] = held / held[-1] if held[-1] > 0 else 1.0
    return levels.reshape(energy.shape)
