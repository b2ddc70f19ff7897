"""List the images of a split, decode each once, and parse its labels."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from utils.datasets.config import DataConfig, ResolvedPath
from utils.datasets.images import IMAGE_SUFFIXES, has_suffix, read_image
from utils.datasets.labels import LabelContent, LabelFile, label_path, parse_labels
from utils.errors import DataError

SCAN_THREADS = 4
MIN_IMAGE_SIZE = 10


@dataclass(frozen=True, kw_only=True)
class ScannedImage:
    """The result of scanning one image."""

    size_hw: tuple[int, int] = (0, 0)  # height and width after EXIF orientation
    labels: LabelFile = field(default_factory=LabelFile)
    error: str = ""  # the reason to skip the image
    has_label_file: bool = True


def list_images(config: DataConfig, split: str) -> list[str]:
    """Return all image files of a split, sorted, without duplicates; a DataError if there are none."""
    images: set[str] = set()
    resolved = config.locate(split)
    for entry in resolved:
        try:
            images.update(_list_entry(entry, config))
        except (OSError, ValueError) as error:  # ValueError: an invalid glob, or a list that is not UTF-8
            path = entry.path / entry.pattern
            raise DataError(config.file, f"'{split}' cannot be read from {path} ({error})", fix="correct it") from error
    if not images:
        places = ", ".join(str(entry.path / entry.pattern) for entry in resolved)
        raise DataError(config.file, f"'{split}' has no images in {places}", fix="check the path and the suffixes")
    return sorted(images)


def _list_entry(entry: ResolvedPath, config: DataConfig) -> list[str]:
    """Return the images of one entry: a glob, a folder and all below it, a txt list, or one image."""
    if entry.pattern:
        return _image_files(entry.path.glob(entry.pattern))
    if entry.path.is_dir():
        return _image_files(entry.path.rglob("*"))
    if entry.path.suffix.lower() == ".txt":
        lines = entry.path.read_text(encoding="utf-8-sig").splitlines()
        return [_resolve(line.strip(), entry.path.parent, config.roots) for line in lines if line.strip()]
    return _image_files([entry.path])


def _image_files(candidates: Iterable[Path]) -> list[str]:
    return [str(p) for p in candidates if has_suffix(p, IMAGE_SUFFIXES) and not p.is_dir()]


def _resolve(line: str, folder: Path, roots: Sequence[Path]) -> str:
    """Resolve a line of a txt list: absolute, or relative to the list's folder or the data set's root."""
    for base in (folder, *roots):
        if (base / line).exists():
            return os.path.normpath(base / line)
    return os.path.normpath(folder / line)


def scan_images(
    config: DataConfig, split: str, paths: Sequence[str], labels: Sequence[LabelContent]
) -> list[ScannedImage]:
    """Decode every image and parse every label file; a class id beyond the data yaml's `names` is a DataError."""
    with ThreadPoolExecutor(SCAN_THREADS) as pool:
        scans = pool.map(functools.partial(_scan_image, config=config), paths, labels)
        return list(tqdm(scans, total=len(paths), desc=f"Scanning {split}", leave=False))


def _scan_image(path: str, label: LabelContent, *, config: DataConfig) -> ScannedImage:
    try:
        height, width = read_image(path).shape[:2]
    except DataError as error:
        return ScannedImage(error=error.what)
    if min(height, width) < MIN_IMAGE_SIZE:
        return ScannedImage(error=f"is too small ({width}x{height} pixels)")
    if isinstance(label, DataError):
        return ScannedImage(error=f"{label.where}: {label.what}")
    if label is None:
        return ScannedImage(size_hw=(height, width), has_label_file=False)
    parsed = parse_labels(label, num_classes=config.num_classes)
    if not parsed.problems:
        return ScannedImage(size_hw=(height, width), labels=parsed)
    problem = parsed.problems[0]
    where = f"{label_path(path)}:{problem.line}"
    if problem.is_class_range:
        what = f"{problem.what} (nc={config.num_classes} in {config.file})"
        raise DataError(where, what, fix="correct the row or add names")
    if problem.column:
        where += f":{problem.column}"
    return ScannedImage(error=f"{where}: {problem.what}")
