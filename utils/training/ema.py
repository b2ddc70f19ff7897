"""The exponential moving average of the weights, which is what gets validated and kept."""

from __future__ import annotations

import copy
import math
from typing import Generic, TypeVar

import torch
from torch import nn

Module = TypeVar("Module", bound=nn.Module)

DECAY = 0.9999
TAU = 2000


class ModelEma(Generic[Module]):
    """A copy of the model whose floating-point state follows the training one.

    Attributes:
        model: the averaged model, in evaluation mode.
        updates: how often it was moved.
    """

    def __init__(self, model: Module, *, decay: float = DECAY, tau: float = TAU, updates: int = 0) -> None:
        """Start from the model as it is; the decay grows from 0 to `decay` over about `tau` updates."""
        self.model = copy.deepcopy(model).eval()
        self.model.requires_grad_(False)
        self.decay = decay
        self.tau = tau
        self.updates = updates

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move towards the model's present state."""
        self.updates += 1
        share = 1 - self.decay * (1 - math.exp(-self.updates / self.tau))
        present = model.state_dict()
        for name, averaged in self.model.state_dict().items():
            if averaged.is_floating_point():
                averaged.lerp_(present[name].to(averaged.dtype), share)
            else:
                averaged.copy_(present[name])
