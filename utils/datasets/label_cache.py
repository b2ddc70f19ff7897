"""The scan of a split, kept in the user's cache folder until anything it depends on changes."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path

import numpy as np

from utils.datasets.config import DataConfig
from utils.datasets.flat_index import DatasetIndex
from utils.errors import DataError
from utils.files import try_write, user_cache_dir
from utils.log import LOGGER

CACHE_VERSION = 2
Label = bytes | DataError | None


def cache_file(config: DataConfig, split: str, paths: list[str], labels: list[Label]) -> Path:
    """Name the cache by all that the scan depends on: label contents, image files, class count, code version."""
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


def write_cache(file: Path, index: DatasetIndex) -> None:
    """Keep the scan, and remove this split's older ones. A cache that cannot be written is only mentioned."""
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        paths=index.paths,
        sizes_hw=index.sizes_hw,
        labels=index.labels,
        starts=index.starts,
        points=index.points,
        point_starts=index.point_starts,
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


def read_cache(file: Path) -> DatasetIndex | None:
    """Return the kept scan, or None when there is none or it is damaged. Arrays only: no objects are ever loaded."""
    try:
        with np.load(file, allow_pickle=False) as stored:
            index = DatasetIndex(
                paths=stored["paths"],
                sizes_hw=stored["sizes_hw"],
                labels=stored["labels"],
                starts=stored["starts"],
                points=stored["points"],
                point_starts=stored["point_starts"],
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
    arrays = (index.paths, index.sizes_hw, index.labels, index.starts, index.points, index.point_starts)
    if index.paths.ndim != 1 or [array.dtype.kind for array in arrays] != [*"Uififi"]:
        return False
    count = len(index.paths)
    return (
        index.sizes_hw.shape == (count, 2)
        and index.starts.shape == (count + 1,)
        and _is_rising(index.starts)
        and index.labels.shape == (index.starts[-1], 5)
        and index.point_starts.shape == (len(index.labels) + 1,)
        and _is_rising(index.point_starts)
        and index.points.shape == (index.point_starts[-1], 2)
        and bool(np.isfinite(index.labels).all() and np.isfinite(index.points).all())
    )


def _is_rising(starts: np.ndarray) -> bool:
    return starts[0] == 0 and bool((np.diff(starts) >= 0).all())
