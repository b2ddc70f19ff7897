"""Ctrl-C and SIGTERM let a run finish its batch and save; a second signal ends it at once."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequested(Exception):  # noqa: N818 - not an error
    """A signal was received, and the run is at a point where it can be saved."""


class GracefulShutdown:
    """Records SIGINT and SIGTERM while its `with` block runs; only a second one raises KeyboardInterrupt.

    With `hang_up` it also records SIGHUP, unless that is ignored, as under nohup. `signal` is the first signal or None.
    """

    def __init__(self, *, hang_up: bool = False) -> None:
        self.signal: int | None = None
        self._hang_up = hang_up
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> GracefulShutdown:
        """Install the handlers; Python allows this only in the main thread."""
        if threading.current_thread() is threading.main_thread():
            handled: list[int] = list(SIGNALS)
            hang_up = getattr(signal, "SIGHUP", None)  # missing on Windows
            if self._hang_up and hang_up is not None and signal.getsignal(hang_up) != signal.SIG_IGN:
                handled.append(hang_up)
            self._previous = {signum: signal.signal(signum, self._record) for signum in handled}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Restore the previous handlers."""
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)

    def _record(self, signum: int, frame: FrameType | None) -> None:
        if self.signal is None:
            self.signal = signum
        elif signum in SIGNALS:  # not SIGHUP: a closing terminal and its shell may both send it
            raise KeyboardInterrupt

    @property
    def exit_code(self) -> int:
        """Exit code of a program ended by the signal; 0 without one."""
        return 128 + self.signal if self.signal is not None else 0
