"""Every run of a comparison judged on the same images, kept as arrays from which all figures can be resampled."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from utils.comparison.support import support_by_size
from utils.datasets.index import DatasetIndex
from utils.datasets.splits import evaluation_loader, round_image_size
from utils.files import try_write
from utils.inference.nms import EVALUATION_NMS
from utils.log import LOGGER
from utils.metrics.bootstrap import EvaluatedSet, resample_ap
from utils.metrics.object_size import SIZES, assign_size_bins, in_size_bin, size_of
from utils.runtime import to_device
from utils.validation.evaluate import ImageEvaluation, evaluate
from utils.weights.checkpoint import load_checkpoint, load_model

# As train.py judges its epochs, but always in full precision.
VERSION = 2
ALL = "all"
FIGURES = ("map50", "map50_95")
Key = tuple[str, str, str]  # ("all", "", "map50"), ("class", "cat", "map50_95"), ("size", "small", "map50_95")


@dataclass(frozen=True, kw_only=True)
class RunEvaluation:
    """What one checkpoint says of the validation set.

    Attributes:
        judged: detections and labels.
        boxes: (n, 4) float32 of the detections, x1, y1, x2, y2 in pixels of the file.
        own_sizes: (n,) size of each detection, an index of `SIZES`.
        claimed: (n,) size of the label it claims, or -1.
        label_sizes: (m,) size of each label.
    """

    judged: EvaluatedSet
    boxes: np.ndarray
    own_sizes: np.ndarray
    claimed: np.ndarray
    label_sizes: np.ndarray


def evaluate_checkpoint(
    path: Path,
    index: DatasetIndex,
    *,
    image_size: int,
    batch_size: int,
    workers: int,
    device: torch.device,
    cache: Path,
) -> RunEvaluation:
    """Judge a checkpoint, or take what an earlier call kept.

    Args:
        path: the checkpoint.
        index: images and labels.
        image_size: longer side of the images in pixels, a multiple of the model's stride.
        batch_size: images per batch.
        workers: processes that prepare batches.
        device: where to compute.
        cache: file for the next call.
    """
    content = load_checkpoint(path)
    weights = hashlib.sha256(path.read_bytes()).hexdigest()
    mark = f"{VERSION} {weights} {index.fingerprint()} {_state_of_files(index)} {image_size}"
    kept = _read(cache, mark)
    if kept is not None:
        return kept
    model, _ = load_model(path, content=content)
    loader = evaluation_loader(
        index,
        batch_size=batch_size,
        image_size=image_size,
        stride=model.max_stride,
        workers=workers,
        single_class=bool((content.get("options") or {}).get("single_cls")),
    )
    images = evaluate(to_device(model, device), loader, nms=EVALUATION_NMS, device=device).images
    judgement = run_evaluation_of(images)
    error = try_write(cache, _to_bytes(judgement, mark))
    if error is not None:
        LOGGER.warning(f"judgement not kept: {error}")
    return judgement


def _state_of_files(index: DatasetIndex) -> str:
    """Return a hash of the images' bytes and times: another one means that they may have been changed in place."""
    digest = hashlib.sha256()
    for path in index.paths:
        try:
            status = Path(str(path)).stat()
        except OSError:  # it will be told when it is read
            continue
        digest.update(f"{status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def image_size_of(path: Path) -> int:
    """Return the image side that a checkpoint was trained with."""
    return int(load_checkpoint(path).get("image_size") or 640)


def eval_image_size(path: Path, asked: int) -> int:
    """Return the image side to judge a checkpoint at: `asked`, rounded up to its stride, or its own if that is 0."""
    return round_image_size(asked, load_model(path)[0].max_stride) if asked else image_size_of(path)


def run_evaluation_of(images: Sequence[ImageEvaluation]) -> RunEvaluation:
    """Put judged images into flat arrays."""
    numbers = np.arange(len(images))
    label_boxes = _joined([p.label_boxes for p in images], (0, 4))
    return RunEvaluation(
        judged=EvaluatedSet(
            images=len(images),
            detection_images=np.repeat(numbers, [len(p.scores) for p in images]),
            scores=_joined([p.scores for p in images], (0,)),
            classes=_joined([p.classes for p in images], (0,)).astype(np.int64),
            correct=_joined([p.correct for p in images], (0, 10)).astype(bool),
            label_images=np.repeat(numbers, [len(p.label_classes) for p in images]),
            label_classes=_joined([p.label_classes for p in images], (0,)).astype(np.int64),
        ),
        boxes=_joined([p.boxes for p in images], (0, 4)).astype(np.float32),
        own_sizes=size_of(_joined([p.boxes for p in images], (0, 4))),
        claimed=_joined([assign_size_bins(p.boxes, p.classes, p.label_boxes, p.label_classes) for p in images], (0,)),
        label_sizes=size_of(label_boxes),
    )


def _joined(arrays: Sequence[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    return np.concatenate([np.zeros(shape), *arrays]) if not arrays else np.concatenate(arrays)


def of_size(judgement: RunEvaluation, number: int) -> EvaluatedSet:
    """Return the set as if only objects of one size were asked for."""
    judged, mine = judgement.judged, judgement.label_sizes == number
    correct, counted = in_size_bin(
        number, correct=judged.correct, own_sizes=judgement.own_sizes, claimed=judgement.claimed
    )
    return replace(
        judged,
        correct=correct,
        counted=counted,
        label_images=judged.label_images[mine],
        label_classes=judged.label_classes[mine],
    )


def resampled_metrics(judgement: RunEvaluation, weights: np.ndarray, names: Sequence[str]) -> dict[Key, np.ndarray]:
    """Compute every figure on the set itself and on its resamples.

    Args:
        judgement: of one run.
        weights: (r, images) of `draw_resamples`.
        names: of the classes, none of them twice.

    Returns:
        (1 + r,) arrays, the set itself first; nan where a resample lacks the labels. A size is the mean of the classes
        that have enough objects of it, and missing where none has.
    """
    ones = np.ones((1, judgement.judged.images), weights.dtype)
    every = np.concatenate((ones, weights))
    found: dict[Key, np.ndarray] = {}
    result = resample_ap(judgement.judged, every)
    columns: tuple[tuple[str, slice | int], ...] = ((FIGURES[0], 0), (FIGURES[1], slice(None)))
    for figure, thresholds in columns:
        found[ALL, "", figure] = result.mean(thresholds)
        if len(result.classes) > 1:
            for number in result.classes:
                found["class", names[int(number)], figure] = result.of_class(int(number), thresholds)
    for number, size in enumerate(SIZES):
        plenty = [own.number for own in support_by_size(judgement.judged, judgement.label_sizes, number) if own.enough]
        if plenty:
            part = resample_ap(of_size(judgement, number), every)
            for figure, thresholds in columns:
                found["size", size, figure] = np.mean([part.of_class(own, thresholds) for own in plenty], axis=0)
    return found


def _to_bytes(judgement: RunEvaluation, mark: str) -> bytes:
    """Return a judgement as an npz file of plain arrays."""
    buffer, judged = io.BytesIO(), judgement.judged
    np.savez_compressed(
        buffer,
        mark=np.array(mark),
        images=np.array(judged.images),
        detection_images=judged.detection_images,
        scores=judged.scores,
        classes=judged.classes,
        correct=judged.correct,
        label_images=judged.label_images,
        label_classes=judged.label_classes,
        boxes=judgement.boxes,
        own_sizes=judgement.own_sizes,
        claimed=judgement.claimed,
        label_sizes=judgement.label_sizes,
    )
    return buffer.getvalue()


def _read(path: Path, mark: str) -> RunEvaluation | None:
    """Return what was kept, if it is of the same checkpoint and data; None otherwise."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            if str(stored["mark"]) != mark:
                return None
            return RunEvaluation(
                judged=EvaluatedSet(
                    images=int(stored["images"]),
                    detection_images=stored["detection_images"],
                    scores=stored["scores"],
                    classes=stored["classes"],
                    correct=stored["correct"],
                    label_images=stored["label_images"],
                    label_classes=stored["label_classes"],
                ),
                boxes=stored["boxes"],
                own_sizes=stored["own_sizes"],
                claimed=stored["claimed"],
                label_sizes=stored["label_sizes"],
            )
    except Exception as error:
        if path.exists():
            LOGGER.warning(f"{path} is damaged ({type(error).__name__}); judging again")
        return None
