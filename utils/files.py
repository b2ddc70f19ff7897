"""Files: atomic writes, JSON, run folders, locks, and finding a file by its bare name."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from utils.errors import ConfigError, DetectorError, RunError, did_you_mean

PROJECT_ROOT = Path(__file__).resolve().parent.parent
LEFTOVER = re.compile(r"\.[0-9a-f]{16}\.tmp")


def atomic_write(path: Path | str, content: bytes | str) -> Path:
    """Write a file so that a crash leaves either the old content or the new, never a part.

    The bytes go to a temporary file in the same folder, are forced to disk, and take the name in one step.

    Args:
        path: where to write; missing folders are made.
        content: the bytes, or text that is encoded as UTF-8.

    Returns:
        The path written.

    Raises:
        RunError: the folder cannot be written or the disk is full. The old file is untouched then.
    """
    path = Path(path)
    temporary = _temporary_in(path.parent)
    try:
        data = content.encode("utf-8") if isinstance(content, str) else content
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError, ValueError):
            temporary.unlink()
        if not isinstance(error, (OSError, ValueError)):  # ValueError: a null byte in the name, half a letter in text
            raise
        reason = getattr(error, "strerror", None) or str(error)
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            reason += f": needs {len(data) / 1e6:.1f} MB, {_free_bytes(path.parent) / 1e6:.1f} MB free"
        raise RunError(path, f"cannot be written ({reason})", fix="free space or choose another --project") from error
    return path


def _temporary_in(folder: Path) -> Path:
    """Return a name for what is not yet whole, which `remove_leftovers` knows."""
    return folder / f".{secrets.token_hex(8)}.tmp"


def _free_bytes(folder: Path) -> int:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0


def remove_leftovers(folder: Path | str) -> None:
    """Remove what programs killed while they wrote below a folder have left; nobody else may write there now."""
    for path in Path(folder).rglob(".*.tmp"):
        if LEFTOVER.fullmatch(path.name):
            with contextlib.suppress(OSError):
                path.unlink()


def atomic_write_folder(folder: Path | str, files: Iterable[tuple[str, bytes]]) -> Path:
    """Write a folder of files that appears whole or not at all, in the place of an older one.

    Args:
        folder: its final path.
        files: relative names with `/` and contents; taken one at a time, so a generator keeps memory small.

    Raises:
        RunError: it cannot be written.
    """
    folder = Path(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.", suffix=".tmp") as temporary:
            new = Path(temporary) / "new"
            new.mkdir()
            for name, content in files:
                path = new / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            old = Path(temporary) / "old"
            if folder.exists():
                os.replace(folder, old)
            try:
                os.replace(new, folder)
            except OSError:
                if old.exists():
                    os.replace(old, folder)
                raise
    except OSError as error:
        if folder.is_dir() and error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return folder  # another process made it first
        reason = error.strerror or str(error)
        raise RunError(folder, f"cannot be written ({reason})", fix="free space or check permissions") from error
    return folder


def keep_previous(path: Path | str) -> None:
    """Keep a file's present content under the name `<stem>.prev<suffix>` before it is written anew.

    Raises:
        RunError: it cannot be kept.
    """
    path = Path(path)
    previous = path.with_name(f"{path.stem}.prev{path.suffix}")
    temporary = _temporary_in(path.parent)
    try:
        if not path.exists():
            return
        os.link(path, temporary)
        os.replace(temporary, previous)
        # Two names of one file: renaming one onto the other does nothing, and leaves the first.
        temporary.unlink(missing_ok=True)
    except OSError:  # a file system without links
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        atomic_write(previous, path.read_bytes())


class FolderLock:
    """Holds a folder for one process, until it is released or the process ends in whatever way."""

    def __init__(self, folder: Path | str) -> None:
        """Take the folder.

        Raises:
            ConfigError: another process holds it.
        """
        try:
            import fcntl
        except ImportError:  # Windows: no lock, and no harm but to who starts a run twice
            self._handle = -1
            return
        self._handle = os.open(Path(folder) / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(self._handle, 100).decode(errors="replace") or "another process"
            self.release()
            raise ConfigError(folder, f"is in use by {holder}", fix="choose --name, or stop that run") from error
        os.truncate(self._handle, 0)
        os.pwrite(self._handle, f"pid {os.getpid()}".encode(), 0)

    def release(self) -> None:
        """Let others have the folder."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def _sync_folder(folder: Path) -> None:
    """Force a rename to disk, where the system lets folders be opened (Windows does not)."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def dump_json(path: Path | str, value: Any) -> Path:  # noqa: ANN401
    """Write a value as indented JSON, atomically."""
    return atomic_write(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def load_json(path: Path | str) -> Any:  # noqa: ANN401
    """Read a JSON file.

    Raises:
        ConfigError: missing, or no JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(path, f"cannot be read as JSON ({error})", fix="remove it and run again") from error


def make_run_dir(project: Path | str, name: str, *, exist_ok: bool = False) -> Path:
    """Make and return the folder of one run: `project/name`, or `name2`, `name3`... when it exists.

    The folder is claimed by making it, so two programs started at once never share one.

    Raises:
        ConfigError: the name is no plain folder name, or the folder cannot be made.
    """
    parts = Path(name).parts
    if not parts or Path(name).is_absolute() or ".." in parts or "\0" in name:
        raise ConfigError("--name", f"is no folder name ({name!r})", fix="pass a plain name")
    base = Path(project)
    candidate = base / name
    try:
        candidate.parent.mkdir(parents=True, exist_ok=True)
        for number in range(1, 100_000):
            candidate = base / (name if number == 1 else f"{name}{number}")
            try:
                candidate.mkdir()
            except FileExistsError:
                if exist_ok and candidate.is_dir():
                    return candidate
                continue
            return candidate
    except (OSError, ValueError) as error:  # ValueError: a null byte
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(candidate, f"cannot be made ({reason})", fix="choose --project and --name") from error
    raise ConfigError(base / name, "has too many runs", fix="choose another --name")


def find_file(name: str, *, folders: Iterable[Path], flag: str, suffix: str = ".yaml") -> Path:
    """Find a file given as a path or as a bare name in any letter case.

    Args:
        name: what the user wrote, with or without the suffix.
        folders: where a bare name is looked for, and all folders below them, after the working directory.
        flag: the option or key named in the error.
        suffix: what files of this kind end in.

    Raises:
        ConfigError: nothing fits; lists the nearest names.
    """
    path = Path(name)
    with contextlib.suppress(OSError, RuntimeError):  # a name too long, a home of nobody
        path = path.expanduser()
        if path.is_file():
            return path
    wanted = path.name.lower()
    known: dict[str, Path] = {}
    for folder in folders:
        for file in sorted(folder.rglob(f"*{suffix}")):
            known.setdefault(file.name.lower(), file)
    for candidate in (wanted, wanted + suffix):
        found = known.get(candidate)
        bare = len(path.parts) == 1 or (found is not None and found.parent.name == path.parent.name)
        if found is not None and bare:
            return found
    hint = did_you_mean(path.name, [file.name for file in known.values()])
    raise ConfigError(flag, f"{name} does not exist", fix=hint or "check the path")


def user_cache_dir() -> Path:
    """Return the folder for caches of this program: `$XDG_CACHE_HOME/akyolo` or `~/.cache/akyolo`."""
    root = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    return (Path(root) if root else Path.home() / ".cache") / "akyolo"


def try_write(path: Path | str, content: bytes | str) -> DetectorError | None:
    """Write a file that the run can do without, like a cache; return the error rather than raise it."""
    try:
        atomic_write(path, content)
    except DetectorError as error:
        return error
    return None
