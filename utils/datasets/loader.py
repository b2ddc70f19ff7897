"""Batches from a data set, read ahead by worker processes whose number changes nothing but the speed."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import threading
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from utils.datasets.batching import ShuffledBatches, collate
from utils.datasets.dataset import DetectionDataset, SampleRef
from utils.errors import DetectorError, RunError
from utils.log import LOGGER
from utils.structures import Batch

MAX_LOSSES = 5
READ_AHEAD = 4  # batches that wait for each worker's turn
SHARED_MEMORY = "/dev/shm"  # noqa: S108 - only looked at
DEAD_WORKER = "DataLoader worker (pid"  # how torch begins to speak of one; it has no class of its own for this


@dataclass(frozen=True)
class _Failure:
    """An error of the project's own on its way out of a data process: raised there, torch would make text of it."""

    kind: type[DetectorError]
    args: tuple[Any, ...]
    parts: dict[str, Any]

    def error(self) -> DetectorError:
        """Return the error again."""
        error = self.kind.__new__(self.kind, *self.args)
        error.__dict__.update(self.parts)
        return error


class _Batches(Dataset[Batch | _Failure]):
    """A data set as it is read here: a batch at a time."""

    def __init__(self, samples: DetectionDataset) -> None:
        self.samples = samples

    def __getitem__(self, refs: list[SampleRef]) -> Batch | _Failure:
        try:
            return collate([self.samples[ref] for ref in refs])
        except DetectorError as error:
            if get_worker_info() is None:
                raise
            return _Failure(type(error), error.args, dict(vars(error)))


def _as_it_is(batch: Any) -> Any:  # noqa: ANN401 - torch expects a list
    return batch


def _end_workers(owner: int, workers: Iterable[BaseProcess]) -> None:
    """Kill the data processes of a pass that was broken off.

    They ignore what torch and python would end them with at last, when their queue has gone before the word to stop.
    Without this a pass that is collected in a cycle costs five seconds each, and the program waits for them for ever.
    """
    if os.getpid() == owner:  # a data process has copies of what its parent knew
        for process in workers:
            process.kill()


def _prepare_worker(_: int) -> None:
    """Let each worker use one core, since several with threads would only fight; signals to stop are the parent's."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def available_workers(wanted: int) -> int:
    """Return `wanted` worker processes, but no more than there are cores."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(min(wanted, available), 0)


def workers_for_memory(workers: int, batch_bytes: int) -> int:
    """Return as many of the workers as the memory that they share with this process can hold the batches of.

    Containers often have 64 MB of it, and a worker that finds it full dies of a bus error.
    """
    try:
        free = shutil.disk_usage(SHARED_MEMORY).free
    except OSError:  # a system that shares in another way
        return workers
    fitting = max((free // max(batch_bytes, 1) - 1) // READ_AHEAD, 0)
    if fitting >= workers:
        return workers
    LOGGER.warning(
        f"{SHARED_MEMORY} has {free / 1e6:.0f} MB free, of {(READ_AHEAD * workers + 1) * batch_bytes / 1e6:.0f} MB for "
        f"{workers} data processes: {fitting} are started. In Docker, give it --shm-size"
    )
    return fitting


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
        batch_bytes: int = 0,
    ) -> None:
        """Prepare.

        Args:
            dataset: where samples come from.
            plan: the batches, as a list or as a sampler that is asked anew for every pass.
            workers: processes that read ahead, at most one for each core.
            pin: page-locked memory, for a GPU.
            batch_bytes: what a batch takes, to find out how many workers the shared memory can serve.
        """
        self.dataset = dataset
        self.plan = plan
        self.workers = workers_for_memory(available_workers(workers), batch_bytes)
        self.pin = pin
        self._guarded: weakref.WeakSet[Any] = weakref.WeakSet()
        self._loader = self._build(plan)

    def __len__(self) -> int:
        """Return the batches of a whole pass."""
        return len(self.plan)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the planned batches.

        Raises:
            DetectorError: a sample cannot be made, as when its image has gone; the same one with and without workers.
            RunError: workers died five times without a batch between.
        """
        at = losses = 0
        loader = self._loader
        while True:
            try:
                for batch in self._pass(loader):
                    if isinstance(batch, _Failure):
                        raise batch.error()
                    yield batch
                    at += 1
                    losses = 0
                return
            except (RuntimeError, OSError, EOFError) as error:
                # It may also die while it hands over a batch, and the connection breaks; its own errors come otherwise.
                raised_there = str(error).startswith("Caught")  # as torch passes on what a worker's program raises
                cut_off = self.workers > 0 and not isinstance(error, RuntimeError) and not raised_there
                if not (cut_off or str(error).startswith(DEAD_WORKER)):
                    raise
                losses += 1
                if losses >= MAX_LOSSES:
                    raise RunError(
                        "data processes", f"died {losses} times in a row ({error})", fix="use fewer --workers, or 0"
                    ) from error
                LOGGER.warning(f"a data process died; new ones go on after {at} batches")
                self._loader = self._build(self.plan)
                loader = self._build(list(self.plan)[at:])

    def _build(self, batches: Iterable[list[SampleRef]]) -> DataLoader[Batch | _Failure]:
        return DataLoader(
            _Batches(self.dataset),
            batch_size=None,
            # Lists of SampleRef take the place of numbers.
            sampler=batches,
            num_workers=self.workers,
            collate_fn=_as_it_is,
            pin_memory=self.pin,
            worker_init_fn=_prepare_worker,
            persistent_workers=self.workers > 0,
            prefetch_factor=READ_AHEAD if self.workers else None,
        )

    def _pass(self, loader: DataLoader[Batch | _Failure]) -> Iterator[Batch | _Failure]:
        """Start a pass over a loader."""
        batches = iter(loader)
        if self.workers and batches not in self._guarded:
            self._guarded.add(batches)
            end = weakref.finalize(batches, _end_workers, os.getpid(), batches._workers)  # type: ignore[attr-defined]
            end.atexit = False
            atexit.register(end)  # before torch's own, which waits for each
        if self.workers and threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGCHLD"):
            # torch's own handler raises wherever the program happens to be, even in the middle of a save. Without it a
            # dead worker is noticed where its batch is waited for.
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        return batches
