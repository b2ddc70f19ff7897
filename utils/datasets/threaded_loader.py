"""Batches for one pass of evaluation, loaded by threads and without torch."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from utils.datasets.batching import collate_arrays
from utils.datasets.dataset import DetectionDataset, LoadedSample, SampleKey
from utils.structures import ArrayBatch
from utils.threads import available_workers

AHEAD = 2  # batches


@dataclass(frozen=True, kw_only=True)
class ThreadedLoader:
    """Batches of a data set without an image cache, each loaded while those before are evaluated.

    For one pass, worker processes cost more than they gain: decoding does not hold the interpreter lock.
    """

    dataset: DetectionDataset
    plan: list[list[SampleKey]]  # of each batch
    workers: int  # threads, at most one per core; with 0, the caller's thread loads the images

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self.plan)

    def __iter__(self) -> Iterator[ArrayBatch]:
        """Yield the planned batches; DetectorError if a sample cannot be loaded, for example a deleted image."""
        workers = available_workers(self.workers)
        if not workers:
            yield from (collate_arrays([self.dataset[key] for key in keys]) for keys in self.plan)
            return
        pool = ThreadPoolExecutor(workers, thread_name_prefix="load")
        pending: deque[list[Future[LoadedSample]]] = deque()
        plan = iter(self.plan)
        try:
            while True:
                for keys in plan:
                    pending.append([pool.submit(self.dataset.__getitem__, key) for key in keys])
                    if len(pending) > AHEAD:
                        break
                if not pending:
                    return
                yield collate_arrays([sample.result() for sample in pending.popleft()])
        finally:
            pool.shutdown(cancel_futures=True)
