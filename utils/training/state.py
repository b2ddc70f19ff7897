"""The state of a run: what last.pt holds, how it is written, and how it is restored (checked by resume_checks.py)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.yolo import DetectionModel
from utils.distributed import DistributedContext
from utils.errors import CheckpointError, RunError
from utils.files import keep_backup, remove_files, sync_folder
from utils.log import LOGGER
from utils.options import TrainOptions
from utils.options.hyperparameters import Hyperparameters
from utils.runtime import numerics_fingerprint
from utils.training.ema import ModelEma
from utils.training.results_csv import Row, with_current_names
from utils.weights.checkpoint import Checkpoint, describe_model, load_checkpoint, save_checkpoint, weights_of

LAST, SUMMARY, RESULTS = "last.pt", "summary.json", "results.csv"
BACKUPS = ("last.bak.pt", "last.prev.pt")  # the second was written by version 0.1.0
EARLIER = "last.earlier.pt"  # of the run that had the folder before
RENAMED_FIELDS = {"told": "emitted_warnings"}
RENAMED_WARNINGS = {"exploded": "diverged", "still": "frozen"}


@dataclass(kw_only=True)
class Progress:
    """How far a run has come: everything that changes, apart from tensors."""

    epoch: int = 0  # completed epochs
    batch: int = 0  # completed batches of the current epoch; 0 between epochs
    means: dict[str, float] = field(default_factory=dict)  # mean losses of these batches
    counted: int = 0  # batches in the means, that is, all but the skipped ones
    last_step: int = -1  # index of the batch after which the optimizer stepped last, counted from the start of the run
    skipped: int = 0  # consecutive batches skipped for a non-finite loss or gradient
    best_fitness: float = -1.0  # best fitness so far
    best_epoch: int = -1  # the epoch of the best fitness, from 0; -1 before the first validation
    seconds: float = 0.0  # training and validation time so far
    class_ap: list[float] = field(default_factory=list)  # mAP50-95 per class, last validation, for --image-weights
    rows: list[Row] = field(default_factory=list)  # results of all completed epochs
    emitted_warnings: list[str] = field(default_factory=list)  # kinds of offset warnings that were logged

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Progress:
        """Return a copy of what a checkpoint holds, with the names of version 0.1.0 replaced."""
        progress = cls(**to_builtin(with_current_fields(stored)))
        progress.rows = [with_current_names(row) for row in progress.rows]
        progress.emitted_warnings = [RENAMED_WARNINGS.get(kind, kind) for kind in progress.emitted_warnings]
        return progress

    def add_losses(self, losses: Mapping[str, float]) -> None:
        """Include a batch's losses in the means."""
        self.skipped = 0
        self.counted += 1
        for name, value in losses.items():
            self.means[name] += (value - self.means[name]) / self.counted

    def finish_epoch(self, row: Row) -> None:
        """Append an epoch's results."""
        self.rows.append(row)
        self.epoch, self.batch, self.means = self.epoch + 1, 0, {}

    def out_of_patience(self, patience: int) -> bool:
        """Whether the best epoch is `patience` or more epochs ago; never if `patience` is 0."""
        return patience > 0 and self.best_epoch >= 0 and self.epoch - 1 - self.best_epoch >= patience


@dataclass(kw_only=True)
class TrainState:
    """What the checkpoints of a run hold: its description, and the parts that change while it trains."""

    options: TrainOptions
    hyperparameters: Hyperparameters
    names: tuple[str, ...]  # class names
    image_size: int  # side of the training images in pixels
    dataset: str  # fingerprint of the training split
    model: DetectionModel
    ema: ModelEma
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    context: DistributedContext
    progress: Progress = field(default_factory=Progress)

    def model_dict(self) -> Checkpoint:
        """Return the averaged model and its origin: what best.pt holds."""
        return {
            **describe_model(self.ema.model, self.names),
            "ema": weights_of(self.ema.model),
            "options": to_builtin(asdict(self.options)),
            "hyperparameters": asdict(self.hyperparameters),
            "epoch": self.progress.epoch,
            "image_size": self.image_size,
        }

    def state_dict(self) -> Checkpoint:
        """Return what last.pt holds. All processes must call this, because each contributes its pending gradients."""
        return {
            **self.model_dict(),
            "model": weights_of(self.model),
            "updates": self.ema.updates,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "gradients": self.context.gather(_pending_gradients(self.model)),
            "progress": to_builtin(vars(self.progress)),
            "dataset": self.dataset,
            "machine": numerics_fingerprint(),
        }

    def load_state_dict(self, content: Checkpoint) -> None:
        """Restore what `state_dict` returned, once `validate_checkpoint` has accepted it."""
        self.model.load_state_dict(content["model"])
        self.ema.model.load_state_dict(content["ema"])
        self.ema.updates = content["updates"]
        _restore_optimizer(self.optimizer, content["optimizer"])
        self.scaler.load_state_dict(content["scaler"])
        _restore_gradients(self.model, content["gradients"][self.context.rank])
        self.progress = Progress.from_dict(content["progress"])
        stored = content.get("machine", {})
        changed = [f"{name} {value}" for name, value in numerics_fingerprint().items() if stored.get(name) != value]
        if changed and self.context.is_main:
            LOGGER.warning(f"numerics changed (now {', '.join(changed)}); resuming without bitwise reproducibility")


