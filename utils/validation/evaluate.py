"""Evaluate a model on a split: the one function behind val.py, the epochs of train.py, and compare.py."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from utils.boxes import cxcywh_to_xyxy
from utils.inference.detector import Detector, prepare
from utils.inference.nms import NmsSettings, non_max_suppression
from utils.losses.detection import COMPONENTS
from utils.metrics.average_precision import PrecisionRecall, precision_recall
from utils.metrics.confusion import ConfusionMatrix
from utils.metrics.evaluated_set import EvaluatedSet, ImageEvaluation
from utils.runtime import scale_pixels
from utils.structures import Batch, Detections
from utils.text_table import clip, right

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


def evaluate(
    model: Detector,
    batches: Iterable[Batch],
    *,
    nms: NmsSettings,
    device: torch.device,
    loss: Callable[[Sequence[Tensor], Tensor], Mapping[str, Tensor]] | None = None,
    half: bool = False,
    on_batch: Callable[[int, Batch, Sequence[Detections]], None] | None = None,
) -> Evaluation:
    """Evaluate a copy of a model, with folded batch norms, on the batches of an evaluation loader.

    `loss` computes the named losses of a batch from raw predictions and targets. `on_batch` is called with the index of
    each batch, the batch, and its detections in pixels of the network's input.
    """
    dtype = torch.float16 if half else torch.float32
    network = prepare(model, device=device, dtype=dtype)
    confusion = ConfusionMatrix(model.num_classes)
    sums = dict.fromkeys(COMPONENTS, 0.0)
    stopwatch = _Stopwatch(device)
    evaluated: list[ImageEvaluation] = []
    progress = tqdm(batches, desc="Validating", leave=False, disable=None)
    with torch.inference_mode():
        for batch_index, batch in enumerate(progress):
            stopwatch.record("loading")
            images = scale_pixels(batch.images, device, dtype)
            targets = batch.targets.to(device)
            stopwatch.record("pre")
            predictions, raw = network(images)
            stopwatch.record("inference")
            if loss is not None:
                for name, value in loss(raw, targets).items():
                    sums[name] += float(value)
            stopwatch.record(OTHER)
            detections = non_max_suppression(predictions, nms)
            stopwatch.record("nms")
            labels = batch.targets.numpy()
            for position in range(len(images)):
                image = match_image(batch, position, detections[position], labels[labels[:, 0] == position])
                evaluated.append(image)
                confusion.add(image)
            stopwatch.record("matching")
            if on_batch is not None:
                on_batch(batch_index, batch, detections)
            stopwatch.end_batch(len(images))
    evaluated.sort(key=lambda image: image.image_id)
    batch_count = max(len(stopwatch.batches), 1)
    return Evaluation(
        metrics=precision_recall(EvaluatedSet.concatenate(evaluated)),
        losses={name: total / batch_count for name, total in sums.items()} if loss is not None else {},
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


def match_image(batch: Batch, position: int, detections: Detections, targets: np.ndarray) -> ImageEvaluation:
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

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.batches: list[tuple[dict[str, float], int]] = []  # seconds by phase and images of each finished batch
        self._seconds: dict[str, float] = {}
        self._last = self._now()

    def record(self, phase: str) -> None:
        now = self._now()
        self._seconds[phase] = now - self._last
        self._last = now

    def end_batch(self, images: int) -> None:
        """End a batch; the time since its last phase is not recorded."""
        self.batches.append((self._seconds, images))
        self._seconds, self._last = {}, self._now()

    def milliseconds(self) -> dict[str, float]:
        """Return the time of each phase per image, without the first batch if there are several."""
        batches = self.batches[1:] or self.batches
        images = max(sum(count for _, count in batches), 1)
        return {phase: 1000 * sum(seconds[phase] for seconds, _ in batches) / images for phase in PHASES}

    def _now(self) -> float:
        if self.device.type == "cuda":  # kernels run asynchronously
            torch.cuda.synchronize(self.device)
        return time.perf_counter()
