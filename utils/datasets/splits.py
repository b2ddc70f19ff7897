"""Data sets opened by name, and the loader of a split for evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from utils.datasets.batching import rectangular_batches
from utils.datasets.config import DataConfig, load_data_config
from utils.datasets.dataset import DetectionDataset, SampleKey
from utils.datasets.download import fetch
from utils.datasets.index import DatasetIndex
from utils.datasets.synthetic_shapes import ensure_shapes

if TYPE_CHECKING:
    from utils.datasets.loader import BatchLoader

DEFAULT_CACHE_BYTES = 128_000_000
EVALUATION_PAD = 0.5


def open_data(name: str, *, download: bool = False) -> DataConfig:
    """Read a data yaml. A missing embedded data set is drawn; any other is downloaded only if `download` is set."""
    config = load_data_config(name)
    ensure_shapes(config)
    if download:
        fetch(config)
    return config


def class_names(config: DataConfig, *, single_class: bool) -> tuple[str, ...]:
    """Return the class names of a model of this data set."""
    return ("object",) if single_class and config.num_classes != 1 else config.names


def evaluation_loader(
    index: DatasetIndex,
    *,
    batch_size: int,
    image_size: int,
    stride: int,
    workers: int,
    single_class: bool = False,
    fixed_hw: tuple[int, int] | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> BatchLoader:
    """Return batches of complete images for torch, loaded by processes that stay for further passes.

    With several training processes, each gets every n-th batch, from its rank on. For `fixed_hw` see `evaluation_plan`.
    """
    import torch  # only for this loader

    from utils.datasets.loader import BatchLoader

    dataset = DetectionDataset(index, image_size=image_size, single_class=single_class, cache_bytes=DEFAULT_CACHE_BYTES)
    plan = evaluation_plan(index, batch_size=batch_size, image_size=image_size, stride=stride, fixed_hw=fixed_hw)
    batches = plan[rank::world_size]
    pin, most_bytes = torch.cuda.is_available(), batch_bytes(batch_size, image_size)
    return BatchLoader(dataset, batches, workers=min(workers, len(batches)), pin=pin, batch_bytes=most_bytes)


def evaluation_plan(
    index: DatasetIndex,
    *,
    batch_size: int,
    image_size: int,
    stride: int,
    fixed_hw: tuple[int, int] | None = None,
) -> list[list[SampleKey]]:
    """Return the samples of each evaluation batch, sorted by aspect ratio, each padded as little as possible.

    With `fixed_hw`, height and width of the only size that a model accepts, in order, all padded to it.
    """
    if fixed_hw is not None:
        keys = [SampleKey(index=i, epoch=0, size_hw=fixed_hw) for i in range(len(index))]
        return [keys[start : start + batch_size] for start in range(0, len(keys), batch_size)]
    return rectangular_batches(
        index.sizes_hw, batch_size=batch_size, image_size=image_size, stride=stride, pad=EVALUATION_PAD
    )


def batch_bytes(batch_size: int, image_size: int) -> int:
    """Return the largest size of a batch of uint8 RGB images in bytes."""
    return batch_size * 3 * image_size**2
