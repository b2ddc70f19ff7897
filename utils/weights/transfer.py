"""Starting a network from another's weights: what agrees is copied, AKConv starts from the convolution it replaces.

An AKConv layer samples N points where a k x k convolution reads k k neighbours. Its points keep their shape and are
moved together, by the bias of `p_conv`, to where they serve the kernel best; its weights are those whose result is
nearest to the convolution's in the mean square. Where the moved points are the neighbours themselves (N = 9 for 3 x 3,
N = 1 for 1 x 1) the layer computes what the convolution does; at the border of the map, where that reads zeros, with
`padding: zeros`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from models.modules.akconv import AKConv
from utils.log import LOGGER

# Correlation of neighbouring pixels of a map, by which "nearest in the mean square" is meant. Measured on the inputs of
# a trained yolov5n's 3 x 3 convolutions (0.27 to 0.75, mean 0.51); of eight values it also fits them best: 3 points
# reproduce 76 % of the variance and 5 points 85 %, against 70 % and 81 % when every point only takes the weight of the
# neighbour it lies on.
NEIGHBOUR_CORRELATION = 0.5
SHIFTS = (0.0, -0.5, 0.5, -1.0, 1.0)
NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True, kw_only=True)
class KernelFit:
    """A convolution's kernel, carried over to sampling points.

    Attributes:
        weight: (O, C, N, 1), of the column convolution.
        shift: rows and columns by which all points are moved.
        kept: share of the kernel's mean square result that is reproduced, in [0, 1]; 1 is exact.
    """

    weight: Tensor
    shift: tuple[float, float]
    kept: float


@dataclass(frozen=True, kw_only=True)
class TransferResult:
    """What `transfer_weights` changed in a model.

    Attributes:
        fraction: of the model's parameters that were copied or started from a convolution, in [0, 1].
        kept: names of the entries of the model's state that kept their initial values, anchors not among them.
    """

    fraction: float
    kept: list[str]


def transfer_weights(model: nn.Module, weights: Mapping[str, Tensor], *, source: Path | str) -> TransferResult:
    """Copy the entries that agree in name and shape, start AKConv layers from convolutions, and say what was not.

    Anchors are not copied: they belong to the config.

    Args:
        model: changed in place.
        weights: a state dict.
        source: where they come from, for the message.
    """
    own = model.state_dict()
    moved = {
        name: tensor
        for name, tensor in weights.items()
        if name in own and own[name].shape == tensor.shape and not name.endswith(".anchors")
    }
    used = set(moved)
    started: dict[str, str] = {}
    for name, layer in model.named_modules():
        if isinstance(layer, AKConv) and f"{name}.conv.0.weight" not in moved:
            fit = _start(layer, name, weights, moved)
            if fit is not None:
                used |= {key for key in weights if key.startswith((f"{name}.conv.weight", f"{name}.bn."))}
                how = "exactly" if fit.kept > 1 - 1e-6 else f"{fit.kept:.0%} of its result"
                started[name] = f"{name} ({layer.num_param} points, {how})"
    model.load_state_dict(moved, strict=False)
    left = [name for name in own if name not in moved and not name.endswith(".anchors")]
    parameters = dict(model.named_parameters())
    copied = sum(parameter.numel() for name, parameter in parameters.items() if name in moved)
    fraction = copied / max(sum(parameter.numel() for parameter in parameters.values()), 1)
    LOGGER.info(f"Transferred {len(moved)}/{len(own)} items ({fraction:.1%} of the parameters) from {source}")
    if started:
        LOGGER.info(f"Started from the convolution they replace: {', '.join(started.values())}")
    fresh = [name for name in left if name.rpartition(".p_conv.")[0] not in started]
    _say("Not transferred", fresh, {n: "not in the file" if n not in weights else "other shapes" for n in fresh})
    unused = [name for name in weights if name not in used and not name.endswith(".anchors") and name not in own]
    _say("In the file but not used", unused, {})
    return TransferResult(fraction=fraction, kept=left)


def _say(what: str, names: list[str], reasons: Mapping[str, str]) -> None:
    """Log entries by layer, with the reasons there are."""
    layers: dict[str, set[str]] = {}
    for name in names:
        layers.setdefault(".".join(name.split(".")[:2]), set()).update({reasons[name]} if name in reasons else ())
    if layers:
        ordered = sorted(layers, key=lambda name: [len(name), name])
        texts = (f"{name} ({', '.join(sorted(layers[name]))})" if layers[name] else name for name in ordered)
        LOGGER.info(f"{what}: {', '.join(texts)}")


def _start(layer: AKConv, name: str, weights: Mapping[str, Tensor], moved: dict[str, Tensor]) -> KernelFit | None:
    """Add to `moved` what an AKConv layer takes from the convolution of the same name, if there is a fitting one."""
    columns, norm = cast(nn.Conv2d, layer.conv[0]), layer.conv[1].state_dict()
    kernel = weights.get(f"{name}.conv.weight")
    if kernel is None or kernel.ndim != 4 or kernel.shape[:2] != columns.weight.shape[:2]:
        return None
    size = kernel.shape[2]
    norms = {key: weights.get(f"{name}.bn.{key}") for key in norm}
    if size != kernel.shape[3] or size % 2 == 0 or any(t is None or t.shape != norm[k].shape for k, t in norms.items()):
        return None
    fit = fit_kernel(kernel, layer.points)
    moved[f"{name}.conv.0.weight"] = fit.weight
    moved.update({f"{name}.conv.1.{key}": tensor for key, tensor in norms.items() if tensor is not None})
    if columns.bias is not None:
        moved[f"{name}.conv.0.bias"] = torch.zeros_like(columns.bias)
    moved[f"{name}.p_conv.bias"] = torch.tensor(fit.shift).repeat_interleave(layer.num_param)
    return fit


def fit_kernel(kernel: Tensor, points: Tensor) -> KernelFit:
    """Carry a convolution's kernel over to sampling points, by least squares over the points' common place.

    Args:
        kernel: (O, C, k, k) with k odd, of a convolution whose padding keeps the size at stride 1.
        points: (N, 2) rows and columns relative to the output pixel, where a map is sampled bilinearly.

    Returns:
        Weights and place for which the mean square of (convolution - resampling), over maps whose pixels are correlated
        by NEIGHBOUR_CORRELATION to the power of their distance along rows plus columns, is least. Of equally good
        places the nearest to where the points are.
    """
    size = kernel.shape[2]
    side = torch.arange(size, dtype=torch.float64) - size // 2
    taps = torch.cartesian_prod(side, side)  # (k k, 2)
    flat = kernel.detach().double().cpu().flatten(2)  # (O, C, k k)
    points = points.detach().double().cpu()
    energy = torch.einsum("oct,ocu->tu", flat, flat)  # (k k, k k)
    between_taps = _covariance(taps, taps)
    total = float((energy * between_taps).sum())
    best: tuple[float, float, tuple[float, float], Tensor] | None = None
    for shift in _places(points):
        placed = points + torch.tensor(shift, dtype=torch.float64)
        across = _covariance(placed, taps)  # (N, k k)
        share = torch.linalg.pinv(_covariance(placed, placed), hermitian=True) @ across  # (N, k k): taps to points
        missed = float((energy * (between_taps - across.T @ share)).sum()) / total if total > 0 else 0.0
        distance = abs(shift[0]) + abs(shift[1])
        if best is None or missed < best[0] - 1e-9 or (missed < best[0] + 1e-9 and distance < best[1]):
            best = missed, distance, shift, share
    if best is None:
        raise ValueError("there are no points")
    missed, _, shift, share = best
    # Rounded far below float32, so that a point on a neighbour takes its weight unchanged.
    weight = (flat @ share.round(decimals=10).T).unsqueeze(-1)  # (O, C, N, 1)
    return KernelFit(weight=weight.to(kernel.dtype), shift=shift, kept=min(max(1 - missed, 0.0), 1.0))


def _places(points: Tensor) -> list[tuple[float, float]]:
    """Return where the points may be moved: not at all, or their middle to within a pixel of the output's."""
    middle = (points.amin(0) + points.amax(0)) / 2
    rows, columns = ([float(step - centre) for step in SHIFTS] for centre in middle)
    return [(0.0, 0.0), *itertools.product(rows, columns)]


def _covariance(first: Tensor, second: Tensor) -> Tensor:
    """Return the covariance (n, m) of samples at positions (n, 2) and (m, 2), bilinear among correlated pixels."""
    result = torch.ones(len(first), len(second), dtype=first.dtype)
    for axis in (0, 1):
        low = (first[:, axis].floor(), second[:, axis].floor())
        high_weight = (first[:, axis] - low[0], second[:, axis] - low[1])
        along = torch.zeros_like(result)
        for a, b in itertools.product((0, 1), (0, 1)):
            distance = ((low[0] + a)[:, None] - (low[1] + b)).abs()
            weights = (high_weight[0] if a else 1 - high_weight[0])[:, None] * (
                high_weight[1] if b else 1 - high_weight[1]
            )
            along += weights * NEIGHBOUR_CORRELATION**distance
        result = result * along
    return result
