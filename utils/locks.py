"""A lock on a folder, so that two programs do not write into it."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from utils.errors import ConfigError, RunError


class FolderLock:
    """An exclusive lock on a folder, held until it is released or the process ends."""

    def __init__(self, folder: Path | str) -> None:
        """Acquire the lock; ConfigError if another process holds it, RunError if the folder cannot be written."""
        try:
            import fcntl
        except ImportError:  # Windows: no lock; starting one run twice is the user's risk
            self._handle = -1
            return
        try:
            self._handle = os.open(Path(folder) / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            what = f"cannot be written ({error.strerror})"
            raise RunError(folder, what, fix="check permissions, or choose another --project") from error
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                return  # a file system without locks
            holder = os.read(self._handle, 100).decode(errors="replace") or "another process"
            self.release()
            raise ConfigError(folder, f"is in use by {holder}", fix="choose --name, or stop that run") from error
        with contextlib.suppress(OSError):  # a full disk
            os.truncate(self._handle, 0)
            os.pwrite(self._handle, f"pid {os.getpid()}".encode(), 0)

    def release(self) -> None:
        """Release the lock."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
