"""Data yamls: the image folders of each split, and the class names."""

from __future__ import annotations

import functools
import logging
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from utils.datasets.paths import ResolvedPath, is_windows_path, nearest_existing, readings, resolve
from utils.errors import ConfigError, DataError
from utils.files import PROJECT_ROOT, find_file
from utils.log import LOGGER
from utils.strict_yaml import load_yaml

DATA_FOLDER = PROJECT_ROOT / "data"
EMBEDDED = "shapes.yaml"
SPLITS = ("train", "val", "test")
MAX_CLASSES = 100_000
KNOWN_SETS = ("coco", "coco-polygons", "coco128", "VOC", "VisDrone")
ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
PREPARE = "python prepare.py"


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
        candidates = [path for root in self.roots for path in self._readings(entry, root)]
        for candidate in candidates:
            if found := resolve(candidate):
                return found
        missing = list(dict.fromkeys(str(root / entry) for root in self.roots))
        if self.download and not any(map(os.path.exists, self.roots)):
            fix = f"fetch the data set with `python -m utils.datasets.download {self.file}` or train.py's --download"
            raise DataError(self.file, f"'{split}' path does not exist ({missing[0]})", fix=fix)
        nearest = nearest_existing(entry, candidates, [*self.roots, os.path.dirname(self.file)])
        fix = f"did you mean {nearest}?" if nearest else "correct `path` or the split's line"
        if is_windows_path(entry):
            raise DataError(self.file, f"'{split}' is a path of Windows, which does not exist here ({entry})", fix=fix)
        raise DataError(self.file, f"'{split}' path does not exist (tried {', '.join(missing)})", fix=fix)

    def _readings(self, entry: str, root: Path) -> list[str]:
        """Return what an entry may mean relative to a root, the first choice first.

        The reading by which most entries of the yaml exist comes before the others: the `../train/images` of one data
        set is not that of another in the folder above, which has no `../valid/images`.
        """
        every = [readings(other, root) for others in self.splits.values() for other in others]
        number_found = [sum(resolve(forms[kind]) is not None for forms in every) for kind in range(3)]
        kinds = sorted(range(3), key=lambda kind: -number_found[kind])
        return [readings(entry, root)[kind] for kind in kinds]


def load_data_config(name: str) -> DataConfig:
    """Read a data yaml by path, by the path of its folder, or by bare name, ignoring case.

    Raises:
        ConfigError: there is no such file, or a key is wrong or missing.
    """
    path = _find(name)
    value = load_yaml(path)
    generator = value.get("generator")
    return DataConfig(
        file=path,
        names=_names(value, path),
        roots=tuple(dict.fromkeys(_roots(value.get("path"), path))),
        splits={split: _entries(value.get(split), split, path) for split in SPLITS},
        generator=generator if isinstance(generator, dict) else None,
        download=_download(value.get("download"), path),
    )


def _find(name: str) -> Path:
    """Return the data yaml that --data names; one in a folder is data.yaml, or the only yaml."""
    path = Path(os.path.expanduser(name))
    if name.lower().endswith((*ARCHIVE_SUFFIXES, ".7z", ".gz", ".rar")) and path.is_file():
        raise ConfigError("--data", f"{name} is an archive", fix="pass its data yaml, once it is unpacked")
    try:
        return find_file(name, folders=[DATA_FOLDER], flag="--data")
    except ConfigError:
        if not name or not path.is_dir():
            raise
    found = sorted(p for p in path.iterdir() if p.suffix in (".yaml", ".yml") and p.is_file() and p.name[0] != ".")
    found = [p for p in found if p.name == "data.yaml"] or found
    if len(found) != 1:
        what = f"{name} is a folder with {len(found) or 'no'} data yamls"
        raise ConfigError("--data", what, fix=f"pass its data yaml, or prepare it with `{PREPARE} {name}`")
    _log_once(logging.INFO, f"--data: {name} is a folder; using {found[0]}")
    return found[0]


