"""Evaluate the runs of a comparison on the same images; predictions are cached, and metrics computed on resamples."""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch

from utils.comparison.trained_runs import TrainedRun, TrainedRuns
from utils.datasets.index import DatasetIndex
from utils.datasets.splits import evaluation_loader
from utils.files import file_hash, try_write
from utils.inference.nms import EVALUATION_NMS
from utils.log import LOGGER
from utils.metrics.bootstrap import resample_ap
from utils.metrics.coco_resampling import resample_coco
from utils.metrics.evaluated_set import EvaluatedSet
from utils.metrics.object_size import COCO_SCALE, SizeScale, restrict_to_size, size_bins
from utils.metrics.operating_point import resample_point
from utils.runtime import to_device
from utils.validation.coco_json import image_ids
from utils.validation.evaluate import evaluate
from utils.weights.checkpoint import load_model

CACHE_VERSION = 4
# A metric of all classes, of a class or of an object size, or one of COCO's: ("all", "", "map50"),
# ("class", "cat", "map50_95"), ("size", "small", "map50_95"), ("coco", "", "AP_small").
MetricKey = tuple[str, str, str]
ALL, COCO = "all", "coco"
METRIC_THRESHOLDS: Mapping[str, slice | int] = {"map50": 0, "map75": 5, "map50_95": slice(None)}
POINT_METRICS = ("precision", "recall", "f1")  # at the confidence of the best mean F1, IoU 0.5
# A class with less support in a size is excluded from the size's mean: an object or two would move it by a third.
MIN_OBJECTS, MIN_IMAGES = 5, 3


@dataclass(frozen=True)
class Support:
    """Number of objects, and of images that contain them."""

    objects: int
    images: int

    def __str__(self) -> str:
        """Return `3 in 2`."""
        return f"{self.objects} in {self.images}"

    @property
    def sufficient(self) -> bool:
        """Whether a class with this support in a size counts in the size's mean."""
        return self.objects >= MIN_OBJECTS and self.images >= MIN_IMAGES


SupportByName = dict[tuple[str, str], Support]  # ("class", "cat"), ("size", "small")


def evaluate_models(
    models: Sequence[TrainedRuns],
    sizes: Sequence[int],
    val: DatasetIndex,
    *,
    batch_size: int,
    workers: int,
    device: torch.device,
    cache: Path,
) -> list[list[EvaluatedSet]]:
    """Evaluate the runs of each model at the size of its images; `cache` is the folder of the predictions."""
    LOGGER.info(f"\nEvaluating {sum(len(model.runs) for model in models)} checkpoints on {len(val)} images")
    return [
        [
            _evaluate_run(
                run,
                val,
                image_size=size,
                batch_size=batch_size,
                workers=workers,
                device=device,
                cache=cache / f"{model.label}-{index}.npz",
            )
            for index, run in enumerate(model.runs)
        ]
        for model, size in zip(models, sizes, strict=True)
    ]


def _evaluate_run(
    run: TrainedRun,
    val: DatasetIndex,
    *,
    image_size: int,
    batch_size: int,
    workers: int,
    device: torch.device,
    cache: Path,
) -> EvaluatedSet:
    """Evaluate a run's checkpoint as train.py does after each epoch, but always in full precision, or read the cache.

    The image size, a multiple of the model's stride, is the longer side in pixels. The cache is an npz file, written
    where it is missing or of other weights, labels, images or image size.
    """
    key = f"{CACHE_VERSION} {file_hash(run.path)} {val.fingerprint()} {_file_states(val)} {image_size}"
    cached = _read_cache(cache, key)
    if cached is not None:
        return cached
    model, _ = load_model(run.path)
    single = bool(run.args.get("single_cls"))
    loader = evaluation_loader(
        val, batch_size=batch_size, image_size=image_size, stride=model.max_stride, workers=workers, single_class=single
    )
    images = evaluate(to_device(model, device), loader, nms=EVALUATION_NMS, device=device).images
    evaluated = EvaluatedSet.concatenate(images)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, key=np.array(key), **vars(evaluated))
    error = try_write(cache, buffer.getvalue())
    if error is not None:
        LOGGER.warning(f"predictions not cached: {error}")
    return evaluated


