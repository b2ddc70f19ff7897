"""The splits of a data set, opened by name, and the loaders that go over one for evaluation."""

from __future__ import annotations

import math

import torch

from utils.datasets.batching import rectangular_batches
from utils.datasets.config import DataConfig, load_data_config
from utils.datasets.dataset import DetectionDataset
from utils.datasets.download import fetch
from utils.datasets.index import DatasetIndex
from utils.datasets.loader import BatchLoader
from utils.datasets.synthetic_shapes import ensure_shapes
from utils.log import LOGGER

DEFAULT_CACHE_BYTES = 128_000_000
EVALUATION_PAD = 0.5


def open_data(name: str, *, download: bool = False) -> DataConfig:
    """Read a data yaml, and draw the embedded set if that is what it names; fetch a missing set only if asked to."""
    config = load_data_config(name)
    ensure_shapes(config)
    if download:
        fetch(config)
    return config


def class_names(config: DataConfig, *, single_class: bool) -> tuple[str, ...]:
    """Return the names that a model of this data set tells apart."""
    return ("object",) if single_class and config.num_classes != 1 else config.names


def round_image_size(size: int, stride: int) -> int:
    """Return an image side that the model can take: `size` rounded up to its stride, which is said."""
    rounded = math.ceil(size / stride) * stride
    if rounded != size:
        LOGGER.warning(f"--imgsz {size} is no multiple of the stride {stride}; {rounded} is used")
    return rounded


def evaluation_loader(
    index: DatasetIndex, *, batch_size: int, image_size: int, stride: int, workers: int, single_class: bool = False
) -> BatchLoader:
    """Return batches of whole images, like shapes together, each batch as small as it may be."""
    dataset = DetectionDataset(index, image_size=image_size, single_class=single_class, cache_bytes=DEFAULT_CACHE_BYTES)
    batches = rectangular_batches(
        index.sizes_hw, batch_size=batch_size, image_size=image_size, stride=stride, pad=EVALUATION_PAD
    )
    return BatchLoader(
        dataset,
        batches,
        workers=min(workers, len(batches)),
        pin=torch.cuda.is_available(),
        batch_bytes=batch_bytes(batch_size, image_size),
    )


def batch_bytes(batch_size: int, image_size: int) -> int:
    """Return what the images of a batch take in memory at most, a byte for each of three colours."""
    return batch_size * 3 * image_size**2
