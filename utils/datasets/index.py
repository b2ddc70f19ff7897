"""Scan a split once: which pictures, how large, which labels; what is bad is skipped, counted and listed."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from utils.datasets.config import DataConfig, Located
from utils.datasets.images import IMAGE_SUFFIXES, has_suffix, read_image
from utils.datasets.labels import LabelProblem, label_path, parse_labels, read_label_bytes
from utils.errors import DataError
from utils.files import try_write, user_cache_dir
from utils.log import LOGGER

CACHE_VERSION = 1
SCAN_THREADS = 4
Label = bytes | DataError | None


@dataclass(frozen=True, kw_only=True)
class DatasetIndex:
    """One split in flat arrays, which worker processes can share without copying.

    Attributes:
        paths: (n,) str, the pictures, sorted.
        sizes_hw: (n, 2) int32, height and width after EXIF orientation.
        labels: (m, 5) float32: class, cx, cy, w, h as shares of the picture, of all pictures one after another.
        starts: (n + 1,) int64: picture i has rows starts[i] to starts[i + 1].
        skipped: path and reason of each picture left out.
        notes: what was mended in the labels, in words.
    """

    paths: np.ndarray
    sizes_hw: np.ndarray
    labels: np.ndarray
    starts: np.ndarray
    skipped: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Return the number of usable pictures."""
        return len(self.paths)

    def rows(self, index: int) -> np.ndarray:
        """Return the (k, 5) label rows of one picture."""
        return self.labels[self.starts[index] : self.starts[index + 1]]

    def fingerprint(self) -> str:
        """Return a hash of names, sizes and labels: equal for equal data sets wherever they lie."""
        digest = hashlib.sha256()
        for path in self.paths:
            digest.update(os.path.basename(path).encode("utf-8", "surrogateescape") + b"\0")
        for array in (self.sizes_hw, self.labels, self.starts):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class _Scanned:
    """What scanning found in one picture; `error` set means skip, `fatal` means stop."""

    size_hw: tuple[int, int] = (0, 0)
    rows: np.ndarray | None = None
    error: str = ""
    fatal: DataError | None = None
    polygons: int = 0
    clipped: int = 0
    dropped: int = 0
    missing: bool = False


def build_index(config: DataConfig, split: str, *, use_cache: bool = True, strict: bool = False) -> DatasetIndex:
    """Scan a split, or take the scan from the user's cache when nothing has changed.

    Args:
        config: the data yaml.
        split: train, val or test.
        use_cache: read and write the cache; the data set itself is never written to.
        strict: stop at the first bad picture or label instead of skipping it.

    Raises:
        DataError: no pictures, a class beyond `names`, no usable picture, or with `strict` anything bad.
    """
    paths = list_images(config, split)
    labels = [_label_content(path) for path in paths]
    if all(label is None for label in labels):
        raise DataError(
            config.file,
            f"no labels found for '{split}' (first looked for: {label_path(paths[0])})",
            fix="put labels/ beside images/, one txt for each picture",
        )
    cache = _cache_file(config, split, paths, labels) if use_cache else None
    index = _read_cache(cache) if cache else None
    if index is None:
        index = _scan(config, split, paths, labels)
        if cache:
            _write_cache(cache, index)
    if strict and index.skipped:
        path, reason = index.skipped[0]
        raise DataError(path, reason, fix="correct it or run without --strict")
    if len(index) == 0:
        path, reason = index.skipped[0]
        raise DataError(config.file, f"no usable picture in '{split}' ({path}: {reason})", fix="correct the data set")
    _report(index, split)
    return index


def list_images(config: DataConfig, split: str) -> list[str]:
    """Return all picture files of a split, sorted, each once.

    Raises:
        DataError: a path does not exist, or there is no picture.
    """
    found: set[str] = set()
    located = config.locate(split)
    for entry in located:
        try:
            found.update(_listed(entry, config))
        except (OSError, ValueError) as error:  # ValueError: a senseless glob, or a list that is not UTF-8
            shown = entry.path / entry.pattern
            raise DataError(
                config.file, f"'{split}' cannot be read from {shown} ({error})", fix="correct it"
            ) from error
    if not found:
        where = ", ".join(str(entry.path / entry.pattern) for entry in located)
        raise DataError(config.file, f"'{split}' has no pictures in {where}", fix="check the path and the suffixes")
    return sorted(found)