def _file_states(val: DatasetIndex) -> str:
    """Return a hash of the images' sizes in bytes and modification times, as images may be changed in place."""
    digest = hashlib.sha256()
    for path in map(Path, val.paths):
        with contextlib.suppress(OSError):  # reported when it is read
            digest.update(f"{path.stat().st_size} {path.stat().st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _read_cache(path: Path, key: str) -> EvaluatedSet | None:
    """Return cached predictions; None if there are none of this checkpoint, data and image size."""
    try:
        stored = _load(path, lambda stored_key: stored_key == key)
        return stored[1] if stored else None
    except Exception as error:
        if path.exists():
            LOGGER.warning(f"{path} is damaged ({type(error).__name__}); re-evaluating")
        return None


def _load(path: Path, accepts: Callable[[str], bool]) -> tuple[str, EvaluatedSet] | None:
    """Return key and content of cached predictions; None without a key that is accepted, as of an older version."""
    with np.load(path, allow_pickle=False) as stored:
        key = str(stored["key"]) if "key" in stored else ""
        if not accepts(key):
            return None
        arrays = {field.name: stored[field.name] for field in fields(EvaluatedSet)}
        return key, EvaluatedSet(**{**arrays, "num_images": int(arrays["num_images"])})


def cached_predictions(cache: Path, val: DatasetIndex) -> dict[str, EvaluatedSet]:
    """Return the predictions of a finished comparison on a split by the hash of the checkpoint's file.

    Damaged files, and those of another version or of other labels, are left out.
    """
    expected, found = [str(CACHE_VERSION), val.fingerprint()], {}
    for path in sorted(cache.glob("*.npz")):
        with contextlib.suppress(Exception):
            stored = _load(path, lambda key: key.split()[:3:2] == expected)
            if stored is not None:
                found[stored[0].split()[1]] = stored[1]
    return found


def coco_ranks(val: DatasetIndex) -> np.ndarray:
    """Return the (images,) rank of each image by its id in COCO files."""
    ids = image_ids([str(path) for path in val.paths])
    return np.argsort(np.array(sorted(range(len(ids)), key=lambda image: ids[image]), np.int64))


def resampled_metrics(
    evaluated: EvaluatedSet,
    weights: np.ndarray,
    names: Sequence[str],
    *,
    image_ranks: np.ndarray | None = None,
    scale: SizeScale = COCO_SCALE,
) -> dict[MetricKey, np.ndarray]:
    """Compute every metric of a run on the set itself and on the resamples that (r, images) weights stand for.

    The arrays are (1 + r,), the set itself first; nan where a resample lacks the labels. The metric of a size is the
    mean over the classes with sufficient support, absent without any. Class names must be unique. COCO's metrics rank
    equal confidences by `image_ranks`, see `coco_ranks`; None is the order of the set.
    """
    image_ranks = np.arange(evaluated.num_images) if image_ranks is None else image_ranks
    weights = np.concatenate((np.ones((1, evaluated.num_images), weights.dtype), weights))
    metrics: dict[MetricKey, np.ndarray] = {}
    result = resample_ap(evaluated, weights)
    for metric, thresholds in METRIC_THRESHOLDS.items():
        metrics[ALL, "", metric] = result.mean(thresholds)
        if len(result.class_ids) > 1:
            for class_id in result.class_ids.tolist():
                metrics["class", names[class_id], metric] = result.of_class(class_id, thresholds)
    point = resample_point(evaluated, weights)
    for metric in POINT_METRICS:
        metrics[ALL, "", metric] = point.mean(metric)
        if len(point.class_ids) > 1:
            by_class = zip(point.class_ids.tolist(), getattr(point, metric).T, strict=True)
            metrics |= {("class", names[class_id], metric): values for class_id, values in by_class}
    for size_bin, size in enumerate(scale.names):
        class_ids = [i for i, support in support_in_size(evaluated, size_bin, scale).items() if support.sufficient]
        if class_ids:
            restricted, ignored = restrict_to_size(evaluated, size_bin, scale)
            result = resample_ap(restricted, weights, ignored=ignored)
            for metric, thresholds in METRIC_THRESHOLDS.items():
                metrics["size", size, metric] = np.mean([result.of_class(i, thresholds) for i in class_ids], axis=0)
    coco = resample_coco(evaluated, weights, image_ranks=image_ranks, scale=scale)
    return metrics | {(COCO, "", metric): values for metric, values in coco.items()}


def support_in_size(evaluated: EvaluatedSet, size_bin: int, scale: SizeScale = COCO_SCALE) -> dict[int, Support]:
    """Return the support by id of each class that has objects of a size, an index of the scale's names."""
    in_size = size_bins(evaluated.label_areas, scale) == size_bin
    class_ids = np.unique(evaluated.label_classes[in_size]).tolist()
    return {i: _support(evaluated, in_size & (evaluated.label_classes == i)) for i in class_ids}


def support_by_class(evaluated: EvaluatedSet, names: Sequence[str], scale: SizeScale = COCO_SCALE) -> SupportByName:
    """Return the support of ("class", name) and ("size", name), as far as there are objects."""
    class_ids, sizes = evaluated.label_classes, size_bins(evaluated.label_areas, scale)
    support = {("class", names[i]): _support(evaluated, class_ids == i) for i in np.unique(class_ids).tolist()}
    return support | {("size", scale.names[i]): _support(evaluated, sizes == i) for i in np.unique(sizes).tolist()}


def excluded_by_size(evaluated: EvaluatedSet, names: Sequence[str], scale: SizeScale = COCO_SCALE) -> list[str]:
    """Return the classes with objects of a size, but too few to count in its mean, as `dog of small (3 in 2)`."""
    return [
        f"{names[class_id]} of {size} ({support})"
        for size_bin, size in enumerate(scale.names)
        for class_id, support in support_in_size(evaluated, size_bin, scale).items()
        if not support.sufficient
    ]


def _support(evaluated: EvaluatedSet, labels: np.ndarray) -> Support:
    return Support(int(labels.sum()), len(np.unique(evaluated.label_image_ids[labels])))
