"""Training: one linear loop. Each epoch ends with a checkpoint from which the run goes on as if never stopped."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from models.summary import ModelSummary, summarize
from models.yolo import DetectionModel
from utils.engine.assemble import TrainingData
from utils.engine.checkpoint import Checkpoint, describe_model, save_checkpoint, weights_of
from utils.engine.ema import ModelEma
from utils.engine.hyperparameters import Hyperparameters
from utils.engine.optim import build_optimizer, parameter_groups, set_rates
from utils.engine.options import TrainOptions
from utils.engine.pictures import plot_labelled_batch
from utils.engine.postprocess import NmsSettings
from utils.engine.records import Row, write_results
from utils.engine.runtime import place, scale_pixels
from utils.engine.schedule import Schedule
from utils.engine.validator import Evaluation, evaluate, metrics_table
from utils.errors import RunError
from utils.log import LOGGER
from utils.losses.detection import COMPONENTS, DetectionLoss
from utils.structures import Batch

MAX_GRADIENT_NORM = 10.0
TRAINING_NMS = NmsSettings(confidence=0.001, overlap=0.6, max_detections=300, multi_label=True)


@dataclass(kw_only=True)
class Progress:
    """Where a run stands: all that changes besides tensors.

    Attributes:
        epoch: epochs done.
        last_step: step of the last optimizer update, counted in batches.
        best_fitness: so far.
        best_epoch: the epoch, from 0, that had it; -1 before the first.
        seconds: training and validation time so far.
        rows: results of every epoch done.
    """

    epoch: int = 0
    last_step: int = -1
    best_fitness: float = -1.0
    best_epoch: int = -1
    seconds: float = 0.0
    rows: list[Row] = field(default_factory=list)


class Trainer:
    """One run: its parts, and the loop that moves them.

    Attributes:
        model: the network that learns.
        ema: its average, which is validated and kept.
        progress: where the run stands.
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
    ) -> None:
        """Make the parts from the options; nothing is written yet."""
        self.options = options
        self.hyperparameters = hyperparameters
        self.data = data
        self.run_dir = run_dir
        self.device = device
        self.image_size = image_size
        self.model = place(model, device)
        self.ema = ModelEma(self.model)
        self.progress = Progress()
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
        )

    @property
    def weights_dir(self) -> Path:
        """Folder of the run's checkpoints."""
        return self.run_dir / "weights"

    def train(self) -> Progress:
        """Train to the last epoch, or until patience ends.

        Raises:
            RunError: the loss became non-finite, or a checkpoint could not be written.
        """
        LOGGER.info(self._headline())
        try:
            for epoch in range(self.progress.epoch, self.options.epochs):
                start = time.perf_counter()
                losses, waited = self._train_epoch(epoch)
                trained = time.perf_counter() - start
                is_last = epoch + 1 == self.options.epochs
                evaluation = None if self.options.noval and not is_last else self.validate()
                self._record(epoch, losses, evaluation)
                self.progress.seconds += time.perf_counter() - start
                self._save(evaluation)
                self._report(evaluation, trained=trained, total=time.perf_counter() - start, waited=waited)
                if self._patience_ended(epoch):
                    break
        except KeyboardInterrupt:
            last = self.weights_dir / "last.pt"
            if last.exists():
                LOGGER.warning(f"stopped after epoch {self.progress.epoch}; go on: python train.py --resume {last}")
            raise
        return self.progress

    def _train_epoch(self, epoch: int) -> tuple[dict[str, float], float]:
        """Train one epoch; return the mean losses, and the seconds spent waiting for data."""
        self.data.sampler.set_epoch(epoch)
        self.model.train()
        means = dict.fromkeys(COMPONENTS, 0.0)
        waited, asked = 0.0, time.perf_counter()
        bar = tqdm(
            self.data.train_loader, total=self.schedule.batches, bar_format="{l_bar}{bar:10}{r_bar}", leave=False
        )
        for number, batch in enumerate(bar):
            waited += time.perf_counter() - asked
            step = epoch * self.schedule.batches + number
            set_rates(self.optimizer, self.schedule, step)
            images = self._resized(scale_pixels(batch.images, self.device), step)
            with torch.autocast(self.device.type, enabled=self.amp):
                raw = self.model(images)
            losses = self.loss(raw, batch.targets.to(self.device, non_blocking=True))
            total = torch.stack(tuple(losses.values())).sum() * len(images)
            self._require_finite(total, losses, batch, epoch)
            self.scaler.scale(total).backward()
            if step - self.progress.last_step >= self.schedule.accumulate(step):
                self._update(batch, epoch)
                self.progress.last_step = step
            for name, value in losses.items():
                means[name] += (float(value.detach()) - means[name]) / (number + 1)
            bar.set_description(self._row(epoch, means, len(batch.targets), images.shape[-1]))
            if epoch == 0 and number < 3 and not self.options.noplots:
                self._plot_batch(batch, self.run_dir / f"train_batch{number}.jpg")
            asked = time.perf_counter()
        LOGGER.info(self._row(epoch, means, None, self.image_size))
        return means, waited

    def _update(self, batch: Batch, epoch: int) -> None:
        """Step the optimizer by the gradients gathered so far, clipped, and move the average."""
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), max_norm=MAX_GRADIENT_NORM)
        if not self.amp and not bool(norm.isfinite()):  # with mixed precision the scaler skips such a step itself
            raise RunError(
                f"epoch {epoch}", f"gradients became {float(norm)} ({self._names(batch)})", fix="lower lr0 in --hyp"
            )
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.ema.update(self.model)

    def _require_finite(self, total: Tensor, losses: dict[str, Tensor], batch: Batch, epoch: int) -> None:
        """Stop on a loss that is no number, naming components and pictures."""
        if not bool(total.isfinite()):
            parts = ", ".join(f"{name} {float(value.detach()):.4g}" for name, value in losses.items())
            raise RunError(
                f"epoch {epoch}",
                f"the loss is not finite ({parts}; {self._names(batch)})",
                fix="lower lr0 in --hyp, or try --no-amp",
            )

    def _names(self, batch: Batch) -> str:
        """Name the first pictures of a batch."""
        names = [Path(str(self.data.train.paths[i])).name for i in batch.indices]
        return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

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
        """Judge the averaged model on the validation split."""
        return evaluate(
            self.ema.model, self.data.val_loader, nms=TRAINING_NMS, device=self.device, loss=self.loss, half=self.amp
        )

    def _record(self, epoch: int, losses: dict[str, float], evaluation: Evaluation | None) -> None:
        """Add the epoch's row, and note the best."""
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
        self.progress.rows.append(row)
        self.progress.epoch = epoch + 1
        if evaluation is not None and evaluation.fitness > self.progress.best_fitness:
            self.progress.best_fitness = evaluation.fitness
            self.progress.best_epoch = epoch

    def _patience_ended(self, epoch: int) -> bool:
        """Whether the best epoch lies too far back."""
        patience = self.options.patience
        best = self.progress.best_epoch
        if patience == 0 or best < 0 or epoch - best < patience:
            return False
        LOGGER.info(f"Stopped: no better fitness since epoch {best}, --patience {patience}")
        return True

    def _save(self, evaluation: Evaluation | None) -> None:
        """Write results and checkpoints; the best model, as well as every n-th, without what only training needs."""
        write_results(self.progress.rows, self.run_dir / "results.csv")
        is_best = evaluation is None or self.progress.best_epoch == self.progress.epoch - 1
        final = self.progress.epoch == self.options.epochs
        if not self.options.nosave or final:
            save_checkpoint(self.weights_dir / "last.pt", self.state())
        light = self._light_state()
        if is_best:
            save_checkpoint(self.weights_dir / "best.pt", light)
        period = self.options.save_period
        if period > 0 and self.progress.epoch % period == 0:
            save_checkpoint(self.weights_dir / f"epoch{self.progress.epoch}.pt", light)

    def _light_state(self) -> Checkpoint:
        """Return the averaged model and where it comes from."""
        return {
            **describe_model(self.ema.model, self.data.names),
            "ema": weights_of(self.ema.model),
            "options": plain(asdict(self.options)),
            "hyperparameters": asdict(self.hyperparameters),
            "epoch": self.progress.epoch,
            "image_size": self.image_size,
        }

    def state(self) -> Checkpoint:
        """Return all that the run needs to go on as if never stopped, gradients not yet applied included."""
        gradients = {
            name: parameter.grad.detach().cpu().contiguous()
            for name, parameter in self.model.named_parameters()
            if parameter.grad is not None
        }
        return {
            **self._light_state(),
            "model": weights_of(self.model),
            "updates": self.ema.updates,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "gradients": gradients,
            "progress": asdict(self.progress),
            "random": torch.get_rng_state(),
            "dataset": self.data.train.fingerprint(),
        }

    def restore(self, content: Checkpoint) -> None:
        """Put back what `state` returned."""
        self.model.load_state_dict(content["model"])
        self.ema.model.load_state_dict(content["ema"])
        self.ema.updates = content["updates"]
        self.optimizer.load_state_dict(content["optimizer"])
        self.scaler.load_state_dict(content["scaler"])
        for name, parameter in self.model.named_parameters():
            if name in content["gradients"]:
                parameter.grad = _laid_out_like(parameter, content["gradients"][name])
            state = self.optimizer.state.get(parameter, {})
            for key, value in state.items():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    state[key] = _laid_out_like(parameter, value)
        self.progress = Progress(**content["progress"])
        torch.set_rng_state(content["random"])

    def summary(self) -> ModelSummary:
        """Return the model's size and cost at the run's picture size."""
        return summarize(self.model, (self.image_size, self.image_size))

    def _headline(self) -> str:
        """Return the heading of the epoch rows."""
        names = ("Epoch", "Memory", *(f"{name}_loss" for name in COMPONENTS), "Instances", "Size")
        return "\n" + "".join(f"{name:>11}" for name in names)

    def _row(self, epoch: int, means: dict[str, float], instances: int | None, size: int) -> str:
        """Return one epoch's row: its number, memory, mean losses, instances of the batch, picture side."""
        cells = [f"{epoch}/{self.options.epochs - 1}", _memory(self.device)]
        cells += [f"{means[name]:.4g}" for name in COMPONENTS]
        cells += [str(instances) if instances is not None else "", str(size)]
        return "".join(f"{cell:>11}" for cell in cells)

    def _report(self, evaluation: Evaluation | None, *, trained: float, total: float, waited: float) -> None:
        """Say what came of an epoch, how long it took, and what is left."""
        left = (self.options.epochs - self.progress.epoch) * self.progress.seconds / self.progress.epoch
        if evaluation is not None:
            pictures = len(evaluation.pictures)
            LOGGER.info(metrics_table(evaluation.metrics, self.data.names, pictures=pictures, verbose=False))
        share = waited / max(trained, 1e-9)
        LOGGER.info(f"{total:.1f} s, {share:.0%} of training waiting for data, {_span(left)} left".rjust(77))

    def _plot_batch(self, batch: Batch, path: Path) -> None:
        """Draw a training batch with its labels."""
        plot_labelled_batch(batch, self.data.names, path)


def _laid_out_like(parameter: Tensor, value: Tensor) -> Tensor:
    """Return a value in the memory layout of its parameter: another layout adds up in another order, to other bits."""
    return torch.empty_like(parameter, requires_grad=False).copy_(value)


def _memory(device: torch.device) -> str:
    """Return the memory in use: reserved on CUDA, else this process's peak, in GB."""
    if device.type == "cuda":
        return f"{torch.cuda.memory_reserved(device) / 1e9:.3g}G"
    try:
        import resource
    except ImportError:  # Windows
        return "-"
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.3g}G"


def _span(seconds: float) -> str:
    """Return a duration as h:mm:ss or m:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def plain(value: Any) -> Any:  # noqa: ANN401
    """Return nested mappings and sequences as dicts and lists, which checkpoints and yaml hold."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(item) for item in value]
    return value
