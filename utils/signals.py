"""Ctrl-C and SIGTERM let a run finish its batch and save; a second one ends it at once."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequested(Exception):  # noqa: N818 - not an error
    """A signal was noticed at a point where the run can be saved."""


class GracefulShutdown:
    """Notes SIGINT and SIGTERM while its `with` block runs, instead of ending the program.

    Attributes:
        signal: the first signal received, or None.
    """

    def __init__(self, *, hang_up: bool = False) -> None:
        """Prepare; with `hang_up` also for SIGHUP, unless that is ignored, as under nohup."""
        self.signal: int | None = None
        self._hang_up = hang_up
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> GracefulShutdown:
        """Install the handlers, which only the main thread may."""
        if threading.current_thread() is threading.main_thread():
            handled: list[int] = list(SIGNALS)
            hang_up = getattr(signal, "SIGHUP", None)  # missing on Windows
            if self._hang_up and hang_up is not None and signal.getsignal(hang_up) != signal.SIG_IGN:
                handled.append(hang_up)
            self._previous = {number: signal.signal(number, self._note) for number in handled}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Restore the previous handlers."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is None:
            self.signal = number
        elif number in SIGNALS:  # not SIGHUP: a closing terminal and its shell may both send it
            raise KeyboardInterrupt

    @property
    def exit_code(self) -> int:
        """Exit code of a program ended by the signal; 0 without one."""
        return 128 + self.signal if self.signal is not None else 0
