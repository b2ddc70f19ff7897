"""A run's checkpoints: what they hold, how they are written, and how a run goes on from one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from utils.errors import RunError
from utils.files import keep_backup
from utils.log import LOGGER
from utils.runtime import numerics_fingerprint
from utils.training.state import (
    TrainState,
    pending_gradients,
    plain,
    restore_gradients,
    restore_optimizer,
)
from utils.weights.checkpoint import Checkpoint, describe_model, save_checkpoint, weights_of

if TYPE_CHECKING:
    from utils.training.trainer import Trainer


class RunCheckpoints:
    """The files in a run's `weights` folder.

    Attributes:
        folder: where they lie.
        last: `last.pt`, from which a run goes on.
        saved: epochs that it holds, None before it is written or read.
    """

    def __init__(self, folder: Path, *, written: Callable[[Path], None]) -> None:
        """Write nothing yet.

        Args:
            folder: where they will lie.
            written: is told of every file.
        """
        self.folder = folder
        self.last = folder / "last.pt"
        self.saved: int | None = None
        self._written = written

    def write(self, name: str, content: Checkpoint) -> None:
        """Write one checkpoint.

        Raises:
            RunError: it cannot be written; says from where the run can go on.
        """
        path = self.folder / name
        try:
            save_checkpoint(path, content)
        except RunError as error:
            resume = f"free space, then python train.py --resume {self.last}, whole after {self.saved} of its epochs"
            raise RunError(path, error.what, fix=resume if self.saved is not None else "free space") from error
        self._written(path)

    def write_last(self, content: Checkpoint, *, epochs: int) -> None:
        """Write `last.pt` after so many epochs, and keep the one before as `last.bak.pt`."""
        keep_backup(self.last)
        self.write(self.last.name, content)
        self.saved = epochs


def model_state(trainer: Trainer) -> Checkpoint:
    """Return the averaged model and where it comes from: all that judging and detecting need."""
    return {
        **describe_model(trainer.ema.model, trainer.data.names),
        "ema": weights_of(trainer.ema.model),
        "options": plain(asdict(trainer.options)),
        "hyperparameters": asdict(trainer.hyperparameters),
        "epoch": trainer.progress.epoch,
        "image_size": trainer.image_size,
    }


def run_state(trainer: Trainer) -> Checkpoint:
    """Return all that a run needs to go on as if never stopped, gradients not yet applied included.

    Every process of a run has to call it, as each gives its gradients.
    """
    return {
        **model_state(trainer),
        "model": weights_of(trainer.model),
        "updates": trainer.ema.updates,
        "optimizer": trainer.optimizer.state_dict(),
        "scaler": trainer.scaler.state_dict(),
        "gradients": trainer.team.gather(pending_gradients(trainer.model)),
        "progress": asdict(trainer.progress),
        "random": torch.get_rng_state(),
        "dataset": trainer.data.train.fingerprint(),
        "machine": numerics_fingerprint(),
    }


def restore_run(trainer: Trainer, content: Checkpoint) -> None:
    """Put back what `run_state` returned.

    Raises:
        RunError: pending gradients of another number of processes.
    """
    trainer.model.load_state_dict(content["model"])
    trainer.ema.model.load_state_dict(content["ema"])
    trainer.ema.updates = content["updates"]
    restore_optimizer(trainer.optimizer, content["optimizer"], trainer.model)
    trainer.scaler.load_state_dict(content["scaler"])
    pending, team = content["gradients"], trainer.team
    if len(pending) != team.size:
        raise RunError("--resume", f"the run had {len(pending)} processes (now {team.size})", fix="start as many")
    restore_gradients(trainer.model, pending[team.rank])
    trainer.progress = TrainState.from_dict(content["progress"])
    trainer.checkpoints.saved = trainer.progress.epoch
    torch.set_rng_state(content["random"])
    stored = content.get("machine", {})
    changed = {name: value for name, value in numerics_fingerprint().items() if stored.get(name) != value}
    if changed and team.is_main:
        now = ", ".join(f"{name} {value}" for name, value in changed.items())
        LOGGER.warning(f"numerics changed (now {now}); resuming without bitwise reproducibility")
