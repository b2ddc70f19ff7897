"""Learning rate, momentum and gradient accumulation as pure functions of the step."""

from __future__ import annotations

import math
from dataclasses import dataclass

MIN_WARMUP_STEPS = 100


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The course of a training.

    Attributes:
        epochs: how many in all.
        batches: batches of one epoch.
        batch_size: images per batch.
        lr0: learning rate after warm-up.
        lrf: final learning rate as a share of lr0.
        cosine: half a cosine wave instead of a straight line.
        warmup_epochs: length of the warm-up.
        momentum: after warm-up.
        warmup_momentum: at its start.
        warmup_bias_lr: learning rate of biases at its start.
        nominal_batch: images whose gradients make one optimizer step after the warm-up.
    """

    epochs: int
    batches: int
    batch_size: int
    lr0: float
    lrf: float
    cosine: bool
    warmup_epochs: float
    momentum: float
    warmup_momentum: float
    warmup_bias_lr: float
    nominal_batch: float

    @property
    def warmup_steps(self) -> int:
        """Batches of the warm-up; none if it has no epochs, else at least 100."""
        return max(round(self.warmup_epochs * self.batches), MIN_WARMUP_STEPS) if self.warmup_epochs > 0 else 0

    def epoch_factor(self, epoch: int) -> float:
        """Share of lr0 in an epoch, from 1 down to lrf."""
        progress = epoch / self.epochs
        if self.cosine:
            return (1 - math.cos(progress * math.pi)) / 2 * (self.lrf - 1) + 1
        return (1 - progress) * (1 - self.lrf) + self.lrf

    def learning_rate(self, step: int, *, bias: bool = False) -> float:
        """Learning rate at a step, counted in batches from the start; biases come down from their own."""
        after = self.lr0 * self.epoch_factor(step // self.batches)
        return self._warming(step, self.warmup_bias_lr if bias else 0.0, after)

    def momentum_at(self, step: int) -> float:
        """Momentum at a step."""
        return self._warming(step, self.warmup_momentum, self.momentum)

    def accumulate(self, step: int) -> int:
        """Batches whose gradients are added before the optimizer steps, towards the nominal batch."""
        return max(round(self._warming(step, 1.0, self.nominal_batch / self.batch_size)), 1)

    def _warming(self, step: int, start: float, end: float) -> float:
        """Go from start to end over the warm-up, then stay."""
        if step >= self.warmup_steps:
            return end
        return start + (end - start) * step / self.warmup_steps
