"""Test-time augmentation: look three times, at three sizes and once mirrored, and let suppression choose."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.datasets.letterbox import PAD_VALUE

VIEWS = ((1.0, False), (0.83, True), (0.67, False))  # share of the size, mirrored


def predict_tta(network: Callable[[Tensor], tuple[Tensor, object]], images: Tensor, *, stride: int) -> Tensor:
    """Return the predictions of all views, in pixels of the given images.

    Args:
        network: a model in evaluation mode.
        images: (B, 3, H, W) in [0, 1].
        stride: H and W of every view are brought to a multiple of it by grey padding at the right and bottom.

    Returns:
        (B, n, 5 + classes), the predictions of one view after the other.
    """
    found = []
    for share, mirrored in VIEWS:
        view = images.flip(3) if mirrored else images
        predictions = network(_scaled(view, share, stride))[0]
        centre_x, centre_y, width, height = (predictions[..., :4] / share).unbind(-1)
        if mirrored:
            centre_x = images.shape[3] - centre_x
        boxes = torch.stack((centre_x, centre_y, width, height), -1)
        found.append(torch.cat((boxes, predictions[..., 4:]), -1))
    return torch.cat(found, 1)


class TtaModel(nn.Module):
    """A model that looks three times; takes and gives what the model itself does, but no raw maps.

    Attributes:
        num_classes: the model's.
        max_stride: the model's.
    """

    def __init__(self, model: nn.Module, *, num_classes: int, max_stride: int) -> None:
        """Wrap a model in evaluation mode."""
        super().__init__()
        self.model = model
        self.num_classes = num_classes
        self.max_stride = max_stride

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Map (B, 3, H, W) in [0, 1] to (B, n, 5 + classes) predictions of all views, in pixels."""
        return predict_tta(self.model, images, stride=self.max_stride), []


def _scaled(images: Tensor, share: float, stride: int) -> Tensor:
    """Return (B, 3, H, W) images at a share of their size, padded to a multiple of the stride."""
    if share == 1:
        return images
    height, width = (round(side * share) for side in images.shape[2:])
    smaller = F.interpolate(images, size=(height, width), mode="bilinear", align_corners=False)
    bottom, right = (math.ceil(side * share / stride) * stride for side in images.shape[2:])
    return F.pad(smaller, (0, right - width, 0, bottom - height), value=PAD_VALUE / 255)
