"""The optimizer, its parameter groups, and the schedule of its rates as pure functions of the step."""

from __future__ import annotations

import functools
import inspect
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from utils.options.hyperparameters import Hyperparameters

OFFSET_CONVOLUTION = "p_conv"
MIN_WARMUP_STEPS = 100


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Learning rate, momentum and accumulation over a run."""

    hyperparameters: Hyperparameters
    epochs: int
    batches: int  # batches per epoch
    batch_size: int  # over all processes
    cosine: bool = False  # cosine decay of the learning rate, instead of linear

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


def scaled_weight_decay(weight_decay: float, *, nbs: float, batch_size: int) -> float:
    """Return the weight decay for as many images as an optimizer step has, given that for `nbs` images."""
    return weight_decay * (batch_size * max(round(nbs / batch_size), 1)) / nbs


def parameter_groups(model: nn.Module, *, weight_decay: float, offset_lr: float) -> list[dict[str, Any]]:
    """Return the trainable parameters in groups for an optimizer.

    Biases, weights and norm weights come first, in the order of the learning rates in `results.csv`, even if empty;
    then, unless `offset_lr` is 1, biases and weights of AKConv's offset convolutions, unless empty. It is a factor on
    their learning rate. Only weights with more than one dimension decay, and frozen parameters are left out.
    """
    keys = (("bias", False), ("weight", False), ("norm", False), ("bias", True), ("weight", True))
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {key: [] for key in keys}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        *path, last = name.split(".")
        offset = OFFSET_CONVOLUTION in path and offset_lr != 1
        kind = "bias" if last.endswith("bias") else "norm" if parameter.ndim == 1 else "weight"
        groups[(kind, offset and kind != "norm")].append(parameter)
    return [
        {
            "params": parameters,
            "kind": kind,
            "lr_factor": offset_lr if offset else 1.0,
            "weight_decay": weight_decay if kind == "weight" else 0.0,
        }
        for (kind, offset), parameters in groups.items()
        if parameters or not offset
    ]


def build_optimizer(name: str, groups: list[dict[str, Any]], *, lr: float, momentum: float) -> torch.optim.Optimizer:
    """Build SGD with Nesterov momentum, Adam or AdamW; for the latter two `momentum` is beta1."""
    kind = _without_compiler({"SGD": torch.optim.SGD, "Adam": torch.optim.Adam, "AdamW": torch.optim.AdamW}[name])
    if name == "SGD":
        return kind(groups, lr=lr, momentum=momentum, nesterov=momentum > 0)
    return kind(groups, lr=lr, betas=(momentum, 0.999))


@functools.cache
def _without_compiler(kind: type[torch.optim.Optimizer]) -> Any:  # noqa: ANN401 - the constructors differ
    """Return an optimizer class without the wrappers for `torch.compile`, whose first call takes a second to import it.

    What the methods compute is unchanged.
    """
    wrapped = ("add_param_group", "load_state_dict", "state_dict", "step", "zero_grad")
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in wrapped}
    return type(kind.__name__, (kind,), {**methods, "step": torch.no_grad()(methods["step"])})


def set_rates(optimizer: torch.optim.Optimizer, schedule: Schedule, step: int) -> None:
    """Set every group's learning rate and momentum, in place, to their values at a step."""
    momentum = schedule.momentum_at(step)
    for group in optimizer.param_groups:
        group["lr"] = schedule.learning_rate(step, bias=group["kind"] == "bias") * group["lr_factor"]
        if "momentum" in group:
            group["momentum"] = momentum
        else:
            group["betas"] = (momentum, group["betas"][1])
