"""Files: atomic writes, JSON, run folders, and finding a file by its bare name."""

from __future__ import annotations

import atexit
import codecs
import contextlib
import csv
import errno
import functools
import hashlib
import io
import itertools
import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Container, Iterable, Sequence
from pathlib import Path
from typing import Any

from utils.errors import ConfigError, DetectorError, RunError, did_you_mean
from utils.log import LOGGER

PROJECT_ROOT = Path(__file__).resolve().parent.parent
SAMPLE_IMAGES = PROJECT_ROOT / "data" / "images"  # to try detect.py on
LEFTOVER = re.compile(r"\.[0-9a-f]{16}\.tmp")


def atomic_write(path: Path | str, content: bytes | str) -> Path:
    """Write a file so that a crash leaves either the old content or the new, never part of it.

    Text is encoded as UTF-8, except for names of files that are not UTF-8, which keep their bytes; missing folders are
    created. The bytes go to a temporary file in the same folder, are flushed to disk, and are renamed in one step. All
    of it, the names of new folders included, is on disk when this returns.

    Raises:
        RunError: the folder cannot be written or the disk is full. The old file stays untouched.
    """
    path = Path(path)
    temporary = _temporary_in(path.parent)
    try:
        data = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
        make_folder(path.parent)
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError, ValueError):
            temporary.unlink()
        if not isinstance(error, (OSError, ValueError)):  # ValueError: null byte in the name, lone surrogate in text
            raise
        reason = getattr(error, "strerror", None) or str(error)
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            reason += f": needs {len(data) / 1e6:.1f} MB, {free_bytes(path.parent) / 1e6:.1f} MB free"
        raise RunError(path, f"cannot be written ({reason})", fix="free space or choose another --project") from error
    return path


def _temporary_in(folder: Path) -> Path:
    """Return the name of an unfinished file, as `remove_leftovers` recognises it."""
    return folder / f".{secrets.token_hex(8)}.tmp"


def free_bytes(folder: Path) -> int:
    """Return the free disk space for a folder, which need not exist yet; 0 if unknown."""
    try:
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        return shutil.disk_usage(folder).free
    except OSError:
        return 0


def write_csv(path: Path | str, rows: Iterable[Iterable[Any]]) -> Path:
    """Write a csv file atomically, the header row included in `rows`."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return atomic_write(path, buffer.getvalue())


def write_skipped(run_dir: Path, skipped: Sequence[tuple[Path | str, str]]) -> None:
    """List skipped files and the reasons in a run's `skipped.csv`; without any, one of an earlier run is removed."""
    if skipped:
        rows = [(os.fsencode(path).decode("utf-8", "replace"), reason) for path, reason in skipped]
        write_csv(run_dir / "skipped.csv", [("file", "reason"), *rows])
    else:
        remove_files(run_dir / "skipped.csv")


def remove_files(*paths: Path) -> None:
    """Remove files that would be taken for results of the present run; those that are missing are left out."""
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
            sync_folder(path.parent)


def unique_name(name: str, taken: Container[str]) -> str:
    """Return `name`, or `name-2`, `name-3`... if it is taken."""
    candidates = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    return next(candidate for candidate in candidates if candidate not in taken)


def remove_leftovers(folder: Path | str) -> None:
    """Remove unfinished files of killed processes below a folder; no other process may be writing there."""
    for path in Path(folder).rglob(".*.tmp"):
        if LEFTOVER.fullmatch(path.name):
            with contextlib.suppress(OSError):
                path.unlink()


def keep_backup(path: Path | str) -> None:
    """Keep a file's current content as `<stem>.bak<suffix>` before it is overwritten; RunError if that fails."""
    path = Path(path)
    backup = path.with_name(f"{path.stem}.bak{path.suffix}")
    temporary = _temporary_in(path.parent)
    if not path.exists():
        return
    try:
        os.link(path, temporary)
        os.replace(temporary, backup)
        # If both names already refer to one file, rename does nothing and leaves the temporary name.
        temporary.unlink(missing_ok=True)
    except OSError:  # a file system without hard links
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        atomic_write(backup, path.read_bytes())


def make_folder(folder: Path) -> None:
    """Create a folder and its missing parents, with their names on disk; OSError or ValueError if it is impossible.

    Without that, what is flushed into a new folder is lost with the folder when the power fails.
    """
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def sync_file(path: Path | str) -> None:
    """Flush the content of a file that a library has written; OSError if that fails."""
    with Path(path).open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Flush a rename to disk, where folders can be opened (not on Windows)."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def dump_json(path: Path | str, value: Any) -> Path:  # noqa: ANN401
    """Write a value as indented JSON, atomically; names that are not UTF-8 become escapes."""
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    return atomic_write(path, text.encode("utf-8", "backslashreplace"))


