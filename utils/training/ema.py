"""The exponential moving average (EMA) of the weights, which is validated, saved and used for inference."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn

from models.yolo import DetectionModel

DECAY = 0.9999  # which it approaches, from 0, over about TAU updates
TAU = 2000


class ModelEma:
    """A copy of a model, in evaluation mode, whose floating-point state follows that of the original."""

    def __init__(self, model: DetectionModel) -> None:
        self.model = copy.deepcopy(model).eval()
        self.model.requires_grad_(False)
        self.updates = 0  # so far

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the model's current state."""
        self.updates += 1
        step = 1 - DECAY * (1 - math.exp(-self.updates / TAU))
        current = model.state_dict()
        for name, averaged in self.model.state_dict().items():
            if averaged.is_floating_point():
                averaged.lerp_(current[name].to(averaged.dtype), step)
            else:
                averaged.copy_(current[name])
