"""Ctrl-C and SIGTERM: the run finishes its batch, saves, and says how to go on; a second one ends it at once."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class GracefulShutdown:
    """Notes a wish to stop while its `with` block runs.

    Attributes:
        signal: what asked, or None.
    """

    def __init__(self, *, hang_up: bool = False) -> None:
        """Wait for nothing yet.

        Args:
            hang_up: whether the closing of the terminal is such a wish too, unless it is ignored as under nohup.
        """
        self.signal: int | None = None
        self._hang_up = hang_up
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> GracefulShutdown:
        """Take over the signals, which only a program's main thread may."""
        if threading.current_thread() is threading.main_thread():
            numbers: list[int] = list(SIGNALS)
            hang_up = getattr(signal, "SIGHUP", None)  # which Windows lacks
            if self._hang_up and hang_up is not None and signal.getsignal(hang_up) != signal.SIG_IGN:
                numbers.append(hang_up)
            self._previous = {number: signal.signal(number, self._note) for number in numbers}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the signals back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is None:
            self.signal = number
        elif number in SIGNALS:  # a terminal that closes may hang up twice, by itself and by its shell
            raise KeyboardInterrupt

    @property
    def exit_code(self) -> int:
        """The shell's code for a program ended by this signal."""
        return 128 + self.signal if self.signal is not None else 0
