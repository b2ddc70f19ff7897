"""One epoch of training: forward, loss, backward and optimizer step for each batch.

A batch with a NaN or infinite loss or gradient leaves no trace in the weights or in a checkpoint.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from utils.datasets.image_weights import sampling_weights
from utils.errors import RunError
from utils.files import dump_json
from utils.log import LOGGER, optional
from utils.losses.detection import COMPONENTS, DetectionLoss, LossWeights
from utils.malloc import out_of_memory
from utils.runtime import scale_pixels, seed_step
from utils.signals import GracefulShutdown, StopRequested
from utils.structures import Batch
from utils.training.data import TrainingData
from utils.training.optim import Schedule, set_rates
from utils.training.results_csv import format_duration, progress_line
from utils.training.state import TrainState
from utils.validation.plots import plot_batch

MAX_GRADIENT_NORM = 10.0
PLOTTED_BATCHES = 3
MAX_SKIPPED = 10
SKIPPED_BATCH = "skipped_batch.json"
BAR = "{{l_bar}}{{bar:6}}| {{remaining}}{all}"  # with the losses as description less than 80 columns wide


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


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """What the flags say about the loop over epochs and batches; flags travel no further down than `build_trainer`."""

    epochs: int
    batch_size: int  # over all processes
    seed: int
    multi_scale: bool
    image_weights: bool
    single_class: bool
    plots: bool
    validate_every_epoch: bool
    save_every_epoch: bool
    save_period: int  # epochs between further checkpoints; none if not positive
    patience: int  # epochs without a better fitness; 0 for no limit


@dataclass(frozen=True)
class EpochTrainer:
    """Trains single epochs."""

    config: LoopConfig
    state: TrainState
    data: TrainingData
    schedule: Schedule
    loss: DetectionLoss
    loss_weights: LossWeights
    run_dir: Path
    device: torch.device

    def train(self, epoch: int, shutdown: GracefulShutdown) -> float:
        """Train an epoch from the batch where the run stands; return the seconds spent waiting for data.

        A batch whose loss or gradient is not finite in any process is skipped in all.

        Raises:
            RunError: too many batches in a row were skipped, or memory is short.
            StopRequested: a signal arrived; the last batch is complete.
        """
        state, context, schedule, device = self.state, self.state.context, self.schedule, self.device
        model, progress = state.model, state.progress
        total = context.add if context.size > 1 else None
        batch_norm = BatchNormSnapshot(model)
        self.data.sampler.set_epoch(epoch, start=progress.batch, weights=self._image_weights())
        model.train()
        if not progress.batch:
            progress.means, progress.counted = dict.fromkeys(COMPONENTS, 0.0), 0
        data_wait, first = 0.0, progress.batch
        started = requested = time.perf_counter()
        for batch in (bar := self._progress_bar()):
            data_wait += time.perf_counter() - requested
            step = epoch * schedule.batches + progress.batch
            set_rates(state.optimizer, schedule, step)
            images = self._rescale(scale_pixels(batch.images, device), step)
            batch_norm.save()
            seed_step(self.config.seed, step, context.rank)
            problem = ""
            with self._naming_memory_errors(images):
                with torch.autocast(device.type, enabled=state.scaler.is_enabled()):
                    raw = model(images)
                losses = self.weighted_losses(raw, batch.targets.to(device, non_blocking=True), total=total)
                values = torch.stack(tuple(losses.values()))
                count = context.add(torch.tensor(float(len(images)), device=device))
                reported = dict(zip(losses, context.add(values.detach()).tolist(), strict=True))
                if not all(map(math.isfinite, reported.values())):
                    batch_norm.restore()
                    problem = f"the loss is not finite ({', '.join(f'{n} {v:.4g}' for n, v in reported.items())})"
                else:
                    # Losses are means over the images; their sum over the batch makes gradients add up over ranks.
                    state.scaler.scale(values.sum() * count).backward()
                    if context.any(not finite_gradients(model)):
                        self._drop_gradients(step)
                        problem = "a gradient is not finite"
            if problem:
                self._skip(batch, epoch, problem)
            else:
                progress.add_losses(reported)
                if step - progress.last_step >= schedule.accumulate(step):
                    self._optimizer_step()
                    progress.last_step = step
            progress.batch += 1
            bar.set_description(self._progress_line(epoch), refresh=False)
            done, batches = progress.batch - first, self.config.epochs * schedule.batches
            remaining = (batches - step - 1) * (time.perf_counter() - started) / done
            bar.bar_format = BAR.format(all=f", all {format_duration(remaining)}")
            if step < PLOTTED_BATCHES and epoch == 0 and self.config.plots and context.is_main:
                with optional():
                    plot_batch(batch, self.data.names, self.run_dir / f"train_batch{step}.jpg")
            if context.any(shutdown.signal is not None):
                raise StopRequested
            requested = time.perf_counter()
        return data_wait

    def weighted_losses(
        self, raw: Sequence[Tensor], targets: Tensor, *, total: Callable[[Tensor], Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Return the named losses of a batch times their weights; for the arguments see `DetectionLoss`."""
        return self.loss_weights.apply(self.loss(raw, targets, total=total))

    def _optimizer_step(self) -> None:
        """Step the optimizer with the accumulated gradients, clipped, and update the averaged model."""
        state = self.state
        state.context.add_gradients(state.model.parameters())
        state.scaler.unscale_(state.optimizer)
        torch.nn.utils.clip_grad_norm_(state.model.parameters(), max_norm=MAX_GRADIENT_NORM)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        state.optimizer.zero_grad()
        state.ema.update(state.model)

    def _drop_gradients(self, step: int) -> None:
        """Restart the accumulation: a value that is not finite cannot be subtracted from a sum."""
        self.state.optimizer.zero_grad()
        self.state.progress.last_step = step
        scaler = self.state.scaler
        if scaler.is_enabled():  # the most likely cause is too large a loss scale
            scaler.update(scaler.get_scale() * scaler.get_backoff_factor())

    def _skip(self, batch: Batch, epoch: int, reason: str) -> None:
        """Count a skipped batch, and report it in the log and `skipped_batch.json`; a RunError if too many in a row."""
        progress, context, seed = self.state.progress, self.state.context, self.config.seed
        progress.skipped += 1
        indices = [int(index) for part in context.gather([*batch.indices]) for index in part]
        names = [Path(str(self.data.train.paths[index])).name for index in indices]
        images = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        LOGGER.warning(f"epoch {epoch}, batch {progress.batch} skipped: {reason}; images {images}")
        if context.is_main:
            skipped = {"epoch": epoch, "batch": progress.batch, "seed": seed, "reason": reason, "images": names}
            with optional():
                dump_json(self.run_dir / SKIPPED_BATCH, skipped)
        if progress.skipped >= MAX_SKIPPED:
            what = f"{MAX_SKIPPED} batches in a row failed ({reason}; {images})"
            raise RunError(f"epoch {epoch}", what, fix="lower lr0 in --hyp, or try --no-amp")

    @contextlib.contextmanager
    def _naming_memory_errors(self, images: Tensor) -> Iterator[None]:
        """Turn a lack of memory into an error that names the batch."""
        try:
            yield
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            allocated = torch.cuda.max_memory_allocated(self.device) / 1e9 if self.device.type == "cuda" else 0.0
            peak = f", peak {allocated:.1f} GB" if allocated else ""
            what = f"{len(images)} images of {images.shape[-1]} px need more memory than is available{peak}"
            where, fix = f"--batch-size {self.config.batch_size}", "use a smaller --batch-size or --imgsz"
            raise RunError(where, what, fix=fix) from error

    def _rescale(self, images: Tensor, step: int) -> Tensor:
        """With --multi-scale, resize a batch to a size drawn from (seed, step), a multiple of the stride."""
        stride, mean = self.data.stride, self.data.image_size
        if not self.config.multi_scale:
            return images
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence((self.config.seed, step, 1))))
        size = int(rng.integers(round(0.5 * mean), round(1.5 * mean) + stride)) // stride * stride
        scale = max(size, stride) / max(images.shape[2:])
        size_hw = [max(round(side * scale / stride), 1) * stride for side in images.shape[2:]]
        return F.interpolate(images, size=size_hw, mode="bilinear", align_corners=False)

    def _image_weights(self) -> np.ndarray | None:
        """Return the sampling weights of --image-weights."""
        if not self.config.image_weights:
            return None
        class_ap = self.state.progress.class_ap
        return sampling_weights(self.data.train, class_ap, single_class=self.config.single_class)

    def _progress_bar(self) -> tqdm[Batch]:
        return tqdm(
            self.data.train_loader,
            total=self.schedule.batches,
            initial=self.state.progress.batch,
            bar_format=BAR.format(all=""),
            leave=False,
            disable=None if self.state.context.is_main else True,
        )

    def _progress_line(self, epoch: int) -> str:
        return progress_line(epoch, self.config.epochs, self.state.progress.means, device=self.device)