def load_json(path: Path | str) -> Any:  # noqa: ANN401
    """Read a JSON file; ConfigError if it is missing or not valid JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(path, f"cannot be read as JSON ({error})", fix="remove it and run again") from error


def make_run_dir(project: Path | str, name: str, *, exist_ok: bool = False) -> Path:
    """Create and return a run folder: `project/name`, or `name2`, `name3`, ... if it exists.

    Creating the folder claims it, so two programs started at the same time never share one. If the name is not a plain
    folder name, or the folder cannot be created, this raises ConfigError.
    """
    parts = Path(name).parts
    if not parts or Path(name).is_absolute() or ".." in parts or "\0" in name:
        raise ConfigError("--name", f"is not a folder name ({name!r})", fix="pass a plain name")
    base = Path(project)
    candidate = base / name
    try:
        make_folder(candidate.parent)
        for suffix in ("", *range(2, 100_000)):
            candidate = base / f"{name}{suffix}"
            with contextlib.suppress(FileExistsError):
                candidate.mkdir()
                sync_folder(base)
                return candidate
            if exist_ok and candidate.is_dir():
                return candidate
    except (OSError, ValueError) as error:  # ValueError: a null byte
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(candidate, f"cannot be created ({reason})", fix="choose --project and --name") from error
    raise ConfigError(base / name, "has too many runs", fix="choose another --name")


def decode_text(data: bytes) -> str:
    """Decode UTF-8 with or without a byte order mark, or UTF-16 with one, as Windows writes it."""
    is_utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return data.decode("utf-16" if is_utf16 else "utf-8-sig")


def file_hash(path: Path | str) -> str:
    """Return the SHA-256 of a file's content in hexadecimal."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def absolute_path(name: str) -> str:
    """Return the path of an existing file in a form that holds in any working directory; other names unchanged."""
    path = name if os.path.isfile(name) else os.path.expanduser(name)
    return os.path.abspath(path) if os.path.isfile(path) else name


def find_file(name: str, *, folders: Iterable[Path], flag: str) -> Path:
    """Find a yaml given as a path, or as a bare name in any letter case with or without `.yaml`.

    Bare names are searched in the working directory, then recursively in `folders`.

    Raises:
        ConfigError: no such file; names `flag` and the closest names.
    """
    path = Path(name)
    with contextlib.suppress(OSError, RuntimeError):  # the name is too long, or ~user is unknown
        path = path if path.is_file() else path.expanduser()
        if path.is_file():
            return path
    target = path.name.lower()
    known: dict[str, Path] = {}
    for folder in folders:
        for file in sorted(folder.rglob("*.yaml")):
            known.setdefault(file.name.lower(), file)
    for candidate in (target, f"{target}.yaml"):
        match = known.get(candidate)
        if match is not None and (len(path.parts) == 1 or match.parent.name == path.parent.name):
            return match
    if name and os.path.lexists(path):
        kind = "a folder" if path.is_dir() else "not a regular file" if path.exists() else "a link that leads nowhere"
        raise ConfigError(flag, f"{name} is {kind}", fix="pass a yaml file")
    siblings = [file.name for file in path.parent.glob("*.y*ml")]
    hint = did_you_mean(path.name, [*siblings, *(file.name for file in known.values())])
    raise ConfigError(flag, f"{name or repr(name)} does not exist", fix=hint or "check the path")


def user_cache_dir() -> Path:
    """Return this program's cache folder: `$XDG_CACHE_HOME/akyolo` or `~/.cache/akyolo`.

    A user without a home folder, such as one of a container, gets a temporary folder, with a warning.
    """
    return Path(_cache_root() or _temporary_cache(), "akyolo")


def has_lasting_cache() -> bool:
    """Whether the cache folder is still there in the next run."""
    return bool(_cache_root())


def _cache_root() -> str:
    """Return the folder of all programs' caches, or "" without a home folder."""
    root = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or ""
    if not os.path.isabs(root):  # to be ignored, as the XDG specification says
        root = os.path.join(os.path.expanduser("~"), ".cache")
    return root if os.path.isabs(root) else ""


@functools.cache
def _temporary_cache() -> str:
    """Return a folder that is removed at the end: in a lasting one others could mark an exported file as trusted."""
    folder = tempfile.mkdtemp(prefix="akyolo-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    LOGGER.warning("no home folder; caches last for this run only. Set XDG_CACHE_HOME to keep them")
    return folder


def try_write(path: Path | str, content: bytes | str) -> DetectorError | None:
    """Write an optional file, such as a cache; return the error instead of raising it."""
    try:
        atomic_write(path, content)
    except DetectorError as error:
        return error
    return None
