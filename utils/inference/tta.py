"""Test-time augmentation: predictions at three scales, one of them flipped, go into NMS together.

As in YOLOv5, the largest view lacks the predictions of the coarsest level, which are of large objects, and the smallest
view those of the finest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.datasets.letterbox import PAD_VALUE
from utils.inference.detector import Detector
from utils.inference.ensemble import Ensemble

TTA_TRANSFORMS = ((1.0, False), (0.83, True), (0.67, False))  # scale, horizontal flip


class TtaModel(nn.Module):
    """A detector with test-time augmentation; it returns no raw maps."""

    def __init__(self, model: Detector) -> None:
        """Wrap a model in evaluation mode."""
        super().__init__()
        self.model = model
        self.num_classes = model.num_classes
        self.max_stride = model.max_stride

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Map (B, 3, H, W) in [0, 1] to the (B, n, 5 + classes) predictions of all transforms, in pixels."""
        outputs = []
        for view, (scale, flip) in enumerate(TTA_TRANSFORMS):
            transformed = images.flip(3) if flip else images
            predictions, raw = self.model(_resize(transformed, scale, self.max_stride))
            if view == 0:
                predictions = _without_level(predictions, raw, min)
            elif view == len(TTA_TRANSFORMS) - 1:
                predictions = _without_level(predictions, raw, max)
            center_x, center_y, width, height = (predictions[..., :4] / scale).unbind(-1)
            if flip:
                center_x = images.shape[3] - center_x
            boxes = torch.stack((center_x, center_y, width, height), -1)
            outputs.append(torch.cat((boxes, predictions[..., 4:]), -1))
        return torch.cat(outputs, 1), []


def augmented(model: Detector) -> Detector:
    """Return a model with test-time augmentation; of an ensemble, each model has its own."""
    if isinstance(model, Ensemble):
        return Ensemble([TtaModel(cast(Detector, member)) for member in model.models])
    return TtaModel(model)


def _without_level(predictions: Tensor, raw: Sequence[Tensor], choose: Callable[[Sequence[int]], int]) -> Tensor:
    """Drop the predictions (B, n, K) of the level with the least or most cells; of exported models nothing is known."""
    sizes = [level[0, ..., 0].numel() for level in raw]  # predictions per image, in order
    if len(sizes) < 2:
        return predictions
    dropped = sizes.index(choose(sizes))
    return torch.cat([part for level, part in enumerate(predictions.split(sizes, 1)) if level != dropped], 1)


def _resize(images: Tensor, scale: float, stride: int) -> Tensor:
    """Return images scaled by a factor up to 1, padded with grey at the right and bottom to the stride."""
    if scale == 1:
        return images
    height, width = (round(side * scale) for side in images.shape[2:])
    resized = F.interpolate(images, size=(height, width), mode="bilinear", align_corners=False)
    bottom, right = (math.ceil(side * scale / stride) * stride for side in images.shape[2:])
    return F.pad(resized, (0, right - width, 0, bottom - height), value=PAD_VALUE / 255)
