"""Builds the parts of a run from its options: data, model, loaders. The only place where their numbers meet."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from models.config import MAX_ANCHORS, ModelConfig, load_model_config
from models.yolo import DetectionModel
from utils.datasets.autoanchor import fit_anchors
from utils.datasets.batching import ShuffledBatches, rectangular_batches
from utils.datasets.config import DataConfig
from utils.datasets.dataset import DetectionDataset
from utils.datasets.image_cache import prepare_disk_cache
from utils.datasets.index import DatasetIndex, build_index
from utils.datasets.loader import BatchLoader, available_workers
from utils.datasets.splits import (
    DEFAULT_CACHE_BYTES,
    batch_bytes,
    class_names,
    evaluation_loader,
)
from utils.distributed import DistributedContext
from utils.errors import ConfigError, DataError
from utils.log import LOGGER
from utils.options import TrainOptions
from utils.options.hyperparameters import Hyperparameters
from utils.weights.checkpoint import Checkpoint, load_checkpoint, stored_config, stored_weights
from utils.weights.transfer import transfer_weights

DEFAULT_MODEL = "yolov5n-AKConv.yaml"
MEMORY_SHARE = 0.5


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """The two splits of a training run and their loaders."""

    names: tuple[str, ...]
    train: DatasetIndex
    val: DatasetIndex
    sampler: ShuffledBatches
    train_batches: BatchLoader
    val_loader: BatchLoader


def training_data(
    config: DataConfig,
    options: TrainOptions,
    *,
    hyperparameters: Hyperparameters,
    image_size: int,
    stride: int,
    team: DistributedContext,
) -> TrainingData:
    """Scan both splits and make their loaders.

    Raises:
        DataError: a split is missing or unusable, or the training split has no objects.
    """
    scanned = {
        split: build_index(config, split, use_cache=not options.no_label_cache, strict=options.strict)
        for split in ("train", "val")
    }
    train, val = scanned["train"], scanned["val"]
    if not len(train.labels):
        raise DataError(config.file, "no objects in 'train'", fix="add labels to the training images")
    common = {"image_size": image_size, "stride": stride, "batch_size": options.batch_size}
    rectangles = rectangular_batches(train.sizes_hw, **common, pad=0.0) if options.rect else None
    sampler = ShuffledBatches(
        len(train),
        batch_size=options.batch_size,
        image_size=image_size,
        seed=options.seed,
        rectangles=rectangles,
        rank=team.rank,
        world_size=team.size,
        close_mosaic_epoch=options.epochs - int(hyperparameters.close_mosaic) if hyperparameters.close_mosaic else None,
    )
    _require_usable_batches(len(train), options, image_size=image_size, stride=stride, team=team)
    dataset = DetectionDataset(
        train,
        image_size=image_size,
        augmentation=hyperparameters.augmentation,
        seed=options.seed,
        single_class=options.single_cls,
        cache_bytes=_cache_bytes(train, image_size, options, team) if options.cache == "ram" else DEFAULT_CACHE_BYTES,
        disk_cache=prepare_disk_cache(train, image_size=image_size) if options.cache == "disk" else None,
    )
    return TrainingData(
        names=class_names(config, single_class=options.single_cls),
        train=train,
        val=val,
        sampler=sampler,
        train_batches=BatchLoader(
            dataset,
            sampler,
            workers=options.workers,
            pin=torch.cuda.is_available(),
            batch_bytes=batch_bytes(-(-options.batch_size // team.size), image_size),
        ),
        val_loader=evaluation_loader(
            val,
            batch_size=2 * options.batch_size,
            image_size=image_size,
            stride=stride,
            workers=options.workers,
            single_class=options.single_cls,
        ),
    )


def _require_usable_batches(
    count: int, options: TrainOptions, *, image_size: int, stride: int, team: DistributedContext
) -> None:
    """Check that every process has an image in a batch, and that batch norm has more than one value to go by.

    Raises:
        ConfigError: it has not.
    """
    if options.batch_size % team.size or count < team.size:
        raise ConfigError(
            "--batch-size",
            f"{options.batch_size} and {count} images do not share out among {team.size} processes",
            fix=f"use a multiple of {team.size}",
        )
    smallest = min(count, count % options.batch_size or options.batch_size) // team.size
    side = image_size // 2 // stride if options.multi_scale else image_size // stride
    if max(side, 1) == 1 and smallest <= 1:
        raise ConfigError(
            f"--imgsz {image_size}",
            f"leaves a single cell of the one image in the smallest batch ({count} images, batch "
            f"{options.batch_size}), and batch norm needs two values",
            fix=f"use --imgsz {2 * stride}, or a --batch-size that leaves no batch of one",
        )


def _cache_bytes(index: DatasetIndex, image_size: int, options: TrainOptions, team: DistributedContext) -> int:
    """Return the memory for decoded images in each data process: all of them, if half of what is free holds that.

    Data processes share nothing: each fills a memory of its own, and mosaics lead each to all images.
    """
    scale = image_size / index.sizes_hw.max(1)
    needed = int((index.sizes_hw.prod(1) * scale**2 * 3).sum() * 1.01)
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", team.size))  # those on this machine
    processes = ranks * max(available_workers(options.workers), 1)
    available = _available_memory()
    LOGGER.info(
        f"--cache: {needed / 1e9:.2f} GB of images in each of {processes} data processes, "
        f"{needed * processes / 1e9:.2f} GB together; {available / 1e9:.1f} GB are free"
    )
    if needed * processes > MEMORY_SHARE * available:
        LOGGER.warning(
            "--cache: that is more than half of the free memory; only a part is kept. "
            "With fewer --workers it is more, with --cache disk all"
        )
        return int(MEMORY_SHARE * available / processes)
    return needed


def _available_memory() -> int:
    """Return the memory that is free for programs, in bytes; 4 GB where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return 4_000_000_000


