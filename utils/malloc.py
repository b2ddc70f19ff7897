"""Tuning of glibc's allocator, and recognition of out-of-memory errors."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import sys

# (mallopt parameter, value, environment variable that overrides it)
SETTINGS = ((-4, 0, "MALLOC_MMAP_MAX_"), (-1, 2**31 - 1, "MALLOC_TRIM_THRESHOLD_"), (-2, 64 * 2**20, "MALLOC_TOP_PAD_"))


@functools.cache
def tune_malloc() -> bool:
    """Keep freed memory in the process for the next feature map, if the C library is glibc; return whether it was set.

    By default every large tensor is mapped anew and its pages are zeroed by the kernel: inference of yolov5n at 640 px
    in batches of 4 takes 1.4 to 1.7 times as long.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library
        return False
    return all(mallopt(parameter, value) == 1 for parameter, value, variable in SETTINGS if variable not in os.environ)


def release_memory() -> None:
    """Return freed memory to the system, after something of an unusual size, if the C library is glibc."""
    if sys.platform.startswith("linux"):
        with contextlib.suppress(AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error means that a GPU or the machine is out of memory."""
    # Compared by name, so that scripts without torch do not import it.
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"MemoryError", "OutOfMemoryError"}) or "can't allocate memory" in str(error)
