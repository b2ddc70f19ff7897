"""Evaluate a model on a split: the one function behind val.py, the epochs of train.py, and compare.py."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from tqdm import tqdm

from utils.boxes import cxcywh_to_xyxy
from utils.inference.network import Network
from utils.inference.nms import NmsSettings, non_max_suppression
from utils.log import LOGGER
from utils.metrics.average_precision import PrecisionRecall, precision_recall
from utils.metrics.confusion import ConfusionMatrix
from utils.metrics.evaluated_set import EvaluatedSet, ImageEvaluation
from utils.structures import ArrayBatch, Batch, Detections
from utils.text_table import clip, right

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from utils.inference.detector import Detector

AnyBatch = TypeVar("AnyBatch", Batch, ArrayBatch)
PHASES = ("loading", "pre", "inference", "nms", "matching")
OTHER = "other"
TABLE_WIDTHS = (21, 8, 11, 9, 9, 9, 10)  # together less than 80
TABLE_COLUMNS = ("Class", "Images", "Instances", "P", "R", "mAP50", "mAP50-95")


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Result of evaluating a model on a split."""

    metrics: PrecisionRecall  # of each class, and their means
    losses: dict[str, float]  # mean of each component over batches; empty if no loss was given
    images: list[ImageEvaluation]  # one result per image, by ascending image id
    confusion: ConfusionMatrix
    # per image, of each of `PHASES`; without the first batch, which warms up, if there are several
    milliseconds: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class EvaluatedBatch:
    """The images of one batch, and its losses."""

    images: list[ImageEvaluation]
    losses: dict[str, float]


Exchange = Callable[[list[EvaluatedBatch]], list[EvaluatedBatch]]


def evaluate(
    model: Detector,
    batches: Iterable[AnyBatch],
    *,
    nms: NmsSettings,
    device: torch.device,
    loss: Callable[[Sequence[Tensor], Tensor], Mapping[str, Tensor]] | None = None,
    half: bool = False,
    on_batch: Callable[[int, AnyBatch, Sequence[Detections]], None] | None = None,
    exchange: Exchange = list,
) -> Evaluation:
    """Evaluate a copy of a model, with folded batch norms, in torch.

    `loss` computes the named losses of a batch on the device. For the other parameters see `evaluate_network`.
    """
    import torch

    from utils.inference.detector import torch_network

    def losses(raw: Sequence[Tensor], targets: Tensor | np.ndarray) -> dict[str, float]:
        named = loss(raw, torch.as_tensor(targets).to(device)) if loss is not None else {}
        return {name: float(value) for name, value in named.items()}

    network = torch_network(model, device=device, half=half)
    with torch.inference_mode():
        return evaluate_network(network, batches, nms=nms, losses=losses, on_batch=on_batch, exchange=exchange)


