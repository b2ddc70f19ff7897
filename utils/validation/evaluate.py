"""Judge a model on a split: one function, called by val.py, by training after each epoch, and by compare.py."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from models.fuse import fused
from utils.boxes import cxcywh_to_xyxy
from utils.inference.ensemble import Detector
from utils.inference.nms import NmsSettings, non_max_suppression
from utils.losses.detection import COMPONENTS, DetectionLoss
from utils.metrics.average_precision import PrecisionRecall, precision_recall
from utils.metrics.confusion import ConfusionMatrix
from utils.metrics.matching import match_detections
from utils.runtime import scale_pixels, to_device
from utils.structures import Batch, Detections

PHASES = ("loading", "pre", "inference", "nms", "matching")
OTHER = "other"


@dataclass(frozen=True, kw_only=True)
class ImageEvaluation:
    """What the model said of one image, in pixels of the file.

    Attributes:
        index: the image's number in the data set.
        boxes: (n, 4) x1, y1, x2, y2, best first.
        scores: (n,).
        classes: (n,) int64.
        label_boxes: (m, 4).
        label_classes: (m,) int64.
        correct: (n, 10) bool at overlaps .50 to .95.
        size_hw: height and width of the file's image.
    """

    index: int
    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    label_boxes: np.ndarray
    label_classes: np.ndarray
    correct: np.ndarray
    size_hw: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What came out of judging a model on a split.

    Attributes:
        metrics: per class and in the mean.
        losses: mean of each component over batches; empty if no loss was given.
        images: one result for each image, in order of their numbers.
        confusion: who is taken for whom.
        milliseconds: per image, of each of `PHASES`; the first batch, which warms up, counts only if it is alone.
    """

    metrics: PrecisionRecall
    losses: dict[str, float]
    images: list[ImageEvaluation]
    confusion: ConfusionMatrix
    milliseconds: dict[str, float]

    @property
    def fitness(self) -> float:
        """What chooses the best epoch: a tenth of mAP50 and nine tenths of mAP50-95."""
        return 0.1 * self.metrics.map50 + 0.9 * self.metrics.map50_95


def evaluate(
    model: Detector,
    batches: Iterable[Batch],
    *,
    nms: NmsSettings,
    device: torch.device,
    loss: DetectionLoss | None = None,
    half: bool = False,
    on_batch: Callable[[int, Batch, Sequence[Detections]], None] | None = None,
) -> Evaluation:
    """Judge a model.

    Args:
        model: on `device`; it is copied and its batch norms folded, and itself left as it is.
        batches: images with placements, as evaluation loaders make them.
        nms: thresholds, as a rule confidence 0.001 with several classes per box.
        device: where to compute.
        loss: also compute the losses.
        half: half precision.
        on_batch: is shown each batch's number, the batch, and its detections in pixels of the input.
    """
    dtype = torch.float16 if half else torch.float32
    network = to_device(fused(model).to(dtype), device)
    confusion = ConfusionMatrix(model.num_classes)
    sums = dict.fromkeys(COMPONENTS, 0.0)
    watch = _Stopwatch(device)
    images: list[ImageEvaluation] = []
    header = f"{'Class':>22}{'Images':>11}{'Instances':>11}{'P':>11}{'R':>11}{'mAP50':>11}{'mAP50-95':>11}"
    with torch.inference_mode():
        for number, batch in enumerate(tqdm(batches, desc=header, leave=False, bar_format="{l_bar}{bar:10}{r_bar}")):
            watch.lap("loading")
            pixels = scale_pixels(batch.images, device, dtype)
            targets = batch.targets.to(device)
            watch.lap("pre")
            predictions, raw = network(pixels)
            watch.lap("inference")
            if loss is not None:
                for name, value in loss(raw, targets).items():
                    sums[name] += float(value)
            watch.lap(OTHER)
            detections = non_max_suppression(predictions, nms)
            watch.lap("nms")
            labels = batch.targets.numpy()
            for position in range(len(pixels)):
                image = _judge(batch, position, detections[position], labels[labels[:, 0] == position])
                images.append(image)
                confusion.add(image.boxes, image.scores, image.classes, image.label_boxes, image.label_classes)
            watch.lap("matching")
            if on_batch is not None:
                on_batch(number, batch, detections)
            watch.end_batch(len(pixels))
    images.sort(key=lambda image: image.index)
    count = max(watch.batches, 1)
    return Evaluation(
        metrics=measure(images),
        losses={name: total / count for name, total in sums.items()} if loss is not None else {},
        images=images,
        confusion=confusion,
        milliseconds=watch.milliseconds(),
    )


