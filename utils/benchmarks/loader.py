"""Training samples per second on one core: `python -m utils.benchmarks.loader --data bccd --imgsz 320`."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass

import cv2
import torch

from utils.cli import option, parse_options, run_script
from utils.datasets.config import EMBEDDED, load_data_config
from utils.datasets.dataset import DetectionDataset, SampleKey
from utils.datasets.image_cache import prepare_disk_cache
from utils.datasets.index import build_index
from utils.datasets.synthetic_shapes import ensure_shapes
from utils.log import LOGGER
from utils.options.base import IMAGE_SIZES, Options
from utils.options.hyperparameters import load_hyperparameters

CACHES = {"none": 0, "default": 128_000_000, "ram": 10**12, "disk": 0}


@dataclass(frozen=True, kw_only=True)
class ThroughputOptions(Options):
    """Options of the command."""

    data: str = option(EMBEDDED, "data yaml")
    hyp: str = option("hyp.scratch-low.yaml", "hyperparameter yaml with the augmentations")
    imgsz: int = option(640, "image side in pixels", within=IMAGE_SIZES)
    cache: str = option("default", "decoded images kept: none, default (128 MB), ram, or disk", choices=tuple(CACHES))
    repeats: int = option(
        5, "epochs to measure; the fastest one is reported", aliases=("--rounds",), within=(1, math.inf)
    )
    seed: int = option(0, "seed of the augmentations")


@dataclass(frozen=True)
class Throughput:
    """Samples per second of the fastest epoch: by wall-clock time and by processor time of this process."""

    wall_clock: float
    processor: float


def measure(dataset: DetectionDataset, *, rounds: int) -> Throughput:
    """Load every sample of a data set in each of `rounds` epochs, in this thread, after one warm-up epoch."""
    size_hw = (dataset.image_size, dataset.image_size)
    wall_clock = processor = 0.0
    for epoch in range(rounds + 1):
        wall_start, processor_start = time.perf_counter(), time.process_time()
        for index in range(len(dataset)):
            dataset[SampleKey(index=index, epoch=epoch, size_hw=size_hw)]
        if epoch:
            wall_clock = max(wall_clock, len(dataset) / (time.perf_counter() - wall_start))
            processor = max(processor, len(dataset) / (time.process_time() - processor_start))
    return Throughput(wall_clock, processor)


def run_throughput(options: ThroughputOptions) -> Throughput:
    """Measure the throughput and log it with the load of the machine."""
    config = load_data_config(options.data)
    ensure_shapes(config)
    augmentation = load_hyperparameters(options.hyp).augmentation
    index = build_index(config, "train")
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    dataset = DetectionDataset(
        index,
        image_size=options.imgsz,
        augmentation=augmentation,
        seed=options.seed,
        cache_bytes=CACHES[options.cache],
        disk_cache=prepare_disk_cache(index, image_size=options.imgsz) if options.cache == "disk" else None,
    )
    result = measure(dataset, rounds=options.repeats)
    load = f"{os.getloadavg()[0]:.1f} programs on {os.cpu_count()} cores" if hasattr(os, "getloadavg") else "unknown"
    LOGGER.info(
        f"{options.imgsz} px, cache {options.cache}: {result.wall_clock:.0f} samples per second "
        f"({result.processor:.0f} per second of processor time), best of {options.repeats} epochs on one core; "
        f"load {load}"
    )
    return result


def main() -> None:
    """Parse the command line and measure."""
    options, _ = parse_options(ThroughputOptions, None, description=__doc__)
    run_throughput(options)


if __name__ == "__main__":
    run_script(main)
