"""Training: one linear loop. A run that is interrupted anywhere goes on as if it never was."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from models.summary import ModelSummary, summarize
from models.yolo import DetectionModel
from utils.datasets.image_weights import sampling_weights
from utils.distributed import DistributedContext, sync_batch_norms
from utils.errors import RunError, RunStopped
from utils.files import dump_json
from utils.inference.nms import EVALUATION_NMS
from utils.log import LOGGER, optional
from utils.losses.detection import COMPONENTS, DetectionLoss
from utils.malloc import out_of_memory
from utils.options import TrainOptions
from utils.options.hyperparameters import Hyperparameters
from utils.runtime import scale_pixels, to_device
from utils.signals import GracefulShutdown
from utils.structures import Batch
from utils.training.callbacks import Callback, make_callbacks
from utils.training.console import epoch_row, epoch_time, headline
from utils.training.ema import ModelEma
from utils.training.offset_monitor import OffsetMonitor
from utils.training.optim import build_optimizer, parameter_groups, set_rates
from utils.training.results_csv import Row, write_results
from utils.training.saving import RunCheckpoints, model_state, run_state
from utils.training.schedule import Schedule
from utils.training.setup import TrainingData
from utils.training.state import (
    BatchNormSnapshot,
    TrainState,
    finite_gradients,
    require_finite_state,
)
from utils.validation.evaluate import Evaluation, evaluate, metrics_table
from utils.validation.plots import plot_labelled_batch

MAX_GRADIENT_NORM = 10.0
MAX_SKIPPED = 10


class _StopNow(Exception):  # noqa: N818 - no error
    """The wish to stop, noticed where the run can be saved."""


class Trainer:
    """One run: its parts, and the loop that moves them.

    Attributes:
        model: the network that learns.
        ema: its average, which is validated and kept.
        progress: where the run stands.
        checkpoints: what it has written.
    """

    def __init__(
        self,
        *,
        options: TrainOptions,
        hyperparameters: Hyperparameters,
        model: DetectionModel,
        data: TrainingData,
        run_dir: Path,
        device: torch.device,
        image_size: int,
        team: DistributedContext | None = None,
    ) -> None:
        """Make the parts from the options; nothing is written yet."""
        self.options = options
        self.hyperparameters = hyperparameters
        self.data = data
        self.run_dir = run_dir
        self.device = device
        self.image_size = image_size
        self.team = team = team or DistributedContext()
        self.model = to_device(model, device)
        self.ema = ModelEma(self.model)
        self.offsets = OffsetMonitor(self.ema.model, offset_lr=hyperparameters.offset_lr)
        if options.sync_bn and team.size > 1:
            sync_batch_norms(self.model)
        self.statistics = BatchNormSnapshot(self.model)
        self.progress = TrainState()
        self.checkpoints = RunCheckpoints(run_dir / "weights", written=lambda path: self._tell("on_model_save", path))
        self.stop = GracefulShutdown()
        self.callbacks: list[Callback] = []
        self.schedule = Schedule(
            epochs=options.epochs,
            batches=len(data.sampler),
            batch_size=options.batch_size,
            lr0=hyperparameters.lr0,
            lrf=hyperparameters.lrf,
            cosine=options.cos_lr,
            warmup_epochs=hyperparameters.warmup_epochs,
            momentum=hyperparameters.momentum,
            warmup_momentum=hyperparameters.warmup_momentum,
            warmup_bias_lr=hyperparameters.warmup_bias_lr,
            nominal_batch=hyperparameters.nbs,
        )
        gathered = options.batch_size * max(round(hyperparameters.nbs / options.batch_size), 1)
        decay = hyperparameters.weight_decay * gathered / hyperparameters.nbs
        groups = parameter_groups(self.model, weight_decay=decay, offset_lr=hyperparameters.offset_lr)
        self.optimizer = build_optimizer(
            options.optimizer, groups, lr=hyperparameters.lr0, momentum=hyperparameters.momentum
        )
        self.amp = device.type == "cuda" and not options.no_amp
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.amp)
        head = model.head
        settings = hyperparameters.loss_settings(label_smoothing=options.label_smoothing)
        self.loss = DetectionLoss(
            settings.scaled(levels=len(head.strides), num_classes=head.nc, image_size=image_size),
            anchors=head.anchors,
            strides=head.strides,
            num_classes=head.nc,
            total=team.add if team.size > 1 else None,
        )

    def train(self) -> TrainState:
        """Train to the last epoch, or until patience ends.

        Raises:
            RunError: ten batches in a row gave no finite loss or gradient, or a checkpoint could not be written.
            RunStopped: Ctrl-C or SIGTERM; the run was saved.
        """
        LOGGER.info(headline())
        if self.team.is_main:
            self.callbacks = make_callbacks(self.run_dir, tensorboard=self.options.tensorboard)
        self._tell("on_train_start")
        with self.stop:
            try:
                for epoch in range(self.progress.epoch, self.options.epochs):
                    if self._patience_ended():
                        patience = f"--patience {self.options.patience}"
                        LOGGER.info(f"Stopped: no better fitness since epoch {self.progress.best_epoch}, {patience}")
                        break
                    self._epoch(epoch)
            except _StopNow:
                self._save_stopped()
        self._tell("on_train_end")
        return self.progress

    def _epoch(self, epoch: int) -> None:
        """Train one epoch or what is left of it, validate, and save."""
        start = time.perf_counter()
        waited = self._train_epoch(epoch)
        trained = time.perf_counter() - start
        losses = self.progress.means
        self._tell("on_train_epoch_end", losses)
        is_last = epoch + 1 == self.options.epochs
        evaluation, stopped = None, False
        if self.team.is_main and (is_last or not self.options.noval):
            try:
                evaluation = self.validate()
            except _StopNow:
                stopped = True
        if self.team.any(stopped):
            raise _StopNow
        self._record(epoch, losses, evaluation)
        self.progress.seconds += time.perf_counter() - start
        self._save(evaluation)
        self._tell("on_fit_epoch_end", self.progress.rows[-1])
        if evaluation is not None:
            LOGGER.info(
                metrics_table(evaluation.metrics, self.data.names, images=len(evaluation.images), verbose=False)
            )
        left = (self.options.epochs - self.progress.epoch) * self.progress.seconds / self.progress.epoch
        total = time.perf_counter() - start
        LOGGER.info(epoch_time(total=total, waited=waited / max(trained, 1e-9), left=left))

    def _train_epoch(self, epoch: int) -> float:
        """Train an epoch's batches from where the run stands; return the seconds spent waiting for data."""
        progress = self.progress
        weights = None
        if self.options.image_weights:
            single = self.options.single_cls
            weights = sampling_weights(self.data.train, progress.class_ap, single_class=single)
        self.data.sampler.set_epoch(epoch, start=progress.batch, weights=weights)
        self.model.train()
        if not progress.batch:
            progress.means, progress.counted = dict.fromkeys(COMPONENTS, 0.0), 0
        waited, asked = 0.0, time.perf_counter()
        bar = tqdm(
            self.data.train_batches,
            total=self.schedule.batches,
            initial=progress.batch,
            bar_format="{l_bar}{bar:10}{r_bar}",
            leave=False,
            disable=not self.team.is_main,
        )
        for batch in bar:
            waited += time.perf_counter() - asked
            number = progress.batch
            side = self._train_batch(batch, epoch, number)
            progress.batch = number + 1
            bar.set_description(self._row(epoch, len(batch.targets), side))
            if epoch == 0 and number < 3 and not self.options.noplots and self.team.is_main:
                self._plot_batch(batch, self.run_dir / f"train_batch{number}.jpg")
            if self.team.any(self.stop.signal is not None):
                raise _StopNow
            asked = time.perf_counter()
        LOGGER.info(self._row(epoch, None, self.image_size))
        return waited

    def _train_batch(self, batch: Batch, epoch: int, number: int) -> int:
        """Forward, backward, and perhaps a step of the optimizer; return the side of the images in pixels."""
        progress = self.progress
        step = epoch * self.schedule.batches + number
        set_rates(self.optimizer, self.schedule, step)
        images = self._resized(scale_pixels(batch.images, self.device), step)
        self.statistics.take()
        try:
            with torch.autocast(self.device.type, enabled=self.amp):
                raw = self.model(images)
            losses = self.loss(raw, batch.targets.to(self.device, non_blocking=True))
            count = self.team.add(torch.tensor(float(len(images)), device=self.device))
            total = torch.stack(tuple(losses.values())).sum() * count
            reported = self.team.add(torch.stack(tuple(losses.values())).detach()).tolist()
            values = dict(zip(losses, reported, strict=True))
            if not all(np.isfinite(value) for value in reported):
                self.statistics.put_back()
                self._skip(batch, epoch, number, f"the loss is not finite ({_listed(values)})")
                return images.shape[-1]
            self.scaler.scale(total).backward()
            if self.team.any(not finite_gradients(self.model)):
                self._drop_gradients(step)
                self._skip(batch, epoch, number, "a gradient is not finite")
                return images.shape[-1]
        except RuntimeError as error:
            if out_of_memory(error):
                raise self._out_of_memory(images) from error
            raise
        progress.skipped = 0
        progress.counted += 1
        for name, value in values.items():
            progress.means[name] += (value - progress.means[name]) / progress.counted
        if step - progress.last_step >= self.schedule.accumulate(step):
            self._update()
            progress.last_step = step
        return images.shape[-1]

    def _update(self) -> None:
        """Step the optimizer by the gradients gathered so far, clipped, and move the average."""
        self.team.add_gradients(self.model.parameters())
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), max_norm=MAX_GRADIENT_NORM)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.ema.update(self.model)

    def _drop_gradients(self, step: int) -> None:
        """Start to gather gradients anew: what is no number cannot be taken out of a sum."""
        self.optimizer.zero_grad()
        self.progress.last_step = step
        if self.amp:  # most likely the loss was scaled up too far
            self.scaler.update(self.scaler.get_scale() * self.scaler.get_backoff_factor())

    def _skip(self, batch: Batch, epoch: int, number: int, reason: str) -> None:
        """Leave a batch out, and note which one; give up after ten in a row.

        Raises:
            RunError: names the images.
        """
        self.progress.skipped += 1
        indices = [int(index) for own in self.team.gather([*batch.indices]) for index in own]
        names = [Path(str(self.data.train.paths[i])).name for i in indices]
        listed = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        LOGGER.warning(f"epoch {epoch}, batch {number} skipped: {reason}; images {listed}")
        if self.team.is_main:
            note = {"epoch": epoch, "batch": number, "seed": self.options.seed, "reason": reason, "images": names}
            with optional():
                dump_json(self.run_dir / "skipped_batch.json", note)
        if self.progress.skipped >= MAX_SKIPPED:
            raise RunError(
                f"epoch {epoch}",
                f"{MAX_SKIPPED} batches in a row failed ({reason}; {listed})",
                fix="lower lr0 in --hyp, or try --no-amp",
            )

    def _out_of_memory(self, images: Tensor) -> RunError:
        """Return the error for a batch that memory cannot hold."""
        peak = f", peak {torch.cuda.max_memory_allocated(self.device) / 1e9:.1f} GB" if self.amp else ""
        return RunError(
            f"--batch-size {self.options.batch_size}",
            f"{len(images)} images of {images.shape[-1]} px need more memory than there is{peak}",
            fix="use a smaller --batch-size or --imgsz",
        )

    def _resized(self, images: Tensor, step: int) -> Tensor:
        """With --multi-scale, bring a batch to a size drawn from (seed, step), a multiple of the stride."""
        if not self.options.multi_scale:
            return images
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence((self.options.seed, step, 1))))
        stride = self.model.max_stride
        size = int(rng.integers(round(0.5 * self.image_size), round(1.5 * self.image_size) + stride)) // stride * stride
        scale = max(size, stride) / max(images.shape[2:])
        target = [max(round(side * scale / stride), 1) * stride for side in images.shape[2:]]
        return F.interpolate(images, size=target, mode="bilinear", align_corners=False)

    def validate(self) -> Evaluation:
        """Judge the averaged model on the validation split, and measure its offsets."""

        def look_up(number: int, batch: Batch, _: object) -> None:
            self.offsets.look(number, len(self.data.val_loader), batch)
            if self.stop.signal is not None:
                raise _StopNow

        return evaluate(
            self.ema.model,
            self.data.val_loader,
            nms=EVALUATION_NMS,
            device=self.device,
            loss=self.loss.alone(),
            half=self.amp,
            on_batch=look_up,
        )

    def _record(self, epoch: int, losses: Mapping[str, float], evaluation: Evaluation | None) -> None:
        """Add the epoch's row, and note the best; the leader's word counts for all."""
        nothing = float("nan")
        row: Row = {"epoch": epoch, **{f"train/{name}_loss": losses[name] for name in COMPONENTS}}
        metrics = evaluation.metrics if evaluation else None
        row |= {
            "metrics/precision": metrics.mean_precision if metrics else nothing,
            "metrics/recall": metrics.mean_recall if metrics else nothing,
            "metrics/mAP_0.5": metrics.map50 if metrics else nothing,
            "metrics/mAP_0.5:0.95": metrics.map50_95 if metrics else nothing,
        }
        row |= {f"val/{name}_loss": evaluation.losses[name] if evaluation else nothing for name in COMPONENTS}
        row |= {f"x/lr{number}": group["lr"] for number, group in enumerate(self.optimizer.param_groups[:3])}
        progress = self.progress
        progress.told += self.offsets.warn(epoch, told=progress.told)
        row |= self.offsets.columns()
        progress.rows.append(row)
        progress.epoch, progress.batch, progress.means = epoch + 1, 0, {}
        fitness = evaluation.fitness if evaluation is not None else None
        ap = class_ap(evaluation, self.model.num_classes) if evaluation is not None else progress.class_ap
        fitness, progress.class_ap = self.team.broadcast((fitness, ap))
        if fitness is not None and fitness > progress.best_fitness:
            progress.best_fitness = fitness
            progress.best_epoch = epoch

    def _patience_ended(self) -> bool:
        """Whether the best epoch lies too far back."""
        patience, progress = self.options.patience, self.progress
        return patience > 0 and progress.best_epoch >= 0 and progress.epoch - 1 - progress.best_epoch >= patience

    def _save(self, evaluation: Evaluation | None) -> None:
        """Write results and checkpoints; the best model, as well as every n-th, without what only training needs."""
        progress = self.progress
        state = run_state(self)
        if not self.team.is_main:
            return
        require_finite_state(self.ema.model, f"epoch {progress.epoch - 1}")
        write_results(progress.rows, self.run_dir / "results.csv")
        # What was not judged is the best only as long as nothing was.
        is_best = progress.best_epoch == (progress.epoch - 1 if evaluation is not None else -1)
        period = self.options.save_period
        light = model_state(self)
        if is_best:
            self.checkpoints.write("best.pt", light)
        if period > 0 and progress.epoch % period == 0:
            self.checkpoints.write(f"epoch{progress.epoch}.pt", light)
        if not self.options.nosave or progress.epoch == self.options.epochs or self._patience_ended():
            # Last, so that a run that goes on from it has all that belongs to its epoch.
            self.checkpoints.write_last(state, epochs=progress.epoch)

    def _save_stopped(self) -> None:
        """Save in the middle of an epoch.

        Raises:
            RunStopped: always; says how to go on.
        """
        state = run_state(self)
        progress = self.progress
        if self.team.is_main:
            require_finite_state(self.model, f"epoch {progress.epoch}")
            self.checkpoints.write_last(state, epochs=progress.epoch)
        self.team.barrier()
        raise RunStopped(
            "stopped",
            f"in epoch {progress.epoch} after {progress.batch} of {self.schedule.batches} batches, and saved",
            fix=f"go on with: python train.py --resume {self.checkpoints.last}",
            exit_code=self.stop.exit_code or 143,
        )

    @functools.cached_property
    def summary(self) -> ModelSummary:
        """The model's size and cost at the run's image size."""
        return summarize(self.ema.model, (self.image_size, self.image_size))

    def _row(self, epoch: int, instances: int | None, size: int) -> str:
        """Return one epoch's row."""
        epochs = self.options.epochs
        return epoch_row(epoch, epochs, self.progress.means, instances=instances, size=size, device=self.device)

    def _plot_batch(self, batch: Batch, path: Path) -> None:
        """Draw a training batch with its labels."""
        with optional():
            plot_labelled_batch(batch, self.data.names, path)

    def _tell(self, event: str, *values: object) -> None:
        """Tell the listeners what happened."""
        for callback in self.callbacks:
            getattr(callback, event)(self, *values)


def class_ap(evaluation: Evaluation, num_classes: int) -> list[float]:
    """Return every class's mAP50-95; a class without objects in the split has the mean."""
    metrics = evaluation.metrics
    values = [metrics.map50_95] * num_classes
    for number, ap in zip(metrics.class_ids, metrics.ap.mean(1), strict=True):
        values[int(number)] = float(ap)
    return values


def _listed(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())
