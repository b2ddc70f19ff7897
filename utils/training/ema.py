"""The exponential moving average (EMA) of the weights, which is validated, saved and used for inference."""

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
    """A copy of a model whose floating-point state follows that of the original.

    Attributes:
        model: the averaged model, in evaluation mode.
        updates: number of updates so far.
    """

    def __init__(self, model: Module, *, decay: float = DECAY, tau: float = TAU, updates: int = 0) -> None:
        """Copy the model; the decay grows from 0 to `decay` over about `tau` updates."""
        self.model = copy.deepcopy(model).eval()
        self.model.requires_grad_(False)
        self.decay = decay
        self.tau = tau
        self.updates = updates

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the model's current state."""
        self.updates += 1
        step = 1 - self.decay * (1 - math.exp(-self.updates / self.tau))
        current = model.state_dict()
        for name, averaged in self.model.state_dict().items():
            if averaged.is_floating_point():
                averaged.lerp_(current[name].to(averaged.dtype), step)
            else:
                averaged.copy_(current[name])