def evaluate_network(
    network: Network,
    batches: Iterable[AnyBatch],
    *,
    nms: NmsSettings,
    losses: Callable[[Sequence[Tensor], Tensor | np.ndarray], Mapping[str, float]] | None = None,
    on_batch: Callable[[int, AnyBatch, Sequence[Detections]], None] | None = None,
    exchange: Exchange = list,
) -> Evaluation:
    """Evaluate a network on the batches of an evaluation loader.

    `losses` computes the named losses of a batch from raw predictions and targets. `on_batch` is called with the index
    of each batch, the batch, and its detections in pixels of the network's input. If several processes evaluate a part
    each, `exchange` returns the batches of all, in the order in which one process would have evaluated them.
    """
    stopwatch = _Stopwatch()
    done: list[EvaluatedBatch] = []
    shown = None if LOGGER.isEnabledFor(logging.INFO) else True  # not from several processes
    progress = tqdm(batches, desc="Validating", leave=False, disable=shown)
    for batch_index, batch in enumerate(progress):
        stopwatch.record("loading")
        pixels = network.scale(batch.images)
        stopwatch.record("pre")
        predictions, raw = network(pixels)
        stopwatch.record("inference")
        values = dict(losses(raw, batch.targets)) if losses is not None else {}
        stopwatch.record(OTHER)
        detections = non_max_suppression(predictions, nms)
        stopwatch.record("nms")
        labels = np.asarray(batch.targets)
        images = [
            match_image(batch, position, detections[position], labels[labels[:, 0] == position])
            for position in range(len(detections))
        ]
        done.append(EvaluatedBatch(images=images, losses=values))
        stopwatch.record("matching")
        if on_batch is not None:
            on_batch(batch_index, batch, detections)
        stopwatch.end_batch(len(detections))
    done = exchange(done)
    evaluated = sorted((image for batch in done for image in batch.images), key=lambda image: image.image_id)
    confusion = ConfusionMatrix(network.num_classes)
    for image in evaluated:
        confusion.add(image)
    return Evaluation(
        metrics=precision_recall(EvaluatedSet.concatenate(evaluated)),
        losses={
            name: sum(batch.losses[name] for batch in done) / len(done) for name in (done[0].losses if done else ())
        },
        images=evaluated,
        confusion=confusion,
        milliseconds=stopwatch.milliseconds(),
    )


def metrics_table(metrics: PrecisionRecall, names: Sequence[str], *, images: int, verbose: bool) -> str:
    """Return YOLOv5's table: a row for all classes and, with `verbose`, one for each class."""
    means = (metrics.mean_precision, metrics.mean_recall, metrics.map50, metrics.map50_95)
    rows: list[tuple[str, int, Sequence[float]]] = [("all", int(metrics.label_counts.sum()), means)]
    if verbose and len(names) > 1:
        for position, class_id in enumerate(metrics.class_ids):
            ap = metrics.ap[position]
            values = (metrics.precision[position], metrics.recall[position], ap[0], ap.mean())
            rows.append((names[int(class_id)], int(metrics.label_counts[position]), values))
    cells: list[Sequence[str]] = [TABLE_COLUMNS]
    for label, instances, scores in rows:
        name = clip(label, TABLE_WIDTHS[0])
        cells.append((name, str(images), str(instances), *(f"{value:.3g}" for value in scores)))
    return "\n".join("".join(map(right, row, TABLE_WIDTHS)) for row in cells)


def match_image(
    batch: Batch | ArrayBatch, position: int, detections: Detections, targets: np.ndarray
) -> ImageEvaluation:
    """Convert one image's detections and (m, 6) targets to pixels of the image file, and match them."""
    letterbox = batch.transforms[position]
    height, width = batch.images.shape[2:]
    label_boxes = cxcywh_to_xyxy(targets[:, 2:]) * np.array((width, height, width, height), np.float32)
    return ImageEvaluation(
        image_id=batch.indices[position],
        original_hw=letterbox.original_hw,
        boxes=letterbox.to_original(detections.boxes),
        confidences=detections.scores,
        classes=detections.classes,
        label_boxes=letterbox.to_original(label_boxes),
        label_classes=targets[:, 1].astype(np.int64),
    )


class _Stopwatch:
    """Seconds of each phase of each batch."""

    def __init__(self) -> None:
        self.batches: list[tuple[dict[str, float], int]] = []  # seconds by phase and images of each finished batch
        self._seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def record(self, phase: str) -> None:
        now = time.perf_counter()
        self._seconds[phase] = now - self._last
        self._last = now

    def end_batch(self, images: int) -> None:
        """End a batch; the time since its last phase is not recorded."""
        self.batches.append((self._seconds, images))
        self._seconds, self._last = {}, time.perf_counter()

    def milliseconds(self) -> dict[str, float]:
        """Return the time of each phase per image, without the first batch if there are several."""
        batches = self.batches[1:] or self.batches
        images = max(sum(count for _, count in batches), 1)
        return {phase: 1000 * sum(seconds[phase] for seconds, _ in batches) / images for phase in PHASES}
