"""Batches from a data set, read ahead by worker processes whose number changes nothing but the speed."""

from __future__ import annotations

import os
from collections.abc import Iterable

import cv2
import torch
from torch.utils.data import DataLoader

from utils.datasets.batching import collate
from utils.datasets.dataset import DetectionDataset, LoadedSample, SampleRef


def _prepare_worker(_: int) -> None:
    """Let each worker use one core: several of them, each with threads, would only fight."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def usable_workers(wanted: int) -> int:
    """Return `wanted` worker processes, but no more than there are cores."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(min(wanted, available), 0)


def build_loader(
    dataset: DetectionDataset, batches: Iterable[list[SampleRef]], *, workers: int, pin: bool = False
) -> DataLoader[LoadedSample]:
    """Return an iterable of `Batch`, one for each list of samples wanted.

    Args:
        dataset: where samples come from.
        batches: a list, or a sampler that is asked anew for every pass.
        workers: processes that read ahead; 0 reads in this one.
        pin: page-locked memory, for a GPU.
    """
    workers = usable_workers(workers)
    return DataLoader(
        dataset,
        # Lists of SampleRef take the place of lists of int.
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pin,
        worker_init_fn=_prepare_worker,
        persistent_workers=workers > 0,
        prefetch_factor=4 if workers else None,
    )
