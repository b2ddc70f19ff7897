"""Learning rate, momentum and gradient accumulation as pure functions of the step."""

from __future__ import annotations

import math
from dataclasses import dataclass

from utils.options.hyperparameters import Hyperparameters

MIN_WARMUP_STEPS = 100


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Learning rate, momentum and accumulation over a run."""

    epochs: int  # number of epochs
    batches: int  # batches per epoch
    batch_size: int  # images per batch
    cosine: bool  # cosine instead of linear decay
    hyperparameters: Hyperparameters  # rates, momenta, length of the warm-up, and images per optimizer step after it

    @property
    def warmup_steps(self) -> int:
        """Batches of warm-up: at least 100, or none if `warmup_epochs` is 0."""
        epochs = self.hyperparameters.warmup_epochs
        return max(round(epochs * self.batches), MIN_WARMUP_STEPS) if epochs > 0 else 0

    def epoch_factor(self, epoch: int) -> float:
        """Factor on lr0 in an epoch, from 1 down to lrf."""
        progress, lrf = epoch / self.epochs, self.hyperparameters.lrf
        if self.cosine:
            return (1 - math.cos(progress * math.pi)) / 2 * (lrf - 1) + 1
        return (1 - progress) * (1 - lrf) + lrf

    def learning_rate(self, step: int, *, bias: bool = False) -> float:
        """Learning rate at a step, counted in batches from the start of the run."""
        after = self.hyperparameters.lr0 * self.epoch_factor(step // self.batches)
        return self._warmup(step, self.hyperparameters.warmup_bias_lr if bias else 0.0, after)

    def momentum_at(self, step: int) -> float:
        """Momentum at a step."""
        return self._warmup(step, self.hyperparameters.warmup_momentum, self.hyperparameters.momentum)

    def accumulate(self, step: int) -> int:
        """Batches whose gradients are accumulated for an optimizer step."""
        return max(round(self._warmup(step, 1.0, self.hyperparameters.nbs / self.batch_size)), 1)

    def _warmup(self, step: int, start: float, end: float) -> float:
        """Interpolate from start to end during warm-up."""
        if step >= self.warmup_steps:
            return end
        return start + (end - start) * step / self.warmup_steps
