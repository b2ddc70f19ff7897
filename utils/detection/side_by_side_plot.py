"""Batches looked at side by side on the CPU, one thread each: more images a second than all threads on one batch."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextlib.contextmanager
def threads_of_torch(count: int) -> Iterator[None]:
    """Let torch use so many threads for one operation, and afterwards as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def side_by_side(
    work: Callable[[Item], Result], items: Iterable[Item], *, workers: int
) -> Iterator[tuple[Item, Result]]:
    """Yield each item with what `work` makes of it, in order.

    Every operation of a small network hands its work to all threads and waits for the last of them; with two cores,
    two batches at once take 0.65 to 0.85 of the time of one after the other. Items are taken only a few ahead.

    Args:
        work: may be called from several threads at once.
        items: as they come.
        workers: how many at a time; 1 works in the caller's thread, with all of torch's threads.
    """
    if workers < 2:
        for item in items:
            yield item, work(item)
        return
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    with threads_of_torch(1), ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                waiting.append((item, pool.submit(work, item)))
                if len(waiting) > workers:
                    done, result = waiting.popleft()
                    yield done, result.result()
            while waiting:
                done, result = waiting.popleft()
                yield done, result.result()
        finally:
            for _, future in waiting:
                future.cancel()
