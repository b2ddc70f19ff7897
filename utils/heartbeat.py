"""Notices within seconds that another process of a run has died, hangs, or cannot be reached.

A collective operation waits for hours, because the others may have to wait while one downloads or evaluates. So each
process counts in the store of its launch, in a thread that goes on meanwhile, and looks whether the others do.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable

import torch.distributed as dist

INTERVAL = 1.0  # seconds between two beats


class Heartbeat:
    """Calls `on_lost` with a description, once and from a thread of its own, when another process is lost.

    Silence is counted in intervals in which this process itself has run, so that a job that was suspended as a whole
    goes on. Two threads, because the one that asks the store waits for ever if the link to it is cut.
    """

    def __init__(
        self, store: dist.Store, *, rank: int, size: int, timeout: float, on_lost: Callable[[str], None]
    ) -> None:
        """Register this process.

        Args:
            store: of this start of the processes, over a connection that nothing else uses.
            rank: of this process.
            size: number of processes.
            timeout: seconds of silence after which a process is lost.
            on_lost: what to do then.
        """
        self._store, self._rank, self._size, self._timeout, self._on_lost = store, rank, size, timeout, on_lost
        self._stopped = threading.Event()
        self._parent = os.getppid()  # torchrun
        self._rounds = 0  # answers of the store
        self._failure = ""
        self._counts = ["0"] * size  # the last seen beat of each process
        self._hosts: list[str] = []
        self._threads: list[threading.Thread] = []
        store.set(f"host {rank}", socket.gethostname())
        store.set(f"beat {rank}", "0")

    def start(self) -> None:
        """Start, once all processes have registered."""
        self._hosts = [host.decode() for host in self._store.multi_get([f"host {r}" for r in range(self._size)])]
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._beat, self._watch)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop; others may still wait for this process to end, but not for long."""
        self._stopped.set()
        for thread in self._threads:  # one that asks the store while Python ends could crash it
            thread.join(timeout=2 * INTERVAL)

    def _beat(self) -> None:
        keys = [f"beat {rank}" for rank in range(self._size)]
        while not self._stopped.wait(INTERVAL):
            try:
                self._store.set(keys[self._rank], str(self._rounds + 1))
                self._counts = [value.decode() for value in self._store.multi_get(keys)]
            except RuntimeError as error:
                self._failure = str(error).splitlines()[0]
                return
            self._rounds += 1

    def _watch(self) -> None:
        seen, silent = [0, *self._counts], [0.0] * (self._size + 1)  # of the store, and of each process
        while not self._stopped.wait(INTERVAL):
            now = [self._rounds, *self._counts]
            silent = [0.0 if new != old else time + INTERVAL for new, old, time in zip(now, seen, silent, strict=True)]
            seen, lost = now, self._lost(silent)
            if lost and not self._stopped.is_set():
                self._on_lost(lost)
                return

    def _lost(self, silent: list[float]) -> str:
        """Describe what has been silent for too long; "" if nothing has."""
        if os.getppid() != self._parent:
            return "it was killed on this machine"
        if self._failure:
            return f"the launch has ended elsewhere ({self._failure})"
        if silent[0] >= self._timeout:
            return f"the node of the rendezvous has not answered for {silent[0]:.0f} s"
        lost = [rank for rank in range(self._size) if silent[rank + 1] >= self._timeout]
        names = ", ".join(f"{rank} ({self._hosts[rank]})" for rank in lost[:4]) + ", …" * (len(lost) > 4)
        if not lost:
            return ""
        return f"process{'es' * (len(lost) > 1)} {names} of {self._size} not heard for {self._timeout:.0f} s"
