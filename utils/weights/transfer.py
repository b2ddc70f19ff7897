"""Initializes a model from other weights: equal entries are copied, an AKConv starts from the convolution it replaces.

An AKConv layer samples N points where a k x k convolution reads k^2 neighbours. Its points keep their arrangement and
are shifted together, by the bias of `p_conv`, to the position that approximates the convolution best; its weights are
the least-squares solution there. Where the shifted points are the neighbours themselves (N = 9 for 3 x 3, N = 1 for
1 x 1), the layer computes what the convolution does; at the border of the map, where a convolution reads zeros, only
with `padding: zeros`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from models.modules.akconv import AKConv
from utils.log import LOGGER

# Correlation of neighbouring pixels of a feature map that the least-squares fit assumes. Measured at the inputs of a
# trained yolov5n's 3 x 3 convolutions: 0.27 to 0.75, mean 0.51. Of eight values, 0.5 also approximates them best: 3
# points reproduce 76 % of the variance and 5 points 85 %, against 70 % and 81 % if each point takes the weight of the
# neighbour that it lies on.
NEIGHBOUR_CORRELATION = 0.5
SHIFTS = (0.0, -0.5, 0.5, -1.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class KernelFit:
    """A convolution kernel approximated at sampling points."""

    weight: Tensor  # (O, C, N, 1), of the column convolution
    shift: tuple[float, float]  # rows and columns by which all points are shifted
    explained: float  # fraction of the convolution's output variance that is reproduced, in [0, 1]; 1 is exact


@dataclass(frozen=True)
class TransferResult:
    """What `transfer_weights` changed in a model."""

    fraction: float  # of the model's parameters that were copied or fitted to a convolution, in [0, 1]
    kept: list[str]  # names of the entries of the state dict that kept their initial values, except anchors


def transfer_weights(model: nn.Module, weights: Mapping[str, Tensor], *, source: Path | str) -> TransferResult:
    """Copy entries of equal name and shape, fit AKConv layers to the convolutions they replace, and log the rest.

    The model is changed in place. Anchors are not copied: they belong to the config. `source` is the file, for the log.
    """
    state = model.state_dict()
    fitting = {name: tensor for name, tensor in weights.items() if name in state and state[name].shape == tensor.shape}
    transferred = {name: tensor for name, tensor in fitting.items() if not name.endswith(".anchors")}
    used = set(transferred)
    fitted: dict[str, str] = {}
    for name, layer in model.named_modules():
        if isinstance(layer, AKConv) and f"{name}.conv.0.weight" not in transferred:
            fit = _fit_layer(layer, name, weights, transferred)
            if fit is not None:
                used |= {key for key in weights if key.startswith((f"{name}.conv.weight", f"{name}.bn."))}
                quality = "exact" if fit.explained > 1 - 1e-6 else f"keeps {fit.explained:.0%} of the output's variance"
                fitted[name] = f"{name} ({layer.num_param} points, {quality})"
    model.load_state_dict(transferred, strict=False)
    kept = [name for name in state if name not in transferred and not name.endswith(".anchors")]
    parameters = dict(model.named_parameters())
    copied = sum(parameter.numel() for name, parameter in parameters.items() if name in transferred)
    fraction = copied / max(sum(parameter.numel() for parameter in parameters.values()), 1)
    LOGGER.info(f"Transferred {len(transferred)}/{len(state)} items ({fraction:.1%} of the parameters) from {source}")
    if fitted:
        LOGGER.info(f"AKConv layers initialized from the convolutions they replace: {', '.join(fitted.values())}")
    fresh = [name for name in kept if name.rpartition(".p_conv.")[0] not in fitted]
    _log("Not transferred", fresh, {n: "not in the file" if n not in weights else "other shapes" for n in fresh})
    unused = [name for name in weights if name not in used and not name.endswith(".anchors") and name not in state]
    _log("In the file but not used", unused, {})
    return TransferResult(fraction=fraction, kept=kept)


def _log(title: str, names: list[str], reasons: Mapping[str, str]) -> None:
    """Log entries of a state dict by layer, with their reasons if any."""
    layers: dict[str, set[str]] = {}
    for name in names:
        layers.setdefault(".".join(name.split(".")[:2]), set()).update({reasons[name]} if name in reasons else ())
    if layers:
        ordered = sorted(layers, key=lambda name: [len(name), name])
        items = (f"{name} ({', '.join(sorted(layers[name]))})" if layers[name] else name for name in ordered)
        LOGGER.info(f"{title}: {', '.join(items)}")


def _fit_layer(
    layer: AKConv, name: str, weights: Mapping[str, Tensor], transferred: dict[str, Tensor]
) -> KernelFit | None:
    """Fit an AKConv layer to the convolution of its name in `weights`; without a suitable one return None."""
    columns, norm = cast(nn.Conv2d, layer.conv[0]), layer.conv[1].state_dict()
    kernel = weights.get(f"{name}.conv.weight")
    if kernel is None or kernel.ndim != 4 or kernel.shape[:2] != columns.weight.shape[:2]:
        return None
    size = kernel.shape[2]
    norms = {key: weights.get(f"{name}.bn.{key}") for key in norm}
    if size != kernel.shape[3] or size % 2 == 0 or any(t is None or t.shape != norm[k].shape for k, t in norms.items()):
        return None
    fit = fit_kernel(kernel, layer.points)
    transferred[f"{name}.conv.0.weight"] = fit.weight
    transferred.update({f"{name}.conv.1.{key}": tensor for key, tensor in norms.items() if tensor is not None})
    if columns.bias is not None:
        transferred[f"{name}.conv.0.bias"] = torch.zeros_like(columns.bias)
    ((bias, start),) = ((key, start) for key, start in layer.p_conv.state_dict().items() if key.endswith("bias"))
    shifts = torch.tensor(fit.shift).repeat_interleave(layer.num_param)
    transferred[f"{name}.p_conv.{bias}"] = torch.cat(
        (shifts, start.new_zeros(len(start) - len(shifts)))
    )  # factors of 1
    return fit


def fit_kernel(kernel: Tensor, points: Tensor) -> KernelFit:
    """Approximate a convolution kernel at sampling points, by least squares over all shifts of the points.

    Args:
        kernel: (O, C, k, k) with k odd, of a convolution with "same" padding.
        points: (N, 2) rows and columns relative to the output pixel, where the map is sampled bilinearly.

    Returns:
        Weights and shift with the least mean square of (convolution - approximation), over maps whose pixels are
        correlated by NEIGHBOUR_CORRELATION to the power of their L1 distance. Of equally good shifts the smallest.
    """
    size = kernel.shape[2]
    offsets = torch.arange(size, dtype=torch.float64) - size // 2
    taps = torch.cartesian_prod(offsets, offsets)  # (k k, 2)
    flat = kernel.detach().double().cpu().flatten(2)  # (O, C, k k)
    points = points.detach().double().cpu()
    energy = torch.einsum("oct,ocu->tu", flat, flat)  # (k k, k k)
    between_taps = _covariance(taps, taps)
    total = float((energy * between_taps).sum())
    # Candidates: no shift, and those that move the points' centre to within a pixel of the output pixel.
    centre = (points.amin(0) + points.amax(0)) / 2
    rows, columns = ([float(step - coordinate) for step in SHIFTS] for coordinate in centre)
    improved: list[tuple[float, float, tuple[float, float], Tensor]] = []
    for shift in ((0.0, 0.0), *itertools.product(rows, columns)):
        shifted = points + torch.tensor(shift, dtype=torch.float64)
        across = _covariance(shifted, taps)  # (N, k k)
        projection = torch.linalg.pinv(_covariance(shifted, shifted), hermitian=True) @ across  # (N, k k)
        residual = float((energy * (between_taps - across.T @ projection)).sum()) / total if total > 0 else 0.0
        distance = abs(shift[0]) + abs(shift[1])
        best, at_distance = improved[-1][:2] if improved else (math.inf, math.inf)
        if not improved or residual < best - 1e-9 or (residual < best + 1e-9 and distance < at_distance):
            improved.append((residual, distance, shift, projection))
    residual, _, shift, projection = improved[-1]
    # Rounded far below float32, so that a point on a neighbour takes its weight unchanged.
    weight = (flat @ projection.round(decimals=10).T).unsqueeze(-1)  # (O, C, N, 1)
    return KernelFit(weight=weight.to(kernel.dtype), shift=shift, explained=min(max(1 - residual, 0.0), 1.0))


def _covariance(first: Tensor, second: Tensor) -> Tensor:
    """Return the covariance (n, m) of bilinear samples at positions (n, 2) and (m, 2) of a correlated map."""
    result = torch.ones(len(first), len(second), dtype=first.dtype)
    for axis in (0, 1):
        low_1, low_2 = first[:, axis].floor(), second[:, axis].floor()
        part_1, part_2 = first[:, axis] - low_1, second[:, axis] - low_2
        along = torch.zeros_like(result)
        for step_1, step_2 in itertools.product((0, 1), repeat=2):
            distance = ((low_1 + step_1)[:, None] - (low_2 + step_2)).abs()
            weights = (part_1 if step_1 else 1 - part_1)[:, None] * (part_2 if step_2 else 1 - part_2)
            along += weights * NEIGHBOUR_CORRELATION**distance
        result = result * along
    return result