def with_current_fields(stored: Any) -> Any:  # noqa: ANN401 - not checked yet
    """Rename the fields of version 0.1.0 in a stored `Progress`; return anything but a mapping as it is."""
    if not isinstance(stored, Mapping):
        return stored
    return {RENAMED_FIELDS.get(name, name): value for name, value in stored.items()}


def load_last(path: Path) -> tuple[Checkpoint, Path]:
    """Read the checkpoint to resume from, or if it is damaged its backup; return also which file was read."""
    try:
        return load_checkpoint(path), path
    except CheckpointError as error:
        backup = next((p for p in map(path.with_name, BACKUPS) if p.is_file()), None)
        if backup is None:
            raise
        LOGGER.warning(f"{error} Resuming from backup {backup}, one epoch earlier")
        return load_checkpoint(backup), backup


def set_aside_earlier_run(run_dir: Path) -> None:
    """Let an earlier run of a folder (--exist-ok) neither be resumed nor taken for finished in place of the new one.

    Its last.pt becomes last.earlier.pt. All of it is on disk before the new run writes anything. RunError if it fails.
    """
    last = run_dir / "weights" / LAST
    try:
        # In an order that leaves at each point the earlier run as it was, or one that cannot be resumed.
        remove_files(*map(last.with_name, BACKUPS))
        if last.is_file():
            last.replace(last.with_name(EARLIER))
            sync_folder(last.parent)
        remove_files(run_dir / SUMMARY, run_dir / RESULTS)
    except OSError as error:
        raise RunError(run_dir, f"cannot be written ({error.strerror})", fix="choose another --name") from error


class CheckpointFolder:
    """Writes the files in a run's `weights` folder; `on_save` is called with the path of each."""

    def __init__(self, folder: Path, *, on_save: Callable[[Path], None]) -> None:
        self.folder, self._on_save = folder, on_save
        self.last = folder / LAST  # from which a run resumes
        self.saved_epochs: int | None = None  # completed epochs in `last`; None before it is written or read

    def write(self, name: str, content: Checkpoint) -> None:
        """Write a checkpoint; a RunError, if it cannot be written, says from where the run can be resumed."""
        path = self.folder / name
        try:
            save_checkpoint(path, content)
        except RunError as error:
            resume = f", then run python train.py --resume {self.last} ({self.saved_epochs} epochs are saved)"
            fix = f"free space{resume if self.saved_epochs is not None else ''}"
            raise RunError(path, error.what, fix=fix) from error
        self._on_save(path)

    def write_last(self, content: Checkpoint, *, epochs: int) -> None:
        """Write `last.pt` after so many completed epochs; the previous one becomes the backup."""
        keep_backup(self.last)
        self.write(self.last.name, content)
        self.saved_epochs = epochs


def to_builtin(value: Any) -> Any:  # noqa: ANN401
    """Copy nested mappings and sequences to dicts and lists, the only containers in checkpoints and yaml files."""
    if isinstance(value, Mapping):
        return {key: to_builtin(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [to_builtin(item) for item in value]
    return value


def _pending_gradients(model: nn.Module) -> dict[str, Tensor]:
    """Return copies of the gradients accumulated since the last optimizer step."""
    return {
        name: parameter.grad.detach().cpu().contiguous().clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


def _restore_gradients(model: nn.Module, gradients: Mapping[str, Tensor]) -> None:
    for name, parameter in model.named_parameters():
        parameter.grad = _to_memory_format_of(parameter, gradients[name]) if name in gradients else None


def _restore_optimizer(optimizer: torch.optim.Optimizer, stored: dict[str, Any]) -> None:
    optimizer.load_state_dict(stored)
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                state[key] = _to_memory_format_of(parameter, value)


def _to_memory_format_of(parameter: Tensor, value: Tensor) -> Tensor:
    """Copy a value to its parameter's memory layout: another layout sums in another order, to other bits."""
    return torch.empty_like(parameter, requires_grad=False).copy_(value)
