"""Callbacks: a user's own code in a file of --plugins, called at the events of a training run; see docs/training.md."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, TypeVar

from models.yolo import DetectionModel
from utils.errors import ConfigError
from utils.log import LOGGER
from utils.training.results_csv import Row
from utils.training.state import TrainState


class Run(Protocol):
    """What callbacks may read of a trainer."""

    run_dir: Path
    model: DetectionModel
    state: TrainState


class Callback:
    """Base class; override what you need. Of several processes only the main one calls its callbacks."""

    def on_train_start(self, trainer: Run) -> None:
        """Called before the first epoch of this process."""

    def on_train_epoch_end(self, trainer: Run, losses: dict[str, float]) -> None:
        """Called after the last batch of an epoch, with its mean losses."""

    def on_fit_epoch_end(self, trainer: Run, row: Row) -> None:
        """Called after an epoch is validated and saved, with its row of results.csv."""

    def on_model_save(self, trainer: Run, path: Path) -> None:
        """Called after a checkpoint is written."""

    def on_train_end(self, trainer: Run) -> None:
        """Called after the last epoch."""


CallbackClass = TypeVar("CallbackClass", bound=type[Callback])
_REGISTERED: dict[str, type[Callback]] = {}


def register_callback(kind: CallbackClass) -> CallbackClass:
    """Add a class to the callbacks of all runs that start from now on."""
    _REGISTERED[f"{kind.__module__}.{kind.__qualname__}"] = kind
    return kind


def make_callbacks(run_dir: Path, *, tensorboard: bool) -> list[Callback]:
    """Return the callbacks of a run: those registered, and TensorBoard's if requested."""
    callbacks = [kind() for kind in _REGISTERED.values()]
    return [*callbacks, TensorBoard(run_dir)] if tensorboard else callbacks


def require_tensorboard() -> None:
    """Raise a ConfigError if TensorBoard is not installed."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        fix = "install it: pip install tensorboard"
        raise ConfigError("--tensorboard", "tensorboard is not installed", fix=fix) from error


class TensorBoard(Callback):
    """Writes the rows of results.csv to `<run>/tensorboard`; a resumed run adds a file to that folder."""

    def __init__(self, run_dir: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(run_dir / "tensorboard"))

    def on_fit_epoch_end(self, trainer: Run, row: Row) -> None:
        """Write an epoch's values, except nan."""
        try:
            for name, value in row.items():
                if name != "epoch" and value == value:
                    self.writer.add_scalar(name, value, int(row["epoch"]))
            self.writer.flush()
        except OSError as error:  # a full disk: results.csv has the same values
            LOGGER.warning(f"skipped: TensorBoard's file for epoch {row['epoch']} ({error.strerror})")

    def on_train_end(self, trainer: Run) -> None:
        """Close the file."""
        self.writer.close()