def _listed(entry: Located, config: DataConfig) -> list[str]:
    """Return the pictures of one entry: a glob, a folder with all below it, a txt list, or one picture."""
    if entry.pattern:
        return _pictures(entry.path.glob(entry.pattern))
    if entry.path.is_dir():
        return _pictures(entry.path.rglob("*"))
    if entry.path.suffix.lower() == ".txt":
        lines = entry.path.read_text(encoding="utf-8-sig").splitlines()
        return [_from_list(line.strip(), entry.path.parent, config.roots) for line in lines if line.strip()]
    return _pictures([entry.path])


def _label_content(path: str) -> Label:
    """Return what lies where a picture's labels should be: bytes, nothing, or the reason why it cannot be read."""
    try:
        return read_label_bytes(label_path(path))
    except DataError as error:
        return error


def _pictures(candidates: Iterable[Path]) -> list[str]:
    return [str(p) for p in candidates if has_suffix(p, IMAGE_SUFFIXES) and not p.is_dir()]


def _from_list(line: str, folder: Path, roots: Sequence[Path]) -> str:
    """Resolve a line of a txt list: absolute, or relative to the list's folder or the data set's root."""
    for base in (folder, *roots):
        if (base / line).exists():
            return os.path.normpath(base / line)
    return os.path.normpath(folder / line)


def _scan(config: DataConfig, split: str, paths: list[str], labels: list[Label]) -> DatasetIndex:
    """Decode every picture and check every label."""

    def one(item: tuple[str, Label]) -> _Scanned:
        return _scan_one(*item, config=config)

    with ThreadPoolExecutor(SCAN_THREADS) as pool:
        bar = tqdm(
            pool.map(one, zip(paths, labels, strict=True)), total=len(paths), desc=f"Scanning {split}", leave=False
        )
        scanned = list(bar)
    for result in scanned:
        if result.fatal is not None:
            raise result.fatal
    good = [i for i, result in enumerate(scanned) if not result.error]
    rows = [_rows_of(scanned[i]) for i in good]
    counted = {
        "outlines brought to boxes": sum(s.polygons for s in scanned),
        "boxes cut at the border": sum(s.clipped for s in scanned),
        "rows without area or standing twice left out": sum(s.dropped for s in scanned),
        "pictures without a label file": sum(s.missing for s in scanned),
    }
    return DatasetIndex(
        paths=np.array([paths[i] for i in good], dtype=np.str_),
        sizes_hw=np.array([scanned[i].size_hw for i in good], dtype=np.int32).reshape(-1, 2),
        labels=np.concatenate(rows) if rows else np.zeros((0, 5), np.float32),
        starts=np.cumsum([0, *(len(r) for r in rows)], dtype=np.int64),
        skipped=tuple((paths[i], s.error) for i, s in enumerate(scanned) if s.error),
        notes=tuple(f"{count} {what}" for what, count in counted.items() if count),
    )


def _rows_of(scanned: _Scanned) -> np.ndarray:
    return np.zeros((0, 5), np.float32) if scanned.rows is None else scanned.rows


def _scan_one(path: str, label: Label, *, config: DataConfig) -> _Scanned:
    try:
        height, width = read_image(path).shape[:2]
    except DataError as error:
        return _Scanned(error=error.what)
    if min(height, width) < 10:
        return _Scanned(error=f"is too small ({width}x{height} pixels)")
    if isinstance(label, DataError):
        return _Scanned(error=f"{label.where}: {label.what}")
    if label is None:
        return _Scanned(size_hw=(height, width), missing=True)
    parsed = parse_labels(label, num_classes=config.num_classes)
    if parsed.problems:
        problem = parsed.problems[0]
        where = _where(path, problem)
        if problem.is_class_range:
            label_class = problem.what.split(" but")[0]
            what = f"{label_class} but {config.file} has nc={config.num_classes} (0-{config.num_classes - 1})"
            return _Scanned(error=what, fatal=DataError(where, what, fix="correct the row or add names"))
        return _Scanned(error=f"{where}: {problem.what}")
    return _Scanned(
        size_hw=(height, width),
        rows=parsed.rows,
        polygons=parsed.polygons,
        clipped=parsed.clipped,
        dropped=parsed.dropped,
    )


