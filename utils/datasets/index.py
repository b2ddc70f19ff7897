"""Scan a split once: which images, how large, which labels; what is bad is skipped, counted and listed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from utils.datasets.config import DataConfig, ResolvedPath
from utils.datasets.flat_index import DatasetIndex
from utils.datasets.images import IMAGE_SUFFIXES, has_suffix, read_image
from utils.datasets.label_cache import Label, cache_file, read_cache, write_cache
from utils.datasets.labels import LabelProblem, label_path, parse_labels, read_label_bytes
from utils.datasets.polygons import no_outlines
from utils.errors import DataError
from utils.log import LOGGER
from utils.structures import Polygons

SCAN_THREADS = 4


@dataclass(frozen=True)
class _Scanned:
    """What scanning found in one image; `error` set means skip, `fatal` means stop."""

    size_hw: tuple[int, int] = (0, 0)
    rows: np.ndarray = field(default_factory=lambda: np.zeros((0, 5), np.float32))
    outlines: Polygons = field(default_factory=lambda: no_outlines(0))
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
        strict: stop at the first bad image or label instead of skipping it.

    Raises:
        DataError: no images, a class beyond `names`, no usable image, or with `strict` anything bad.
    """
    paths = list_images(config, split)
    labels = [_label_content(path) for path in paths]
    if all(label is None for label in labels):
        raise DataError(
            config.file,
            f"no labels found for '{split}' (first looked for: {label_path(paths[0])})",
            fix="put labels/ beside images/, one txt for each image",
        )
    cache = cache_file(config, split, paths, labels) if use_cache else None
    index = read_cache(cache) if cache else None
    if index is None:
        index = _scan(config, split, paths, labels)
        if cache:
            write_cache(cache, index)
    if strict and index.skipped:
        path, reason = index.skipped[0]
        raise DataError(path, reason, fix="correct it or run without --strict")
    if len(index) == 0:
        path, reason = index.skipped[0]
        raise DataError(config.file, f"no usable image in '{split}' ({path}: {reason})", fix="correct the data set")
    _report(index, split)
    return index


def list_images(config: DataConfig, split: str) -> list[str]:
    """Return all image files of a split, sorted, each once.

    Raises:
        DataError: a path does not exist, or there is no image.
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
        raise DataError(config.file, f"'{split}' has no images in {where}", fix="check the path and the suffixes")
    return sorted(found)


def _listed(entry: ResolvedPath, config: DataConfig) -> list[str]:
    """Return the images of one entry: a glob, a folder with all below it, a txt list, or one image."""
    if entry.pattern:
        return _images(entry.path.glob(entry.pattern))
    if entry.path.is_dir():
        return _images(entry.path.rglob("*"))
    if entry.path.suffix.lower() == ".txt":
        lines = entry.path.read_text(encoding="utf-8-sig").splitlines()
        return [_from_list(line.strip(), entry.path.parent, config.roots) for line in lines if line.strip()]
    return _images([entry.path])


def _label_content(path: str) -> Label:
    """Return what lies where an image's labels should be: bytes, nothing, or the reason why it cannot be read."""
    try:
        return read_label_bytes(label_path(path))
    except DataError as error:
        return error


def _images(candidates: Iterable[Path]) -> list[str]:
    return [str(p) for p in candidates if has_suffix(p, IMAGE_SUFFIXES) and not p.is_dir()]


def _from_list(line: str, folder: Path, roots: Sequence[Path]) -> str:
    """Resolve a line of a txt list: absolute, or relative to the list's folder or the data set's root."""
    for base in (folder, *roots):
        if (base / line).exists():
            return os.path.normpath(base / line)
    return os.path.normpath(folder / line)


def _scan(config: DataConfig, split: str, paths: list[str], labels: list[Label]) -> DatasetIndex:
    """Decode every image and check every label."""

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
    rows = [np.zeros((0, 5), np.float32), *(scanned[i].rows for i in good)]
    outlines = [no_outlines(0), *(scanned[i].outlines for i in good)]
    counted = {
        "outlines": sum(s.polygons for s in scanned),
        "boxes cut at the border": sum(s.clipped for s in scanned),
        "rows without area or standing twice left out": sum(s.dropped for s in scanned),
        "images without a label file": sum(s.missing for s in scanned),
    }
    return DatasetIndex(
        paths=np.array([paths[i] for i in good], dtype=np.str_),
        sizes_hw=np.array([scanned[i].size_hw for i in good], dtype=np.int32).reshape(-1, 2),
        labels=np.concatenate(rows),
        starts=np.cumsum([len(r) for r in rows], dtype=np.int64),
        points=np.concatenate([o.points for o in outlines]),
        point_starts=np.cumsum(np.concatenate([[0], *(np.diff(o.starts) for o in outlines)]), dtype=np.int64),
        skipped=tuple((paths[i], s.error) for i, s in enumerate(scanned) if s.error),
        notes=tuple(f"{count} {what}" for what, count in counted.items() if count),
    )


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
        outlines=parsed.outlines,
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
    LOGGER.info(f"{split}: {len(index)} images, {len(index.labels)} objects{notes}")
    if index.skipped:
        path, reason = index.skipped[0]
        total = len(index) + len(index.skipped)
        LOGGER.warning(f"{len(index.skipped)} of {total} {split} images skipped, the first: {path}: {reason}")
