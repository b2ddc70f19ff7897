"""Several batches at once on the CPU, one thread each: a higher throughput than all threads on one batch."""

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
def torch_threads(count: int) -> Iterator[None]:
    """Set the number of threads that torch uses within one operation, and restore it at the end."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def parallel_map(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int
) -> Iterator[tuple[Item, Result]]:
    """Yield each item with the function's result, in order.

    An operation of a small network waits for the last of its threads; on two cores, two batches in parallel take 0.65
    to 0.85 of the time of one after the other.

    Args:
        function: thread-safe.
        items: consumed only a few ahead.
        workers: number of threads, each with one thread of torch; 1 runs in the caller's thread with all of torch's.
    """
    if workers < 2:
        for item in items:
            yield item, function(item)
        return
    pending: deque[tuple[Item, Future[Result]]] = deque()
    with torch_threads(1), ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                pending.append((item, pool.submit(function, item)))
                if len(pending) > workers:
                    done, result = pending.popleft()
                    yield done, result.result()
            while pending:
                done, result = pending.popleft()
                yield done, result.result()
        finally:
            for _, future in pending:
                future.cancel()
