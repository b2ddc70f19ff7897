"""The optimizer and its parameter groups: weight decay, and the learning rate of AKConv's offsets."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from utils.training.schedule import Schedule

OFFSET_CONVOLUTION = "p_conv"


def parameter_groups(model: nn.Module, *, weight_decay: float, offset_lr: float) -> list[dict[str, Any]]:
    """Return the trainable parameters in groups for an optimizer.

    Args:
        model: the network; frozen parameters are left out.
        weight_decay: of weights with more than one dimension; biases and norms do not decay.
        offset_lr: factor on the learning rate of AKConv's offset convolutions.

    Returns:
        Biases, weights and norm weights, in the order of the learning rates in `results.csv`, even if empty; then,
        unless the factor is 1, biases and weights of the offset convolutions, unless empty.
    """
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {
        ("bias", False): [],
        ("weight", False): [],
        ("norm", False): [],
        ("bias", True): [],
        ("weight", True): [],
    }
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
    if name == "SGD":
        return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=momentum > 0)
    kind = {"Adam": torch.optim.Adam, "AdamW": torch.optim.AdamW}[name]
    return kind(groups, lr=lr, betas=(momentum, 0.999))


def set_rates(optimizer: torch.optim.Optimizer, schedule: Schedule, step: int) -> None:
    """Set every group's learning rate and momentum, in place, to their values at a step."""
    momentum = schedule.momentum_at(step)
    for group in optimizer.param_groups:
        group["lr"] = schedule.learning_rate(step, bias=group["kind"] == "bias") * group["lr_factor"]
        if "momentum" in group:
            group["momentum"] = momentum
        else:
            group["betas"] = (momentum, group["betas"][1])
