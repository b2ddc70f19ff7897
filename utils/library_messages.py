"""Messages that C libraries print by themselves, such as FFmpeg's and libjpeg's: kept off the terminal."""

from __future__ import annotations

import ctypes
import functools
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import cv2


class _Muting:
    """How many threads are muting, and what to restore when the last has finished."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.depth = 0
        self.level = 0  # OpenCV's log level
        self.stream: int | None = None  # the C library's `stderr`

    def begin(self) -> None:
        with self.lock:
            self.depth += 1
            if self.depth == 1:
                self.level = cv2.utils.logging.getLogLevel()
                cv2.utils.logging.setLogLevel(0)
                if (stderr := _c_stderr()) is not None:
                    variable, discard = stderr
                    self.stream, variable.value = variable.value, discard

    def end(self) -> None:
        with self.lock:
            self.depth -= 1
            if self.depth == 0:
                cv2.utils.logging.setLogLevel(self.level)
                if (stderr := _c_stderr()) is not None:
                    stderr[0].value = self.stream


_MUTING = _Muting()


@contextmanager
def muted() -> Iterator[None]:
    """Discard what OpenCV and the C libraries it calls print, in any number of threads at once.

    Only C's buffered stream `stderr` is exchanged, not the file descriptor, so that Python's messages and those of a
    crash still appear. Without glibc (macOS, Windows, musl) the stream cannot be exchanged: OpenCV's own messages are
    discarded there, those of libjpeg and libpng are not.
    """
    _MUTING.begin()
    try:
        yield
    finally:
        _MUTING.end()


@functools.cache
def _c_stderr() -> tuple[ctypes.c_void_p, int] | None:
    """Return the C library's variable `stderr`, and a stream that discards what is written; None without glibc."""
    try:
        if "glibc" not in (os.confstr("CS_GNU_LIBC_VERSION") or ""):
            return None
        library = ctypes.CDLL(None)
        library.fopen.restype = ctypes.c_void_p
        discard = library.fopen(os.devnull.encode(), b"w")
        return (ctypes.c_void_p.in_dll(library, "stderr"), discard) if discard else None
    except (AttributeError, OSError, ValueError):
        return None
