"""Folders that appear complete or not at all, made of new files and links to existing ones."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from utils.errors import RunError
from utils.files import make_folder, sync_file, sync_folder

MANY_FILES = 500


@dataclass(frozen=True)
class FileLink:
    """The content of a new file that exists already."""

    path: Path
    kind: str = "hard"  # "hard": a hard link, or a copy across file systems; "copy"; "symbolic": a link to the path


def _link(target: Path, link: FileLink) -> None:
    """Make a file that has the content of another."""
    if link.kind == "symbolic":
        target.symlink_to(link.path.absolute())
        return
    if link.kind == "hard":
        with contextlib.suppress(OSError):  # another file system, or one without hard links
            os.link(os.path.realpath(link.path), target)
            return
    shutil.copyfile(link.path, target)


def atomic_write_folder(folder: Path | str, files: Iterable[tuple[str, bytes | FileLink]]) -> Path:
    """Write a folder that appears complete or not at all, replacing an older one; RunError if it cannot be written.

    `files` are relative names (with `/`) and contents, consumed one at a time, so that a generator keeps memory small.
    """
    folder = Path(folder)
    try:
        make_folder(folder.parent)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.", suffix=".tmp") as temporary:
            new, old = Path(temporary) / "new", Path(temporary) / "old"
            new.mkdir()
            count = 0
            for name, content in files:
                count += 1
                path = new / name
                path.parent.mkdir(parents=True, exist_ok=True)
                if isinstance(content, FileLink):
                    _link(path, content)
                else:
                    path.write_bytes(content)
            _sync_tree(new, count)
            if not folder.exists():
                os.replace(new, folder)
            elif not _exchange(new, folder):
                os.replace(folder, old)
                try:
                    os.replace(new, folder)
                except OSError:
                    os.replace(old, folder)
                    raise
            sync_folder(folder.parent)
    except OSError as error:
        if folder.is_dir() and error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return folder  # another process created it first
        reason = error.strerror or str(error)
        raise RunError(folder, f"cannot be written ({reason})", fix="free space or check permissions") from error
    return folder


def _sync_tree(folder: Path, count: int) -> None:
    """Flush the `count` files and all folders below a folder to disk.

    One by one costs milliseconds each, so that many files are flushed with all of their file system where possible.
    """
    if count > MANY_FILES and _sync_file_system(folder):
        return
    for root, _, names in os.walk(folder, topdown=False):
        for name in names:
            status = os.lstat(os.path.join(root, name))
            if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:  # what a link leads to is on disk already
                sync_file(Path(root, name))
        sync_folder(Path(root))


def _sync_file_system(folder: Path) -> bool:
    """Flush the whole file system of a folder; False where the system cannot (not Linux)."""
    syncfs = getattr(ctypes.CDLL(None), "syncfs", None) if sys.platform == "linux" else None
    if syncfs is None:
        return False
    handle = os.open(folder, os.O_RDONLY)
    try:
        return int(syncfs(handle)) == 0
    finally:
        os.close(handle)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two folders in one step, so that both names always exist; False where the system cannot (not Linux)."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None) if sys.platform == "linux" else None
    at_working_directory, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE of linux/fs.h
    names = os.fsencode(first), os.fsencode(second)
    return rename is not None and rename(at_working_directory, names[0], at_working_directory, names[1], exchange) == 0
