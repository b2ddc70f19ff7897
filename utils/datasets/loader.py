"""Batches from a data set, read ahead by worker processes whose number changes nothing but the speed."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable, Iterator

import cv2
import torch
from torch.utils.data import DataLoader

from utils.datasets.batching import ShuffledBatches, collate
from utils.datasets.dataset import DetectionDataset, LoadedSample, SampleRef
from utils.errors import RunError
from utils.log import LOGGER
from utils.structures import Batch

MAX_LOSSES = 5


def _prepare_worker(_: int) -> None:
    """Let each worker use one core, since several with threads would only fight; signals to stop are the parent's."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def usable_workers(wanted: int) -> int:
    """Return `wanted` worker processes, but no more than there are cores."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(min(wanted, available), 0)


class BatchLoader:
    """Batches of a data set, which all come even if worker processes are killed.

    Attributes:
        workers: processes that read ahead; 0 reads in this one.
    """

    def __init__(
        self,
        dataset: DetectionDataset,
        plan: ShuffledBatches | list[list[SampleRef]],
        *,
        workers: int,
        pin: bool = False,
    ) -> None:
        """Prepare.

        Args:
            dataset: where samples come from.
            plan: the batches, as a list or as a sampler that is asked anew for every pass.
            workers: processes that read ahead, at most one for each core.
            pin: page-locked memory, for a GPU.
        """
        self.dataset = dataset
        self.plan = plan
        self.workers = usable_workers(workers)
        self.pin = pin
        self._loader = self._build(plan)

    def __len__(self) -> int:
        """Return the batches of a whole pass."""
        return len(self.plan)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the planned batches.

        Raises:
            RunError: workers died five times without a batch between.
        """
        at = losses = 0
        loader = self._loader
        while True:
            try:
                for batch in self._pass(loader):
                    yield batch
                    at += 1
                    losses = 0
                return
            except RuntimeError as error:
                # torch has no class of its own for this.
                if "DataLoader worker" not in str(error):
                    raise
                losses += 1
                if losses >= MAX_LOSSES:
                    raise RunError(
                        "data processes", f"died {losses} times in a row ({error})", fix="use fewer --workers, or 0"
                    ) from error
                LOGGER.warning(f"a data process died; new ones go on after {at} batches")
                self._loader = self._build(self.plan)
                loader = self._build(list(self.plan)[at:])

    def _build(self, batches: Iterable[list[SampleRef]]) -> DataLoader[LoadedSample]:
        return DataLoader(
            self.dataset,
            # Lists of SampleRef take the place of lists of int.
            batch_sampler=batches,
            num_workers=self.workers,
            collate_fn=collate,
            pin_memory=self.pin,
            worker_init_fn=_prepare_worker,
            persistent_workers=self.workers > 0,
            prefetch_factor=4 if self.workers else None,
        )

    def _pass(self, loader: DataLoader[LoadedSample]) -> Iterator[Batch]:
        """Start a pass over a loader."""
        batches = iter(loader)
        if self.workers and threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGCHLD"):
            # torch's own handler raises wherever the program happens to be, even in the middle of a save. Without it a
            # dead worker is noticed where its batch is waited for.
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        return batches
