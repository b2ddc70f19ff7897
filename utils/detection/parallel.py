"""Several batches at once on the CPU, one thread each: a higher throughput than all threads on one batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from utils.threads import single_threaded

Item = TypeVar("Item")
Result = TypeVar("Result")


def parallel_map(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int
) -> Iterator[tuple[Item, Result]]:
    """Yield each item, consumed only a few ahead, with the result of a thread-safe function, in order.

    An operation of a small network waits for the last of its threads; on two cores, two batches in parallel take 0.65
    to 0.85 of the time of one after the other. Each worker is a thread whose operations have one thread; one worker is
    the caller's thread with all of them.
    """
    if workers < 2:
        for item in items:
            yield item, function(item)
        return
    pending: deque[tuple[Item, Future[Result]]] = deque()
    with single_threaded():
        pool = ThreadPoolExecutor(workers)
        try:
            for item in items:
                pending.append((item, pool.submit(function, item)))
                if len(pending) > workers:
                    done, result = pending.popleft()
                    yield done, result.result()
            for done, result in pending:
                yield done, result.result()
        finally:
            pool.shutdown(cancel_futures=True)
