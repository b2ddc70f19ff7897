"""Guards against NaN and infinity: a batch that produces them leaves no trace in the weights or in a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from utils.errors import RunError
from utils.files import dump_json
from utils.log import LOGGER, optional

MAX_SKIPPED = 10
SKIPPED_BATCH = "skipped_batch.json"


class BatchNormSnapshot:
    """A copy of a model's floating-point batch norm statistics, which a forward pass on bad values spoils for good."""

    def __init__(self, model: nn.Module) -> None:
        self.live = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
        self.saved = [torch.empty_like(buffer) for buffer in self.live]

    @torch.no_grad()
    def save(self) -> None:
        """Copy the current statistics."""
        torch._foreach_copy_(self.saved, self.live)

    @torch.no_grad()
    def restore(self) -> None:
        """Put the saved statistics back, in place."""
        torch._foreach_copy_(self.live, self.saved)


def finite_gradients(model: nn.Module) -> bool:
    """Whether all gradients accumulated so far are finite."""
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return not gradients or bool(torch.stack(torch._foreach_norm(gradients, float("inf"))).isfinite().all())


def require_finite_state(model: nn.Module, where: object) -> None:
    """Raise a RunError that names a tensor which is not finite, before the model is saved."""
    for name, value in model.state_dict().items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise RunError(where, f"{name} is no longer finite; nothing was saved", fix="lower lr0 in --hyp")


def report_skipped_batch(skipped: dict[str, Any], *, in_a_row: int, folder: Path | None) -> None:
    """Log a skipped batch, and write it to `skipped_batch.json` in the folder, if there is one.

    Args:
        skipped: `epoch`, `batch`, `seed`, `reason`, and `images`: the file names of all processes' parts.
        in_a_row: how many batches in a row were skipped.
        folder: the run's, in the main process.

    Raises:
        RunError: too many batches in a row were skipped.
    """
    epoch, reason, names = skipped["epoch"], skipped["reason"], skipped["images"]
    images = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    LOGGER.warning(f"epoch {epoch}, batch {skipped['batch']} skipped: {reason}; images {images}")
    if folder is not None:
        with optional():
            dump_json(folder / SKIPPED_BATCH, skipped)
    if in_a_row >= MAX_SKIPPED:
        what = f"{MAX_SKIPPED} batches in a row failed ({reason}; {images})"
        raise RunError(f"epoch {epoch}", what, fix="lower lr0 in --hyp, or try --no-amp")
