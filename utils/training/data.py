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
from utils.datasets.loader import BatchLoader, available_workers
from utils.datasets.splits import DEFAULT_CACHE_BYTES, batch_bytes, class_names, evaluation_loader
from utils.datasets.transforms import Augmentation
from utils.distributed import DistributedContext
from utils.errors import ConfigError, DataError
from utils.log import LOGGER

MEMORY_FRACTION = 0.5  # of the available memory, for --cache ram


@dataclass(frozen=True, kw_only=True)
class LoaderConfig:
    """How the images of a run are loaded."""

    batch_size: int  # images per batch over all processes
    image_size: int  # side of the square training images in pixels; with `multi_scale` their mean side
    stride: int  # largest stride of the model
    workers: int  # worker processes of each loader
    seed: int  # seed of order and augmentation
    augmentation: Augmentation  # of the training images
    cache: str = ""  # where decoded training images are kept: "ram", "disk", or "" for a small cache
    close_mosaic_epoch: int | None = None  # the first epoch without mosaic
    rect: bool = False  # rectangular batches of images of similar shape, without mosaic
    multi_scale: bool = False  # whether the trainer varies the image size
    single_class: bool = False  # treat all classes as one
    strict: bool = False  # raise an error for a bad image or label instead of skipping it
    label_cache: bool = True  # use the cache of labels on disk


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """Both splits of a run, and their loaders."""

    config: LoaderConfig
    names: tuple[str, ...]
    train: DatasetIndex
    val: DatasetIndex
    sampler: ShuffledBatches
    train_loader: BatchLoader
    val_loader: BatchLoader


def load_training_data(dataset: DataConfig, config: LoaderConfig, *, context: DistributedContext) -> TrainingData:
    """Scan both splits and build their loaders.

    Raises:
        DataError: a split is missing or unusable, or the training split has no objects.
        ConfigError: the batch size suits neither the processes nor batch norm.
    """
    train, val = (
        build_index(dataset, split, use_cache=config.label_cache, strict=config.strict) for split in ("train", "val")
    )
    if not len(train.labels):
        raise DataError(dataset.file, "no objects in 'train'", fix="add labels to the training images")
    _require_usable_batches(len(train), config, context=context)
    sizes = {"image_size": config.image_size, "stride": config.stride}
    rectangles = None
    if config.rect:
        rectangles = rectangular_batches(train.sizes_hw, batch_size=config.batch_size, **sizes, pad=0.0)
    sampler = ShuffledBatches(
        len(train),
        batch_size=config.batch_size,
        image_size=config.image_size,
        seed=config.seed,
        rectangles=rectangles,
        rank=context.rank,
        world_size=context.size,
        close_mosaic_epoch=config.close_mosaic_epoch,
    )
    samples = DetectionDataset(
        train,
        image_size=config.image_size,
        augmentation=config.augmentation,
        seed=config.seed,
        single_class=config.single_class,
        cache_bytes=_cache_bytes(train, config, context) if config.cache == "ram" else DEFAULT_CACHE_BYTES,
        disk_cache=prepare_disk_cache(train, image_size=config.image_size) if config.cache == "disk" else None,
    )
    return TrainingData(
        config=config,
        names=class_names(dataset, single_class=config.single_class),
        train=train,
        val=val,
        sampler=sampler,
        train_loader=BatchLoader(
            samples,
            sampler,
            workers=config.workers,
            pin=torch.cuda.is_available(),
            batch_bytes=batch_bytes(-(-config.batch_size // context.size), config.image_size),
        ),
        val_loader=evaluation_loader(
            val, batch_size=2 * config.batch_size, **sizes, workers=config.workers, single_class=config.single_class
        ),
    )


def _require_usable_batches(count: int, config: LoaderConfig, *, context: DistributedContext) -> None:
    """Check that each process gets an image of each batch, and that batch norm gets more than one value."""
    batch_size, stride = config.batch_size, config.stride
    if batch_size % context.size or count < context.size:
        raise ConfigError(
            "--batch-size",
            f"{batch_size} images of {count} are not divisible by the world size {context.size}",
            fix=f"use a multiple of {context.size}",
        )
    smallest_batch = min(count, count % batch_size or batch_size) // context.size
    cells = (config.image_size // 2 if config.multi_scale else config.image_size) // stride
    if max(cells, 1) == 1 and smallest_batch <= 1:
        raise ConfigError(
            f"--imgsz {config.image_size}",
            f"leaves one cell of one image in the smallest batch ({count} images, batch {batch_size}), and batch norm "
            "needs two values",
            fix=f"use --imgsz {2 * stride}, or a --batch-size without a last batch of one image",
        )


def _cache_bytes(index: DatasetIndex, config: LoaderConfig, context: DistributedContext) -> int:
    """Return the size of each worker's cache: all images, or if memory is short an equal part of half of it.

    Workers share no memory: each fills a cache of its own, and mosaics make each worker read all images.
    """
    scale = config.image_size / index.sizes_hw.max(1)
    needed = int((index.sizes_hw.prod(1) * scale**2 * 3).sum() * 1.01)
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", context.size))  # processes on this machine
    workers = ranks * max(available_workers(config.workers), 1)
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
