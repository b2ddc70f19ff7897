"""What a run is besides its network: where it stands, and everything a checkpoint must hold to go on from there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from utils.errors import RunError
from utils.training.results_csv import Row, with_current_names


@dataclass(kw_only=True)
class TrainState:
    """Where a run stands: all that changes besides tensors.

    Attributes:
        epoch: epochs done.
        batch: batches done of the epoch that was interrupted, 0 between epochs.
        means: mean losses of those batches.
        counted: batches in these means, which are all but those skipped.
        last_step: step of the last optimizer update, counted in batches.
        skipped: batches skipped in a row, their loss or gradient being no number.
        best_fitness: so far.
        best_epoch: the epoch, from 0, that had it; -1 before the first.
        seconds: training and validation time so far.
        class_ap: mAP50-95 of every class at the last validation, for --image-weights.
        rows: results of every epoch done.
        told: kinds of trouble with the offsets that were warned of.
    """

    epoch: int = 0
    batch: int = 0
    means: dict[str, float] = field(default_factory=dict)
    counted: int = 0
    last_step: int = -1
    skipped: int = 0
    best_fitness: float = -1.0
    best_epoch: int = -1
    seconds: float = 0.0
    class_ap: list[float] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> TrainState:
        """Return what a checkpoint holds; lists and dicts are copied."""
        values = plain(dict(stored))
        return cls(**{**values, "rows": [with_current_names(row) for row in values.get("rows", [])]})


def pending_gradients(model: nn.Module) -> dict[str, Tensor]:
    """Return copies of the gradients that no optimizer step has used yet."""
    return {
        name: parameter.grad.detach().cpu().contiguous().clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


def finite_gradients(model: nn.Module) -> bool:
    """Whether all gradients gathered so far are numbers."""
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return not gradients or bool(torch.stack(torch._foreach_norm(gradients, float("inf"))).isfinite().all())


def restore_gradients(model: nn.Module, gradients: Mapping[str, Tensor]) -> None:
    """Put pending gradients back."""
    for name, parameter in model.named_parameters():
        parameter.grad = to_memory_format_of(parameter, gradients[name]) if name in gradients else None


def restore_optimizer(optimizer: torch.optim.Optimizer, stored: dict[str, Any], model: nn.Module) -> None:
    """Put an optimizer's state back, each tensor in the memory layout of its parameter."""
    optimizer.load_state_dict(stored)
    for parameter in model.parameters():
        state = optimizer.state.get(parameter, {})
        for key, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                state[key] = to_memory_format_of(parameter, value)


def to_memory_format_of(parameter: Tensor, value: Tensor) -> Tensor:
    """Return a value in the memory layout of its parameter: another layout adds up in another order, to other bits."""
    return torch.empty_like(parameter, requires_grad=False).copy_(value)


def require_finite_state(model: nn.Module, where: object) -> None:
    """Refuse to save a network that holds anything but numbers.

    Raises:
        RunError: names the tensor.
    """
    for name, value in model.state_dict().items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise RunError(where, f"{name} is no longer finite; nothing was saved", fix="lower lr0 in --hyp")


class BatchNormSnapshot:
    """Keeps a copy of a network's batch statistics, since a forward pass on bad numbers spoils them for good."""

    def __init__(self, model: nn.Module) -> None:
        """Find the statistics."""
        self.live = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
        self.kept = [torch.empty_like(buffer) for buffer in self.live]

    @torch.no_grad()
    def take(self) -> None:
        """Copy the present ones."""
        torch._foreach_copy_(self.kept, self.live)

    @torch.no_grad()
    def put_back(self) -> None:
        """Bring the copied ones back."""
        torch._foreach_copy_(self.live, self.kept)


def plain(value: Any) -> Any:  # noqa: ANN401
    """Return nested mappings and sequences as dicts and lists, which checkpoints and yaml hold."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(item) for item in value]
    return value
