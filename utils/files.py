"""Files: atomic writing, strict yaml, run folders, and finding a file by its bare name."""

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
from typing import Any, cast

import yaml

from utils.errors import ConfigError, DetectorError, RunError, did_you_mean

PROJECT_ROOT = Path(__file__).resolve().parent.parent
MAX_YAML_BYTES = 1_000_000
MAX_YAML_DEPTH = 50
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


_TAG = "tag:yaml.org,2002:"
_RESOLVERS = (
    (f"{_TAG}bool", r"^(?:true|True|TRUE|false|False|FALSE)$", [*"tTfF"]),
    (f"{_TAG}int", r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$", [*"-+0123456789"]),
    (
        f"{_TAG}float",
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        [*"-+0123456789."],
    ),
    (f"{_TAG}null", r"^(?:~|null|Null|NULL|)$", [*"~nN", ""]),
)


class _StrictLoader(yaml.SafeLoader):
    """YAML without surprises: plain values only, no aliases, no duplicate keys, scalars as in YAML 1.2."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:  # noqa: ANN401
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(None, None, "aliases (*name) are not accepted", self.peek_event().start_mark)
        self.depth += 1
        if self.depth > MAX_YAML_DEPTH:
            raise yaml.MarkedYAMLError(None, None, f"nested deeper than {MAX_YAML_DEPTH}", self.peek_event().start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return cast(yaml.Node, node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        if not isinstance(node, yaml.MappingNode):
            raise yaml.MarkedYAMLError(None, None, "a mapping was expected", node.start_mark)
        seen: dict[Any, int] = {}
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, (str, int, float, bool, type(None))):
                raise yaml.MarkedYAMLError(None, None, "a key must be a plain value", key_node.start_mark)
            if key in seen:
                raise yaml.MarkedYAMLError(
                    None, None, f"key {key!r} stands twice, first in line {seen[key]}", key_node.start_mark
                )
            seen[key] = key_node.start_mark.line + 1
        return super().construct_mapping(node, deep)

    def plain_scalar(self, node: yaml.Node) -> Any:  # noqa: ANN401
        """Return the value of a number, truth value or nothing; the pattern of its tag must fit."""
        text = str(self.construct_scalar(node))  # type: ignore[arg-type]
        pattern = next(pattern for tag, pattern, _ in _RESOLVERS if tag == node.tag)
        if not re.match(pattern, text):
            kind = node.tag.removeprefix(_TAG)
            raise yaml.MarkedYAMLError(None, None, f"{text[:20]!r} is no {kind}", node.start_mark)
        if node.tag == f"{_TAG}null":
            return None
        if node.tag == f"{_TAG}bool":
            return text.lower() == "true"
        if node.tag == f"{_TAG}float":
            return float(re.sub(r"\.(?=[inIN])", "", text))
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


class _PlainDumper(yaml.SafeDumper):
    """Writes what `_StrictLoader` reads back equal: quotes where text looks like something else, and no aliases."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ANN401
        return True

    def text(self, value: str) -> yaml.ScalarNode:
        """Represent text, quoted where it holds letters that cannot be seen."""
        return self.represent_scalar(f"{_TAG}str", value, style=None if value.isprintable() else '"')


for _class in (_StrictLoader, _PlainDumper):
    _class.yaml_implicit_resolvers = {}
    for _tag, _pattern, _first in _RESOLVERS:
        _class.add_implicit_resolver(_tag, re.compile(_pattern), _first)
_PlainDumper.add_representer(str, _PlainDumper.text)
_StrictLoader.yaml_constructors = {
    tag: constructor
    for tag, constructor in yaml.SafeLoader.yaml_constructors.items()
    if tag in (f"{_TAG}str", f"{_TAG}seq", f"{_TAG}map", None)
}
for _resolver in _RESOLVERS:
    _StrictLoader.add_constructor(_resolver[0], _StrictLoader.plain_scalar)


def load_yaml(path: Path | str) -> dict[str, Any]:
    """Read a yaml file that holds one mapping.

    Returns:
        The mapping, with plain Python values only.

    Raises:
        ConfigError: missing, larger than 1 MB, not UTF-8, no valid yaml, or no mapping. Names the line.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > MAX_YAML_BYTES:
            raise ConfigError(path, f"is too large for a yaml ({size} bytes)", fix="pass the right file")
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(path, f"cannot be read ({error.strerror})", fix="check the path") from error
    try:
        value = yaml.load(data.decode("utf-8-sig"), Loader=_StrictLoader)  # noqa: S506 - a SafeLoader, stricter
    except UnicodeDecodeError as error:
        raise ConfigError(path, f"is not UTF-8 text (byte {error.start})", fix="save it as UTF-8") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else path
        raise ConfigError(where, f"no valid yaml: {error.problem}", fix="correct that line") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        first_line = str(error).splitlines()[0]
        raise ConfigError(path, f"no valid yaml: {first_line}", fix="correct the file") from error
    if not isinstance(value, dict):
        kind = type(value).__name__
        raise ConfigError(path, f"must hold `key: value` lines (got {kind})", fix="pass a yaml of the right kind")
    return value


def dump_yaml(path: Path | str, value: dict[str, Any]) -> Path:
    """Write a mapping as yaml, atomically, keys in their given order."""
    return atomic_write(path, yaml.dump(value, Dumper=_PlainDumper, sort_keys=False, allow_unicode=True))


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
