"""Ctrl-C and SIGTERM: the run finishes its batch, saves, and says how to go on; a second one ends it at once."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


class StopRequest:
    """Notes a wish to stop while its `with` block runs.

    Attributes:
        signal: what asked, or None.
    """

    def __init__(self) -> None:
        """Wait for nothing yet."""
        self.signal: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        """Take over both signals, which only a program's main thread may."""
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._note) for number in EXIT_CODES}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the signals back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = number

    @property
    def exit_code(self) -> int:
        """The shell's code for a program ended by this signal."""
        return EXIT_CODES.get(signal.Signals(self.signal), 1) if self.signal is not None else 0
