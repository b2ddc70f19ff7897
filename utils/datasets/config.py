"""Data yamls: the image folders of each split, and the class names."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from utils.errors import ConfigError, DataError
from utils.files import PROJECT_ROOT, find_file
from utils.strict_yaml import load_yaml

DATA_FOLDER = PROJECT_ROOT / "data"
EMBEDDED = "shapes.yaml"
SPLITS = ("train", "val", "test")
MAX_CLASSES = 100_000
KNOWN_SETS = ("coco", "coco-polygons", "coco128", "VOC", "VisDrone")
ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


@dataclass(frozen=True, kw_only=True)
class ResolvedPath:
    """Where to find images: an existing file or folder, and optionally a glob below the folder."""

    path: Path
    pattern: str = ""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """A checked data yaml."""

    file: Path
    names: tuple[str, ...]  # by class id
    roots: tuple[Path, ...]  # folders against which relative paths are resolved; the first that matches counts
    splits: dict[str, tuple[str, ...]]  # entries of each split: folders, globs, images or txt lists
    generator: dict[str, Any] | None = None  # settings of the embedded data set
    download: str = ""  # one of `KNOWN_SETS`, the https URL of an archive, or ""

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.names)

    def locate(self, split: str) -> list[ResolvedPath]:
        """Return the paths of a split's entries; a DataError if there is none, or if one does not exist."""
        entries = self.splits.get(split, ())
        if not entries:
            raise DataError(self.file, f"has no '{split}' split", fix=f"add a line `{split}: images/{split}`")
        return [self._resolve(entry, split) for entry in entries]

    def _resolve(self, entry: str, split: str) -> ResolvedPath:
        path, pattern = _split_glob(entry)
        tried = [path] if path.is_absolute() else [root / path for root in self.roots]
        for candidate in tried:
            if os.path.exists(candidate):
                return ResolvedPath(path=candidate, pattern=pattern)
        attempts = ", ".join(dict.fromkeys(str(path) for path in tried))
        if self.download and not any(map(os.path.exists, self.roots)):
            fix = f"fetch the data set with `python -m utils.datasets.download {self.file}` or train.py's --download"
            raise DataError(self.file, f"'{split}' path does not exist ({tried[0]})", fix=fix)
        nearest = _nearest_existing(tried)
        fix = f"did you mean {nearest}?" if nearest else "correct `path` or the split's line"
        raise DataError(self.file, f"'{split}' path does not exist (tried {attempts})", fix=fix)


def load_data_config(name: str) -> DataConfig:
    """Read a data yaml by path or by bare name, ignoring case; a ConfigError if a key is wrong or missing."""
    path = find_file(name, folders=[DATA_FOLDER], flag="--data")
    value = load_yaml(path)
    root = value.get("path")
    if root is not None and not isinstance(root, str):
        raise ConfigError(path, f"path must be a folder (got {root!r})", fix="correct `path`")
    try:
        root_path = Path(root or "").expanduser()
    except RuntimeError as error:
        raise ConfigError(path, f"path {root!r}: unknown user in '~user'", fix="correct `path`") from error
    bases = dict.fromkeys([path.resolve().parent, path.resolve().parent.parent, Path.cwd()])
    generator = value.get("generator")
    return DataConfig(
        file=path,
        names=_names(value, path),
        roots=tuple(Path(os.path.normpath(base / root_path)) for base in bases),
        splits={split: _entries(value.get(split), split, path) for split in SPLITS},
        generator=generator if isinstance(generator, dict) else None,
        download=_download(value.get("download"), path),
    )


def _download(value: Any, path: Path) -> str:  # noqa: ANN401
    """Check `download`: the name of a known data set or an https URL of an archive. Commands are never run."""
    if value is None or value == "":
        return ""
    if isinstance(value, str) and (value in KNOWN_SETS or is_archive_address(value)):
        return value
    first_line = (str(value).strip().splitlines() or [""])[0]
    sources = f"the https URL of an archive or one of {', '.join(KNOWN_SETS)}"
    what = f"'download' must be {sources} (got {first_line[:40]!r}); commands are never run"
    raise ConfigError(path, what, fix="remove `download`, or fetch the data set manually")


def is_archive_address(text: str) -> bool:
    """Return whether a text is the https URL of a zip or tar file, in printable ASCII and without credentials."""
    if not text.isascii() or not text.isprintable() or re.search(r"[\s\\]", text):
        return False
    try:
        parts = urlsplit(text)
        has_plain_host = bool(parts.hostname) and parts.username is None and parts.password is None and parts.port != 0
    except ValueError:
        return False
    return parts.scheme == "https" and has_plain_host and parts.path.lower().endswith(ARCHIVE_SUFFIXES)


def _names(value: dict[str, Any], path: Path) -> tuple[str, ...]:
    """Check `names`, a list or a mapping from 0 to n - 1, and that `nc` agrees with it."""
    names = value.get("names")
    count = value.get("nc")
    if count is not None and (isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MAX_CLASSES):
        raise ConfigError(path, f"nc must be from 1 to {MAX_CLASSES} (got {count!r})", fix="correct or remove `nc`")
    if names is None and count is not None:
        return tuple(f"class{class_id}" for class_id in range(count))
    if isinstance(names, dict):
        if any(type(key) is not int for key in names) or sorted(names) != list(range(len(names))):
            raise ConfigError(path, f"names must be numbered 0 to {len(names) - 1}", fix="fill the gaps")
        names = [names[class_id] for class_id in range(len(names))]
    if not isinstance(names, list) or not names:
        what = f"names must list the class names (got {str(names)[:40]})"
        raise ConfigError(path, what, fix="add `names: [cat, dog]`")
    if count is not None and count != len(names):
        raise ConfigError(path, f"nc is {count!r}, but names has {len(names)} names", fix="correct or remove `nc`")
    return tuple(str(name) for name in names)


def _entries(value: Any, split: str, path: Path) -> tuple[str, ...]:  # noqa: ANN401
    """Return a split's entries: nothing, one path, or a list of paths."""
    if value is None or value == "":
        return ()
    entries = value if isinstance(value, list) else [value]
    if any(not isinstance(entry, str) or not entry for entry in entries):
        raise ConfigError(path, f"'{split}' must be a path or a list of paths (got {value!r})", fix="correct it")
    return tuple(entries)


def _split_glob(entry: str) -> tuple[Path, str]:
    """Split a path before its first part that is a glob: `images/*/a.jpg` -> `images`, `*/a.jpg`."""
    parts = Path(entry).parts
    first = next((i for i, part in enumerate(parts) if any(character in part for character in "*?[")), len(parts))
    return Path(*parts[:first]), "/".join(parts[first:])


def _nearest_existing(tried: Sequence[Path]) -> str:
    """Return the existing sibling with the name closest to a path that does not exist, or ""."""
    for path in tried:
        parent = path.parent
        while not os.path.exists(parent) and parent != parent.parent:
            path, parent = parent, parent.parent
        if not parent.is_dir():
            continue
        siblings = [child.name for child in parent.iterdir() if child.is_dir() or child.suffix == ".txt"]
        matches = difflib.get_close_matches(path.name, siblings, n=1, cutoff=0.5)
        if matches:
            return str(parent / matches[0])
    return ""
