"""The optimizer and its parameter groups: who decays, and whose learning rate has a factor."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from utils.training.schedule import Schedule

OFFSET_CONVOLUTION = "p_conv"


def parameter_groups(model: nn.Module, *, weight_decay: float, offset_lr: float) -> list[dict[str, Any]]:
    """Sort the trainable parameters into groups.

    Args:
        model: the network; frozen parameters are left out.
        weight_decay: for weights of more than one dimension; biases and norms never decay.
        offset_lr: factor on the learning rate of AKConv's offset convolutions.

    Returns:
        Biases, weights, norm weights, in this order, as `results.csv` lists their rates; then, unless the factor is 1,
        biases and weights of the offset convolutions. Empty groups are kept out, the first three always stay.
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
    """Make SGD with Nesterov momentum, Adam or AdamW; the latter take `momentum` as beta1."""
    if name == "SGD":
        return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=momentum > 0)
    kind = {"Adam": torch.optim.Adam, "AdamW": torch.optim.AdamW}[name]
    return kind(groups, lr=lr, betas=(momentum, 0.999))


def set_rates(optimizer: torch.optim.Optimizer, schedule: Schedule, step: int) -> None:
    """Give every group of the optimizer its learning rate and momentum at a step."""
    momentum = schedule.momentum_at(step)
    for group in optimizer.param_groups:
        group["lr"] = schedule.learning_rate(step, bias=group["kind"] == "bias") * group["lr_factor"]
        if "momentum" in group:
            group["momentum"] = momentum
        else:
            group["betas"] = (momentum, group["betas"][1])
