"""The training loop over epochs. A run that is interrupted at any batch resumes to the same bits."""

from __future__ import annotations

import functools
import itertools
import math
import time
from collections.abc import Mapping, Sequence

from utils.errors import RunStopped
from utils.inference.nms import EVALUATION_NMS
from utils.log import LOGGER
from utils.signals import GracefulShutdown, StopRequested
from utils.structures import Batch
from utils.training.callbacks import Callback
from utils.training.data import VAL_BATCH_FACTOR
from utils.training.epoch import EpochTrainer, require_finite_state
from utils.training.offset_monitor import OffsetMonitor
from utils.training.results_csv import epoch_line, header_line, results_row, write_results
from utils.training.state import RESULTS, CheckpointFolder
from utils.validation.evaluate import EvaluatedBatch, Evaluation, evaluate

WAITING_IS_HIGH = 0.2  # fraction of the training time


class Trainer:
    """One run, whose parts `build_trainer` builds; `state` is everything that changes, and that last.pt holds."""

    def __init__(self, epoch_trainer: EpochTrainer) -> None:
        self.config, self.state, self.data = epoch_trainer.config, epoch_trainer.state, epoch_trainer.data
        self.run_dir = epoch_trainer.run_dir
        self.model = self.state.model
        on_save = functools.partial(self._notify, "on_model_save")
        self.checkpoints = CheckpointFolder(self.run_dir / "weights", on_save=on_save)
        self._epoch_trainer, self.device = epoch_trainer, epoch_trainer.device
        self._offsets = OffsetMonitor(self.state.ema.model, offset_lr=self.state.hyperparameters.offset_lr)
        self._shutdown = GracefulShutdown()
        self._callbacks: Sequence[Callback] = ()
        self._waiting_reported = False
        self._started = 0.0  # when the time began that progress.seconds lacks

    def train(self, callbacks: Sequence[Callback] = ()) -> None:
        """Train to the last epoch, or until the fitness stops improving.

        Raises:
            RunError: too many batches in a row were not finite, or a checkpoint could not be written.
            RunStopped: Ctrl-C or SIGTERM; the run was saved.
        """
        progress, config = self.state.progress, self.config
        self._callbacks = callbacks
        LOGGER.info(header_line())
        self._notify("on_train_start")
        with self._shutdown:
            try:
                for epoch in range(progress.epoch, config.epochs):
                    if progress.out_of_patience(config.patience):
                        best = progress.best_epoch
                        LOGGER.info(f"Stopped: no better fitness since epoch {best}, --patience {config.patience}")
                        break
                    self._fit_epoch(epoch)
            except StopRequested:
                self._save_stopped()
        self._notify("on_train_end")

    def _fit_epoch(self, epoch: int) -> None:
        """Train an epoch or the rest of it, validate, save, and log."""
        progress, epochs = self.state.progress, self.config.epochs
        self._started = time.perf_counter()
        data_wait = self._epoch_trainer.train(epoch, self._shutdown)
        training_time = time.perf_counter() - self._started
        losses = progress.means
        self._notify("on_train_epoch_end", losses)
        is_last = epoch + 1 == epochs
        evaluation = self.validate() if is_last or self.config.validate_every_epoch else None
        self._finish_epoch(epoch, losses, evaluation)
        progress.seconds += time.perf_counter() - self._started
        self._save(evaluation)
        self._notify("on_fit_epoch_end", progress.rows[-1])
        remaining = (epochs - progress.epoch) * progress.seconds / progress.epoch
        LOGGER.info(epoch_line(progress.rows[-1], epochs, remaining=remaining, device=self.device))
        self._report_waiting(data_wait / max(training_time, 1e-9))

    def _report_waiting(self, fraction: float) -> None:
        """Log once if much of an epoch's training is spent waiting for data."""
        if fraction > WAITING_IS_HIGH and not self._waiting_reported:
            self._waiting_reported = True
            LOGGER.info(f"{fraction:.0%} of the training waits for data; more --workers or --cache would help")

    def validate(self) -> Evaluation:
        """Evaluate the averaged model on the validation split, a part in each process, and measure its offsets.

        Raises:
            StopRequested: in all processes, if one has received a signal.
        """
        context, size = self.state.context, self.state.context.size
        number_of_batches = math.ceil(len(self.data.val) / (VAL_BATCH_FACTOR * self.config.batch_size))
        context.broadcast_state(self.state.ema.model)  # without --sync-bn each process has its own statistics

        def measure_offsets(batch_index: int, batch: Batch, _: object) -> None:
            self._offsets.record_offsets(context.rank + size * batch_index, number_of_batches, batch)

        def exchange(batches: list[EvaluatedBatch]) -> list[EvaluatedBatch]:
            if context.any(self._shutdown.signal is not None):
                raise StopRequested
            self._offsets.exchange(context.gather)
            parts = context.gather(batches)
            return [parts[i % size][i // size] for i in range(sum(map(len, parts)))]

        return evaluate(
            self.state.ema.model,
            itertools.takewhile(lambda _: self._shutdown.signal is None, self.data.val_loader),
            nms=EVALUATION_NMS,
            device=self.device,
            loss=self._epoch_trainer.weighted_losses,
            half=self.state.scaler.is_enabled(),
            on_batch=measure_offsets,
            exchange=exchange,
        )

    def _finish_epoch(self, epoch: int, losses: Mapping[str, float], evaluation: Evaluation | None) -> None:
        """Append the epoch's results and update the best fitness, which the main process broadcasts."""
        progress = self.state.progress
        progress.emitted_warnings += self._offsets.warn(epoch, emitted=progress.emitted_warnings)
        row = results_row(
            epoch,
            losses=losses,
            evaluation=evaluation,
            learning_rates=[group["lr"] for group in self.state.optimizer.param_groups[:3]],
            offsets=self._offsets.pop_columns(),
        )
        progress.finish_epoch(row)
        fitness, ap = None, progress.class_ap
        if evaluation is not None:
            fitness, ap = evaluation.metrics.fitness, class_ap(evaluation, self.state.model.num_classes)
        fitness, progress.class_ap = self.state.context.broadcast((fitness, ap))
        if fitness is not None and fitness > progress.best_fitness:
            progress.best_fitness, progress.best_epoch = fitness, epoch

    def _save(self, evaluation: Evaluation | None) -> None:
        """Write results.csv and the checkpoints that are due."""
        progress, config = self.state.progress, self.config
        content = self.state.state_dict()
        if not self.state.context.is_main:
            return
        require_finite_state(self.state.ema.model, f"epoch {progress.epoch - 1}")
        write_results(progress.rows, self.run_dir / RESULTS)
        model_only = self.state.model_dict()
        # Until the first validation each epoch counts as the best.
        if progress.best_epoch == (progress.epoch - 1 if evaluation is not None else -1):
            self.checkpoints.write("best.pt", model_only)
        if config.save_period > 0 and progress.epoch % config.save_period == 0:
            self.checkpoints.write(f"epoch{progress.epoch}.pt", model_only)
        is_last = progress.epoch == config.epochs or progress.out_of_patience(config.patience)
        if is_last or config.save_every_epoch:
            # Written last, so that a run resumed from it has all other files of its epoch.
            self.checkpoints.write_last(content, epochs=progress.epoch)

    def _save_stopped(self) -> None:
        """Save within an epoch, and raise RunStopped, which says how to resume."""
        progress = self.state.progress
        progress.seconds += time.perf_counter() - self._started
        content = self.state.state_dict()
        if self.state.context.is_main:
            require_finite_state(self.state.model, f"epoch {progress.epoch}")
            self.checkpoints.write_last(content, epochs=progress.epoch)
        self.state.context.barrier()
        batches, fix = len(self.data.sampler), f"resume with: python train.py --resume {self.checkpoints.last}"
        what = f"in epoch {progress.epoch} after {progress.batch} of {batches} batches, and saved"
        raise RunStopped("stopped", what, fix=fix, exit_code=self._shutdown.exit_code or 143)

    def _notify(self, event: str, *values: object) -> None:
        """Call all callbacks of an event."""
        for callback in self._callbacks:
            getattr(callback, event)(self, *values)


def class_ap(evaluation: Evaluation, num_classes: int) -> list[float]:
    """Return each class's mAP50-95; a class without objects in the split gets the mean."""
    metrics = evaluation.metrics
    values = [metrics.map50_95] * num_classes
    for class_id, ap in zip(metrics.class_ids, metrics.ap.mean(1), strict=True):
        values[int(class_id)] = float(ap)
    return values
