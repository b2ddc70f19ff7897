"""Batches of a data set, prefetched by worker processes. Their number changes the speed, never the batches."""

from __future__ import annotations

import atexit
import os
import signal
import threading
import weakref
from collections.abc import Iterable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from utils.datasets.batching import ShuffledBatches, collate
from utils.datasets.dataset import DetectionDataset, SampleKey
from utils.errors import DetectorError, RunError
from utils.files import free_bytes
from utils.log import LOGGER
from utils.structures import Batch
from utils.threads import available_workers

MAX_WORKER_DEATHS = 5  # in a row
PREFETCH_FACTOR = 4  # batches per worker
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - only its free space is read
DEAD_WORKER = "DataLoader worker (pid"  # start of torch's message; it has no error class for a dead worker


class _Batches(Dataset[Batch | DetectorError]):
    """A data set whose items are batches, or errors: if a worker raised them, torch would turn them into text."""

    def __init__(self, samples: DetectionDataset) -> None:
        self.samples = samples

    def __getitem__(self, keys: list[SampleKey]) -> Batch | DetectorError:
        try:
            return collate([self.samples[key] for key in keys])
        except DetectorError as error:
            return error


def _kill_workers(owner: int, workers: Iterable[BaseProcess]) -> None:
    """Kill the workers of a pass that was abandoned.

    They ignore the signals that torch and Python send at exit, and never receive the request to stop if their queue was
    closed first. Without this, each pass that is garbage-collected as part of a cycle costs five seconds, and the
    program never exits.
    """
    if os.getpid() == owner:  # a forked worker inherits its parent's finalizers
        for process in workers:
            process.kill()


def _prepare_worker(_: int) -> None:
    """Limit each worker to one thread, so that workers do not compete for cores; the parent handles stop signals."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signal_number, signal.SIG_IGN)


def workers_for_memory(workers: int, batch_bytes: int) -> int:
    """Return how many of `workers` have room for their batches in shared memory.

    Containers often have only 64 MB of it, and a worker that finds it full dies of a bus error.
    """
    if not SHARED_MEMORY.is_dir():  # a system with another kind of shared memory
        return workers
    free = free_bytes(SHARED_MEMORY)
    fitting = max((free // max(batch_bytes, 1) - 1) // PREFETCH_FACTOR, 0)
    if fitting >= workers:
        return workers
    LOGGER.warning(
        f"{SHARED_MEMORY} has {free / 1e6:.0f} MB free, but {workers} workers need "
        f"{(PREFETCH_FACTOR * workers + 1) * batch_bytes / 1e6:.0f} MB; using {fitting}. In Docker, set --shm-size"
    )
    return fitting


class BatchLoader:
    """Batches of a data set, without loss even if worker processes are killed."""

    def __init__(
        self,
        dataset: DetectionDataset,
        plan: ShuffledBatches | list[list[SampleKey]],
        *,
        workers: int,
        pin: bool = False,
        batch_bytes: int = 0,
    ) -> None:
        """Create the loader; the workers start with the first pass.

        Args:
            dataset: the samples.
            plan: the batches, as a list or as a sampler that is iterated in every pass.
            workers: worker processes, at most one per core; with 0, this process loads the batches.
            pin: use page-locked memory, for a GPU.
            batch_bytes: memory of a batch, which limits the workers to the free shared memory.
        """
        self.dataset = dataset
        self.plan = plan
        self.workers = workers_for_memory(available_workers(workers), batch_bytes)
        self.pin = pin
        self._finalized: weakref.WeakSet[Any] = weakref.WeakSet()
        self._loader = self._build(plan)

    def __len__(self) -> int:
        """Return the number of batches in a full pass."""
        return len(self.plan)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the planned batches.

        Raises:
            DetectorError: a sample cannot be loaded, for example a deleted image, with and without workers.
            RunError: workers died five times in a row.
        """
        position = deaths = 0
        loader = self._loader
        while True:
            try:
                for batch in self._pass(loader):
                    if isinstance(batch, DetectorError):
                        raise batch
                    yield batch
                    position += 1
                    deaths = 0
                return
            except (RuntimeError, OSError, EOFError) as error:
                # A worker that dies while sending a batch breaks the connection: an OSError or EOFError here.
                raised_in_worker = str(error).startswith("Caught")  # torch's prefix
                disconnected = self.workers > 0 and not isinstance(error, RuntimeError) and not raised_in_worker
                if not (disconnected or str(error).startswith(DEAD_WORKER)):
                    raise
                deaths += 1
                if deaths >= MAX_WORKER_DEATHS:
                    what = f"died {deaths} times in a row ({error})"
                    raise RunError("DataLoader workers", what, fix="use fewer --workers, or 0") from error
                LOGGER.warning(f"DataLoader worker died; restarting workers at batch {position}")
                self._loader = self._build(self.plan)
                loader = self._build(list(self.plan)[position:])

    def _build(self, batches: Iterable[list[SampleKey]]) -> DataLoader[Batch | DetectorError]:
        return DataLoader(
            _Batches(self.dataset),
            batch_size=None,
            sampler=batches,  # lists of SampleKey instead of indices
            num_workers=self.workers,
            pin_memory=self.pin,
            worker_init_fn=_prepare_worker,
            persistent_workers=self.workers > 0,
            prefetch_factor=PREFETCH_FACTOR if self.workers else None,
        )

    def _pass(self, loader: DataLoader[Batch | DetectorError]) -> Iterator[Batch | DetectorError]:
        """Start a pass; its workers are killed when it is garbage-collected, or at exit."""
        batches = iter(loader)
        if self.workers and batches not in self._finalized:
            self._finalized.add(batches)
            workers = batches._workers  # type: ignore[attr-defined]
            kill = weakref.finalize(batches, _kill_workers, os.getpid(), workers)
            kill.atexit = False
            atexit.register(kill)  # runs before torch's exit handler, which waits for each worker
        if self.workers and threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGCHLD"):
            # torch's handler raises at any point of the program, even in the middle of a save. Without it, a dead
            # worker is noticed when its batch is awaited.
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        return batches
