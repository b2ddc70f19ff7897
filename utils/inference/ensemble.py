"""Detectors made of detectors: an ensemble of several, and one whose classes count as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from utils.inference.detector import Detector


class Ensemble(nn.Module):
    """Models of the same classes whose predictions are concatenated, so that NMS chooses among all of them."""

    def __init__(self, models: Sequence[Detector]) -> None:
        """Wrap models in evaluation mode; their strides may differ."""
        super().__init__()
        self.models = nn.ModuleList(cast(Sequence[nn.Module], models))
        self.num_classes = models[0].num_classes
        self.max_stride = max(model.max_stride for model in models)

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Map (B, 3, H, W) to (B, n1 + n2 + ..., 5 + classes) predictions in pixels; there are no raw maps."""
        return torch.cat([model(images)[0] for model in self.models], 1), []


class SingleClassWrapper(nn.Module):
    """A detector with one class: the probability of a box is that of its best class in the wrapped model."""

    num_classes = 1

    def __init__(self, model: Detector) -> None:
        """Wrap a model in evaluation mode."""
        super().__init__()
        self.model = model
        self.max_stride = model.max_stride

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Map (B, 3, H, W) to (B, n, 6) predictions in pixels; there are no raw maps."""
        predictions = self.model(images)[0]
        return torch.cat((predictions[..., :5], predictions[..., 5:].amax(-1, keepdim=True)), -1), []