def choose_config(options: TrainOptions, hyperparameters: Hyperparameters) -> tuple[ModelConfig, Checkpoint | None]:
    """Return the model config of a run, from --cfg or else from --weights, and what --weights holds.

    Raises:
        ConfigError: no such yaml, or wrong; or anchors are to be fitted to the data, but too many, or against
            --noautoanchor.
        CheckpointError: the weights cannot be read.
    """
    content = load_checkpoint(options.weights) if options.weights else None
    if options.cfg or content is None:
        config = load_model_config(options.cfg or DEFAULT_MODEL)
    else:
        config = stored_config(content, options.weights)
    count = round(hyperparameters.anchors)
    if count > MAX_ANCHORS:
        what = f"anchors is {hyperparameters.anchors:g} per level, more than {MAX_ANCHORS}"
        raise ConfigError(options.hyp, what, fix="write a small number such as 3")
    # A checkpoint's own count stays: these are the anchors it was trained with.
    counted = options.hyp if count else options.cfg or (config.name if content is None else "")
    config = config.with_anchors(count) if count else config
    if options.noautoanchor and counted and isinstance(config.anchors, int):
        what = f"keeps the model's anchors, but {counted} gives only how many to fit ({config.anchors} per level)"
        raise ConfigError("--noautoanchor", what, fix=f"leave it out, or correct anchors in {counted}")
    return config, content


def build_model(
    config: ModelConfig, *, names: tuple[str, ...], content: Checkpoint | None, weights: str, freeze: Iterable[int]
) -> tuple[DetectionModel, float | None]:
    """Build the network for a data set, with what fits of a checkpoint's weights, and layers frozen.

    Returns:
        The network, and the fraction of its parameters that comes from the checkpoint; None without one.

    Raises:
        CheckpointError: the checkpoint holds no weights.
        ConfigError: no such layers to freeze, or nothing is left to train.
    """
    model = DetectionModel(config, nc=len(names))
    transferred = None
    if content is not None:
        transferred = transfer_weights(model, stored_weights(content, weights), source=weights).fraction
    listed, last = tuple(freeze), len(model.model) - 1
    if min(listed) < 0 or max(listed) > (last if len(listed) > 1 else last + 1):
        what = f"names layers that there are not (got {' '.join(map(str, listed))})"
        raise ConfigError("--freeze", what, fix=f"give how many of the first, or several from 0 to {last}")
    frozen = set(listed if len(listed) > 1 else range(listed[0]))
    for number in frozen:
        model.model[number].requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        what = f"leaves nothing to train of the {last + 1} layers of {config.name} (got {' '.join(map(str, listed))})"
        raise ConfigError("--freeze", what, fix=f"freeze the first {last} at most")
    if frozen:
        LOGGER.info(f"Frozen layers: {sorted(frozen)}")
    return model, transferred


def check_anchors(model: DetectionModel, index: DatasetIndex, *, image_size: int, max_ratio: float, seed: int) -> None:
    """Fit the model's anchors to the labels, in place, if they serve fewer than 98 % of the objects or are none yet."""
    sizes = index.sizes_hw[:, ::-1] * (image_size / index.sizes_hw.max(1, keepdims=True))  # (n, 2) width, height
    boxes_wh = index.labels[:, 3:5] * sizes.repeat(index.starts[1:] - index.starts[:-1], axis=0)
    strides = torch.tensor(model.head.strides, dtype=torch.float32).view(-1, 1, 1)
    present = (model.head.anchors.cpu() * strides).numpy()
    force = isinstance(model.config.anchors, int)
    fitted = fit_anchors(boxes_wh, present, max_ratio=max_ratio, image_size=image_size, seed=seed, force=force)
    if fitted is None:
        return
    with torch.no_grad():
        model.head.anchors.copy_(torch.from_numpy(fitted) / strides)
    model.config = model.config.with_anchors(tuple(tuple(float(v) for v in level.reshape(-1)) for level in fitted))
