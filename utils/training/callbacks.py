"""Places in a training where a user's own code may listen, under the names users know.

In a file named with `--plugins`:

    from utils.training.callbacks import Callback, register_callback

    @register_callback
    class Printer(Callback):
        def on_fit_epoch_end(self, trainer, row):
            print(row["metrics/mAP_0.5"])
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from utils.errors import ConfigError
from utils.log import LOGGER
from utils.training.results_csv import Row

if TYPE_CHECKING:
    from utils.training.trainer import Trainer


class Callback:
    """Listens to a training; every method may be left out. In a run of several processes only the first one calls."""

    def on_train_start(self, trainer: Trainer) -> None:
        """Before the first epoch of this process."""

    def on_train_epoch_end(self, trainer: Trainer, losses: dict[str, float]) -> None:
        """After an epoch's batches, with the mean losses."""

    def on_fit_epoch_end(self, trainer: Trainer, row: Row) -> None:
        """After an epoch's validation, with its row of results.csv."""

    def on_model_save(self, trainer: Trainer, path: Path) -> None:
        """After a checkpoint was written."""

    def on_train_end(self, trainer: Trainer) -> None:
        """After the last epoch."""


CallbackClass = TypeVar("CallbackClass", bound=type[Callback])
_REGISTERED: dict[str, type[Callback]] = {}


def register_callback(kind: CallbackClass) -> CallbackClass:
    """Make an instance of this class listen to every training started afterwards."""
    _REGISTERED[f"{kind.__module__}.{kind.__qualname__}"] = kind
    return kind


def make_callbacks(run_dir: Path, *, tensorboard: bool) -> list[Callback]:
    """Return the listeners of a run: those registered, and TensorBoard's where asked.

    Raises:
        ConfigError: TensorBoard is not installed.
    """
    listeners = [kind() for kind in _REGISTERED.values()]
    if tensorboard:
        listeners.append(TensorBoard(run_dir))
    return listeners


def require_tensorboard() -> None:
    """Check that TensorBoard is installed.

    Raises:
        ConfigError: it is not.
    """
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        raise ConfigError("--tensorboard", "tensorboard is not installed", fix="pip install tensorboard") from error


class TensorBoard(Callback):
    """Writes every number of results.csv, epoch by epoch, to `<run>/tensorboard`."""

    def __init__(self, run_dir: Path) -> None:
        """Open the folder; a resumed run writes a further file into it."""
        require_tensorboard()
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(run_dir / "tensorboard"))

    def on_fit_epoch_end(self, trainer: Trainer, row: Row) -> None:
        """Write an epoch's numbers."""
        try:
            for name, value in row.items():
                if name != "epoch" and value == value:
                    self.writer.add_scalar(name, value, int(row["epoch"]))
            self.writer.flush()
        except OSError as error:  # a full disk: results.csv has the same numbers
            LOGGER.warning(f"left out: TensorBoard's file of epoch {row['epoch']} ({error.strerror})")

    def on_train_end(self, trainer: Trainer) -> None:
        """Close the file."""
        self.writer.close()