def measure(images: Sequence[ImageEvaluation]) -> PrecisionRecall:
    """Make the numbers of a set of judged images, which may hold an image several times."""
    if not images:
        return precision_recall(np.zeros((0, 10), bool), np.zeros(0), np.zeros(0), np.zeros(0))
    return precision_recall(
        np.concatenate([p.correct for p in images]),
        np.concatenate([p.scores for p in images]),
        np.concatenate([p.classes for p in images]),
        np.concatenate([p.label_classes for p in images]),
    )


def metrics_table(metrics: PrecisionRecall, names: Sequence[str], *, images: int, verbose: bool) -> str:
    """Return the table users know: a row for all classes, and with `verbose` one for each."""
    columns = ("Class", "Images", "Instances", "P", "R", "mAP50", "mAP50-95")
    lines = [f"{columns[0]:>22}" + "".join(f"{name:>11}" for name in columns[1:])]

    def row(label: str, instances: int, values: Sequence[float]) -> str:
        return f"{label[:22]:>22}{images:>11}{instances:>11}" + "".join(f"{value:>11.3g}" for value in values)

    means = (metrics.mean_precision, metrics.mean_recall, metrics.map50, metrics.map50_95)
    lines.append(row("all", int(metrics.labels.sum()), means))
    if verbose and len(names) > 1:
        for position, number in enumerate(metrics.classes):
            ap = metrics.ap[position]
            values = (metrics.precision[position], metrics.recall[position], ap[0], ap.mean())
            lines.append(row(names[int(number)], int(metrics.labels[position]), values))
    return "\n".join(lines)


def _judge(batch: Batch, position: int, found: Detections, targets: np.ndarray) -> ImageEvaluation:
    """Bring one image's detections and its (m, 6) rows of the targets to the file's pixels and pair them."""
    placement = batch.placements[position]
    height, width = batch.images.shape[2:]
    labels = cxcywh_to_xyxy(targets[:, 2:]) * np.array((width, height, width, height), np.float32)
    label_boxes = placement.to_original(labels)
    boxes = placement.to_original(found.boxes.cpu().numpy())
    classes, label_classes = found.classes.cpu().numpy(), targets[:, 1].astype(np.int64)
    return ImageEvaluation(
        index=batch.indices[position],
        boxes=boxes,
        scores=found.scores.cpu().numpy(),
        classes=classes,
        label_boxes=label_boxes,
        label_classes=label_classes,
        correct=match_detections(boxes, classes, label_boxes, label_classes),
        size_hw=placement.original_hw,
    )


class _Stopwatch:
    """Sums the seconds of each phase of a batch.

    Attributes:
        batches: how many have ended.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.batches = 0
        self._seconds = dict.fromkeys((*PHASES, OTHER), 0.0)
        self._first = dict(self._seconds)
        self._images = self._first_images = 0
        self._last = self._now()

    def lap(self, phase: str) -> None:
        """End a phase."""
        now = self._now()
        self._seconds[phase] += now - self._last
        self._last = now

    def end_batch(self, images: int) -> None:
        """End a batch; the time since its last phase is left out."""
        self.batches += 1
        self._images += images
        if self.batches == 1:
            self._first, self._first_images = dict(self._seconds), images
        self._last = self._now()

    def milliseconds(self) -> dict[str, float]:
        """Return the time of each phase per image, without the first batch if there are more."""
        left_out = 1 if self.batches > 1 else 0
        images = max(self._images - left_out * self._first_images, 1)
        return {phase: 1000 * (self._seconds[phase] - left_out * self._first[phase]) / images for phase in PHASES}

    def _now(self) -> float:
        """Return the time in seconds once the device has done all its work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()