def _where(image_path: str, problem: LabelProblem) -> str:
    where = f"{label_path(image_path)}:{problem.line}"
    return f"{where}:{problem.column}" if problem.column and not problem.is_class_range else where


def _report(index: DatasetIndex, split: str) -> None:
    """Say in one line each what was found, mended and skipped."""
    notes = f"; {', '.join(index.notes)}" if index.notes else ""
    LOGGER.info(f"{split}: {len(index)} pictures, {len(index.labels)} objects{notes}")
    if index.skipped:
        path, reason = index.skipped[0]
        total = len(index) + len(index.skipped)
        LOGGER.warning(f"{len(index.skipped)} of {total} {split} pictures skipped, the first: {path}: {reason}")


def _cache_file(config: DataConfig, split: str, paths: list[str], labels: list[Label]) -> Path:
    """Name the cache by all that the scan depends on: label contents, picture files, class count, code version."""
    digest = hashlib.sha256(f"{CACHE_VERSION} {config.num_classes} {config.file}".encode("utf-8", "surrogateescape"))
    for path, label in zip(paths, labels, strict=True):
        try:
            status = os.stat(path)
            state = (status.st_size, status.st_mtime_ns, status.st_ino)
        except OSError:
            state = (-1, -1, -1)
        content = hashlib.sha256(label).hexdigest() if isinstance(label, bytes) else str(label)
        digest.update(f"{path}\0{state}\0{content}\n".encode("utf-8", "surrogateescape"))
    place = hashlib.sha256(f"{config.file.resolve()} {split}".encode("utf-8", "surrogateescape")).hexdigest()[:12]
    return user_cache_dir() / "labels" / f"{split}-{place}-{digest.hexdigest()[:24]}.npz"


def _write_cache(file: Path, index: DatasetIndex) -> None:
    """Keep the scan, and remove this split's older ones. A cache that cannot be written is only mentioned."""
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        paths=index.paths,
        sizes_hw=index.sizes_hw,
        labels=index.labels,
        starts=index.starts,
        skipped=np.array(index.skipped, dtype=np.str_).reshape(-1, 2),
        notes=np.array(index.notes, dtype=np.str_),
    )
    error = try_write(file, buffer.getvalue())
    if error is not None:
        LOGGER.warning(f"label cache not kept: {error}")
        return
    prefix = file.name.rsplit("-", 1)[0]
    for old in file.parent.glob(f"{prefix}-*.npz"):
        if old != file:
            old.unlink(missing_ok=True)


def _read_cache(file: Path) -> DatasetIndex | None:
    """Return the kept scan, or None when there is none or it is damaged. Arrays only: no objects are ever loaded."""
    try:
        with np.load(file, allow_pickle=False) as stored:
            index = DatasetIndex(
                paths=stored["paths"],
                sizes_hw=stored["sizes_hw"],
                labels=stored["labels"],
                starts=stored["starts"],
                skipped=tuple((str(path), str(reason)) for path, reason in stored["skipped"]),
                notes=tuple(str(note) for note in stored["notes"]),
            )
    except FileNotFoundError:
        return None
    except Exception as error:
        LOGGER.warning(f"label cache {file} is damaged ({type(error).__name__}); scanning again")
        return None
    if not _is_sound(index):
        LOGGER.warning(f"label cache {file} is damaged (arrays do not fit together); scanning again")
        return None
    return index


def _is_sound(index: DatasetIndex) -> bool:
    """Whether kinds, shapes and ranges of all arrays make sense together."""
    if index.paths.ndim != 1 or [a.dtype.kind for a in (index.paths, index.sizes_hw, index.labels, index.starts)] != [
        *"Uifi"
    ]:
        return False
    count = len(index.paths)
    fits = index.sizes_hw.shape == (count, 2) and index.starts.shape == (count + 1,)
    rising = fits and index.starts[0] == 0 and bool((np.diff(index.starts) >= 0).all())
    return rising and index.labels.shape == (index.starts[-1], 5) and bool(np.isfinite(index.labels).all())
