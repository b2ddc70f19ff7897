"""Class activation maps: where in the image a layer's evidence for a score lies.

Letters: (C, h, w) channels, height and width of a layer's output; A its values, g the gradient of the score S by A.

The score is the logarithm of a confidence or of a sum of confidences. Its gradient is that of the confidence itself up
to a factor, which no map depends on; and it makes the confidence the Y = exp(S) for which Grad-CAM++ is derived.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from utils.explain.layers import record_maps
from utils.explain.target import Target


def activation_map(method: str, activations: Tensor, gradients: Tensor) -> Tensor:
    """Return the map (h, w) of a method, negative values set to 0, in double precision and not normalized.

    Args:
        method: `gradcam`: channels weighted by their mean gradient (Selvaraju et al. 2017, equations 1 and 2);
            `gradcam++`: weights of equations 10 and 19 of Chattopadhay et al. 2018; `layercam`: each value weighted by
            its own gradient if that is positive (Jiang et al. 2021, equations 5 and 6); `eigencam`: the projection on
            the first principal component of the channels (Muhammad and Yeasin 2020), which needs no gradient.
        activations: A, (C, h, w).
        gradients: g, (C, h, w).
    """
    values, slopes = activations.double(), gradients.double()
    if method == "eigencam":
        return principal_component(values).clamp(min=0)
    if method == "gradcam":
        weights = slopes.mean((1, 2), keepdim=True)
    elif method == "gradcam++":
        # The sum of alpha relu(g) with alpha = g^2 / (2 g^2 + g^3 sum A), where g = 0 without a part in it.
        denominator = 2 + values.sum((1, 2), keepdim=True) * slopes
        alpha = torch.where((slopes != 0) & (denominator != 0), 1 / denominator, 0.0)
        weights = (alpha * slopes.clamp(min=0)).sum((1, 2), keepdim=True)
    else:
        weights = slopes.clamp(min=0)
    return (weights * values).sum(0).clamp(min=0)


def principal_component(values: Tensor) -> Tensor:
    """Return the projection (h, w) of (C, h, w) values on the first principal component of their channels.

    The sign of a component is arbitrary. It is chosen so that the largest magnitude is positive, as in Seg-Eigen-CAM
    (Chung and Ying 2025, equation 13): objects cover less of an image than its background.
    """
    rows = values.flatten(1).T  # (h w, C)
    centred = rows - rows.mean(0)
    projection = centred @ torch.linalg.svd(centred, full_matrices=False).Vh[0]
    if projection.min().abs() > projection.max().abs():
        projection = -projection
    return projection.reshape(values.shape[1:])


def normalize(heat: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Return a map enlarged bilinearly and divided by its maximum; one without positive values remains 0.

    The minimum is not subtracted: 0 means no evidence.
    """
    enlarged = interpolate(heat[None, None], size=size_hw, mode="bilinear", align_corners=False)[0, 0]
    return enlarged / enlarged.max() if enlarged.max() > 0 else enlarged


def activation_maps(
    network: nn.Module, pixels: Tensor, target: Target, *, layers: Sequence[str], methods: Sequence[str]
) -> dict[tuple[str, str], Tensor | None]:
    """Return the map (h, w) of each layer and method for one image, (1, 3, H, W) in [0, 1], on the CPU.

    None means that the layer has no part in the score, as a map of another level than the detection's. The network is a
    detector in evaluation mode, `layers` are names of modules.
    """
    with torch.enable_grad(), record_maps(network, layers) as maps:
        score = target.log_score(network(pixels.detach().requires_grad_())[0][0])
    outputs = [maps[name] for name in layers]
    gradients = torch.autograd.grad(score, outputs, allow_unused=True, materialize_grads=True)
    return {
        (name, method): activation_map(method, output[0].detach(), slopes[0]).cpu()
        if slopes.any() or method == "eigencam"
        else None
        for name, output, slopes in zip(layers, outputs, gradients, strict=True)
        for method in methods
    }