def _roots(root: Any, path: Path) -> Iterator[Path]:  # noqa: ANN401
    """Yield the folders that `path` of a data yaml may mean, the first choice first.

    They are relative to the yaml's folder, where a link to it lies before where it leads, to the folder above, and to
    the working directory.
    """
    if root is not None and not isinstance(root, str):
        raise ConfigError(path, f"path must be a folder in quotes (got {root!r})", fix="correct `path`")
    folders = [Path(os.path.abspath(path)).parent, path.resolve().parent]
    for base in [*folders, *(folder.parent for folder in folders), Path.cwd()]:
        literal, portable, _ = readings(root or "", base)
        yield Path(os.path.normpath(literal if os.path.exists(literal) else portable))


@functools.cache
def _log_once(level: int, message: str) -> None:
    LOGGER.log(level, message)


def _download(value: Any, path: Path) -> str:  # noqa: ANN401
    """Return `download` if it is the name of a known data set or the https URL of an archive, else "" with a warning.

    YOLOv5's data yamls hold scripts there, which are never run.
    """
    if value is None or value == "":
        return ""
    if isinstance(value, str) and (value in KNOWN_SETS or is_archive_address(value)):
        return value
    sources = f"the https URL of an archive or one of {', '.join(KNOWN_SETS)}"
    _log_once(logging.WARNING, f"{path}: `download` is ignored, since it is not {sources}; scripts are never run")
    return ""


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
    """Return the class names, made up if there is only `nc`; ConfigError if `nc` and `names` do not agree."""
    names, count = value.get("names"), _number(value.get("nc"))
    if count is not None and (isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MAX_CLASSES):
        raise ConfigError(path, f"nc must be from 1 to {MAX_CLASSES} (got {count!r})", fix="correct or remove `nc`")
    if names is None and count is not None:
        return tuple(f"class{class_id}" for class_id in range(count))
    listed = names_in_order(names, path)
    if count is not None and count != len(listed):
        raise ConfigError(path, f"nc is {count!r}, but names has {len(listed)} names", fix="correct or remove `nc`")
    return listed


def names_in_order(names: Any, where: object) -> tuple[str, ...]:  # noqa: ANN401
    """Return the class names of `names`, a list or a mapping from 0 to n - 1; ConfigError if it is anything else."""
    if isinstance(names, dict):
        names = {_number(key): name for key, name in names.items()}
        if any(type(key) is not int for key in names) or sorted(names) != list(range(len(names))):
            raise ConfigError(where, f"names must be numbered 0 to {len(names) - 1}", fix="fill the gaps")
        names = [names[class_id] for class_id in range(len(names))]
    if not isinstance(names, list) or not names:
        what = f"names must list the class names (got {str(names)[:40]})"
        raise ConfigError(where, what, fix="write `names: [cat, dog]`, with the names themselves")
    for class_id, name in enumerate(names):
        if isinstance(name, (dict, list, type(None))) or not str(name).strip():
            raise ConfigError(where, f"the name of class {class_id} must be text (got {name!r})", fix="write a name")
    texts = [str(name) for name in names]
    if repeated := next((name for name, times in Counter(texts).most_common(1) if times > 1), ""):
        ids = [class_id for class_id, name in enumerate(texts) if name == repeated]
        what = f"classes {ids[0]} and {ids[1]} have the same name {repeated!r}; they are trained as two classes"
        _log_once(logging.WARNING, f"{where}: {what}")
    return tuple(texts)


def _number(value: Any) -> Any:  # noqa: ANN401
    """Return the number in a text of a few digits; any other value unchanged."""
    return int(value) if isinstance(value, str) and re.fullmatch("[0-9]{1,9}", value) else value


def _entries(value: Any, split: str, path: Path) -> tuple[str, ...]:  # noqa: ANN401
    """Return a split's entries: nothing, one path, or a list of paths."""
    if value is None or value == "":
        return ()
    entries = value if isinstance(value, list) else [value]
    if any(not isinstance(entry, str) or not entry for entry in entries):
        what = f"'{split}' must be a path or a list of paths (got {value!r})"
        raise ConfigError(path, what, fix="write paths, in quotes if they look like numbers")
    return tuple(entries)
