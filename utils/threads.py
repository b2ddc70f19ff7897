"""How many threads a computation on the CPU uses, with or without torch."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

_limit: int | None = None  # of `single_threaded`


def thread_count() -> int:
    """Return the threads of one operation: those of torch if it is imported, else OMP_NUM_THREADS, else all cores."""
    torch = sys.modules.get("torch")
    return _limit or (_default() if torch is None else int(torch.get_num_threads()))


@contextlib.contextmanager
def single_threaded() -> Iterator[None]:
    """Give each operation one thread, for work that itself runs in several threads."""
    global _limit
    torch, before = sys.modules.get("torch"), thread_count()
    _limit = 1
    if torch is not None:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        _limit = None
        if torch is not None:
            torch.set_num_threads(before)


@functools.cache
def _default() -> int:
    """Return OMP_NUM_THREADS, else the cores that this process may use: two threads of one core count once."""
    text = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    if text.isdecimal() and int(text) > 0:
        return int(text)
    cores = set()
    for processor in _processors():
        siblings = Path(f"/sys/devices/system/cpu/cpu{processor}/topology/thread_siblings_list")
        try:
            cores.add(siblings.read_text(encoding="ascii"))
        except OSError:  # not Linux
            cores.add(str(processor))
    return len(cores)


def available_workers(requested: int) -> int:
    """Return the number of data loader workers: as requested, but at most one per core."""
    return max(min(requested, len(_processors())), 0)


def _processors() -> Collection[int]:
    """Return the processors that this process may use."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
