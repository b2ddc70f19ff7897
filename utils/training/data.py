"""The training data of a run: both splits, the order of the training images, and the loaders."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from utils.datasets.batching import ShuffledBatches, rectangular_batches
from utils.datasets.config import DataConfig
from utils.datasets.dataset import DetectionDataset
from utils.datasets.image_cache import prepare_disk_cache
from utils.datasets.index import DatasetIndex, build_index
from utils.datasets.loader import BatchLoader
from utils.datasets.split_checks import split_warnings
from utils.datasets.splits import DEFAULT_CACHE_BYTES, batch_bytes, class_names, evaluation_loader
from utils.distributed import DistributedContext
from utils.errors import ConfigError, DataError
from utils.log import LOGGER
from utils.options import TrainOptions
from utils.options.hyperparameters import Hyperparameters
from utils.threads import available_workers

VAL_BATCH_FACTOR = 2  # a validation batch is larger than a training batch, since no gradients are stored
MEMORY_FRACTION = 0.5  # of the available memory, for --cache ram


@dataclass(frozen=True)
class TrainingData:
    """Both splits of a run, and their loaders."""

    file: Path  # data yaml
    names: tuple[str, ...]
    image_size: int  # side of the square training images in pixels; with --multi-scale their mean side
    stride: int  # largest stride of the model
    train: DatasetIndex
    val: DatasetIndex
    sampler: ShuffledBatches
    train_loader: BatchLoader
    val_loader: BatchLoader  # this process's part


def load_training_data(
    dataset: DataConfig,
    options: TrainOptions,
    hyperparameters: Hyperparameters,
    *,
    image_size: int,
    stride: int,
    context: DistributedContext,
) -> TrainingData:
    """Scan both splits and build their loaders; `stride` is the model's largest.

    Raises:
        DataError: a split is missing or unusable, or the training split has no objects.
        ConfigError: the batch size suits neither the processes nor batch norm, or --fraction leaves no object.
    """
    reading = {"use_cache": not options.no_label_cache, "strict": options.strict}
    train, val = (build_index(dataset, split, **reading) for split in ("train", "val"))
    if not len(train.labels):
        raise DataError(dataset.file, "no objects in 'train'", fix="add labels to the training images")
    if options.fraction < 1:
        count, train = len(train), train.fraction(options.fraction, seed=options.seed)
        LOGGER.info(f"--fraction: {len(train)} of {count} training images, {len(train.labels)} objects")
    for warning in (*split_warnings(dataset, train, "train"), *split_warnings(dataset, val, "val")):
        LOGGER.warning(warning)
    batch_size, workers, single_class = options.batch_size, options.workers, options.single_cls
    _require_usable_batches(len(train), options, image_size, stride, context)
    sizes, rectangles = {"image_size": image_size, "stride": stride}, None
    if options.rect:
        rectangles = rectangular_batches(train.sizes_hw, batch_size=batch_size, **sizes, pad=0.0)
    close_mosaic = int(hyperparameters.close_mosaic)
    sampler = ShuffledBatches(
        len(train),
        batch_size=batch_size,
        image_size=image_size,
        seed=options.seed,
        rectangles=rectangles,
        rank=context.rank,
        world_size=context.size,
        close_mosaic_epoch=options.epochs - close_mosaic if hyperparameters.close_mosaic else None,
    )
    in_memory = options.cache == "ram"
    cache_bytes = _cache_bytes(train, image_size, workers, context) if in_memory else DEFAULT_CACHE_BYTES
    samples = DetectionDataset(
        train,
        image_size=image_size,
        augmentation=hyperparameters.augmentation,
        seed=options.seed,
        single_class=single_class,
        cache_bytes=cache_bytes,
        disk_cache=prepare_disk_cache(train, image_size=image_size) if options.cache == "disk" else None,
    )
    bytes_per_batch, pin = batch_bytes(-(-batch_size // context.size), image_size), torch.cuda.is_available()
    train_loader = BatchLoader(samples, sampler, workers=workers, pin=pin, batch_bytes=bytes_per_batch)
    val_loader = validation_loader(val, options, image_size=image_size, stride=stride, context=context)
    names = class_names(dataset, single_class=single_class)
    return TrainingData(dataset.file, names, image_size, stride, train, val, sampler, train_loader, val_loader)


def validation_loader(
    index: DatasetIndex, options: TrainOptions, *, image_size: int, stride: int, context: DistributedContext
) -> BatchLoader:
    """Return a process's part of the batches of the validation split: every n-th of n processes."""
    return evaluation_loader(
        index,
        batch_size=VAL_BATCH_FACTOR * options.batch_size,
        image_size=image_size,
        stride=stride,
        workers=options.workers,
        single_class=options.single_cls,
        rank=context.rank,
        world_size=context.size,
    )


def _require_usable_batches(
    count: int, options: TrainOptions, image_size: int, stride: int, context: DistributedContext
) -> None:
    """Check that each process gets an image of each batch, and that batch norm gets more than one value."""
    batch_size = options.batch_size
    if batch_size % context.size or count < context.size:
        what = f"{batch_size} images of {count} are not divisible by the world size {context.size}"
        raise ConfigError("--batch-size", what, fix=f"use a multiple of {context.size}")
    smallest_batch = min(count, count % batch_size or batch_size) // context.size
    cells = (image_size // 2 if options.multi_scale else image_size) // stride
    if max(cells, 1) == 1 and smallest_batch <= 1:
        what = (
            f"leaves one cell of one image in the smallest batch ({count} images, batch {batch_size}), and batch norm "
            "needs two values"
        )
        fix = f"use --imgsz {2 * stride}, or a --batch-size without a last batch of one image"
        raise ConfigError(f"--imgsz {image_size}", what, fix=fix)


def _cache_bytes(index: DatasetIndex, image_size: int, workers: int, context: DistributedContext) -> int:
    """Return the size of each worker's cache: all images, or if memory is short an equal part of half of it.

    Workers share no memory: each fills a cache of its own, and mosaics make each worker read all images.
    """
    scale = image_size / index.sizes_hw.max(1)
    needed = int((index.sizes_hw.prod(1) * scale**2 * 3).sum() * 1.01)
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", context.size))  # processes on this machine
    workers = ranks * max(available_workers(workers), 1)
    available = _available_memory()
    LOGGER.info(
        f"--cache: {needed / 1e9:.2f} GB of images in each of {workers} workers, {needed * workers / 1e9:.2f} GB in "
        f"total; {available / 1e9:.1f} GB are free"
    )
    if needed * workers > MEMORY_FRACTION * available:
        LOGGER.warning(
            "--cache: more than half of the free memory; only some of the images are cached. "
            "Fewer --workers cache more of them, --cache disk all"
        )
        return int(MEMORY_FRACTION * available / workers)
    return needed


def _available_memory() -> int:
    """Return the memory available to programs in bytes; 4 GB where the system does not report it."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return 4_000_000_000
