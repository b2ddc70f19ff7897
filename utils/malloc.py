"""How the process asks the system for memory, and how it hears that there is none."""

from __future__ import annotations

import ctypes
import functools
import os
import sys

# Numbers of glibc's mallopt and what to set, unless the user's environment says something else.
SETTINGS = (
    (-4, 0, "MALLOC_MMAP_MAX_"),
    (-1, 2**31 - 1, "MALLOC_TRIM_THRESHOLD_"),
    (-2, 64 * 2**20, "MALLOC_TOP_PAD_"),
)


@functools.cache
def tune_malloc() -> bool:
    """Let freed memory stay with the process for the next map of features, where the C library is glibc.

    By default each large tensor is mapped anew, and the system clears its pages one by one: inference of yolov5n at
    640 px in batches of 4 takes 1.4 to 1.7 times as long.

    Returns:
        Whether it was set.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library
        return False
    return all(mallopt(number, value) == 1 for number, value, variable in SETTINGS if variable not in os.environ)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is no more memory, of a GPU or of the machine."""
    # By name: scripts that need no torch need not wait for it.
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"MemoryError", "OutOfMemoryError"}) or "can't allocate memory" in str(error)
