"""Every run of a comparison judged on the same images, kept as arrays from which all figures can be resampled."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch

from utils.comparison.support import support_by_size
from utils.datasets.index import DatasetIndex
from utils.datasets.splits import evaluation_loader, round_image_size
from utils.files import try_write
from utils.inference.nms import EVALUATION_NMS
from utils.log import LOGGER
from utils.metrics.bootstrap import resample_ap
from utils.metrics.evaluated_set import EvaluatedSet
from utils.metrics.object_size import SIZES, restrict_to_size
from utils.runtime import to_device
from utils.validation.evaluate import evaluate
from utils.weights.checkpoint import load_checkpoint, load_model

# As train.py judges its epochs, but always in full precision.
VERSION = 3
ALL = "all"
FIGURES = ("map50", "map50_95")
Key = tuple[str, str, str]  # ("all", "", "map50"), ("class", "cat", "map50_95"), ("size", "small", "map50_95")


def evaluate_checkpoint(
    path: Path,
    index: DatasetIndex,
    *,
    image_size: int,
    batch_size: int,
    workers: int,
    device: torch.device,
    cache: Path,
) -> EvaluatedSet:
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
    judgement = EvaluatedSet.concatenate(images)
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


def resampled_metrics(judgement: EvaluatedSet, weights: np.ndarray, names: Sequence[str]) -> dict[Key, np.ndarray]:
    """Compute every figure on the set itself and on its resamples.

    Args:
        judgement: of one run.
        weights: (r, images) of `draw_resamples`.
        names: of the classes, none of them twice.

    Returns:
        (1 + r,) arrays, the set itself first; nan where a resample lacks the labels. A size is the mean of the classes
        that have enough objects of it, and missing where none has.
    """
    ones = np.ones((1, judgement.num_images), weights.dtype)
    every = np.concatenate((ones, weights))
    found: dict[Key, np.ndarray] = {}
    result = resample_ap(judgement, every)
    columns: tuple[tuple[str, slice | int], ...] = ((FIGURES[0], 0), (FIGURES[1], slice(None)))
    for figure, thresholds in columns:
        found[ALL, "", figure] = result.mean(thresholds)
        if len(result.class_ids) > 1:
            for number in result.class_ids:
                found["class", names[int(number)], figure] = result.of_class(int(number), thresholds)
    for number, size in enumerate(SIZES):
        plenty = [own.number for own in support_by_size(judgement, number) if own.enough]
        if plenty:
            restricted, ignored = restrict_to_size(judgement, number)
            part = resample_ap(restricted, every, ignored=ignored)
            for figure, thresholds in columns:
                found["size", size, figure] = np.mean([part.of_class(own, thresholds) for own in plenty], axis=0)
    return found


def _to_bytes(judgement: EvaluatedSet, mark: str) -> bytes:
    """Return a judgement as an npz file of plain arrays."""
    buffer = io.BytesIO()
    arrays = {field.name: np.asarray(getattr(judgement, field.name)) for field in fields(EvaluatedSet)}
    np.savez_compressed(buffer, mark=np.array(mark), **arrays)
    return buffer.getvalue()


def _read(path: Path, mark: str) -> EvaluatedSet | None:
    """Return what was kept, if it is of the same checkpoint and data; None otherwise."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            if str(stored["mark"]) != mark:
                return None
            arrays = {field.name: stored[field.name] for field in fields(EvaluatedSet)}
            return EvaluatedSet(**{**arrays, "num_images": int(arrays["num_images"])})
    except Exception as error:
        if path.exists():
            LOGGER.warning(f"{path} is damaged ({type(error).__name__}); judging again")
        return None
