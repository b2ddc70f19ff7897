"""What would spoil a result and is found without decoding images: shared files, no objects, missing labels.

`prepare.py --check` finds more.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import stat
import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from utils.datasets.config import DataConfig
from utils.datasets.index import DatasetIndex
from utils.datasets.labels import label_path
from utils.datasets.scan import list_images
from utils.errors import DataError
from utils.thresholds import EVAL_MAX_DETECTIONS

HEAD = 4096  # bytes of files of equal size that are compared first
MOST = 0.5  # fraction of a split's images whose label file may be missing


def split_warnings(
    config: DataConfig, evaluated: DatasetIndex, split: str, *, max_detections: int = EVAL_MAX_DETECTIONS
) -> list[str]:
    """Return a line for each thing that would spoil the metrics of a split of a data set.

    `max_detections` is how many of an image the evaluation keeps.
    """
    warnings = []
    count = len(evaluated)
    if not len(evaluated.labels):
        warnings.append(f"{config.file}: '{split}' has no objects in its {count} images; all metrics are 0")
    objects = np.diff(evaluated.starts)
    if split != "train" and (crowded := int((objects > max_detections).sum())):
        warnings.append(
            f"{config.file}: {crowded} images of '{split}' have more than {max_detections} objects (up to "
            f"{objects.max()}), but only {max_detections} detections of an image are evaluated; val.py has --max-det"
        )
    empty = evaluated.paths[objects == 0].tolist()  # an image with objects has a label file
    missing = sum(not os.path.exists(label_path(path)) for path in empty) if len(empty) > MOST * count else 0
    if missing > MOST * count:
        warnings.append(f"{config.file}: {missing} of {count} images of '{split}' have no label file")
    shared = [] if split == "train" else _shared_with_train(config, evaluated)
    if shared:
        warnings.append(
            f"{config.file}: {len(shared)} of {count} images of '{split}' are also in 'train' (the first: "
            f"{shared[0]}), so its metrics are too high; prepare.py lists them with --check"
        )
    return warnings


def _shared_with_train(config: DataConfig, evaluated: DatasetIndex) -> list[str]:
    """Return the images that train also has; none if train cannot be listed."""
    try:
        trained = list_images(config, "train", quiet=True)
    except DataError:
        return []
    return overlapping_images(trained, evaluated.paths.tolist())


def overlapping_images(paths: Sequence[str], evaluated: Sequence[str]) -> list[str]:
    """Return the evaluated images whose file is also among others: the same file, or equal byte for byte."""
    others = _regular_files(paths)
    identities = {(status.st_dev, status.st_ino) for status in others.values()}
    statuses = _regular_files(evaluated)
    same = {path for path, status in statuses.items() if (status.st_dev, status.st_ino) in identities}
    sizes = {path: status.st_size for path, status in statuses.items() if path not in same}
    same |= _equal_files({path: status.st_size for path, status in others.items()}, sizes)
    return [path for path in evaluated if path in same]


def _regular_files(paths: Iterable[str]) -> dict[str, os.stat_result]:
    """Return the status of each path that is, or links to, a regular file."""
    statuses = {}
    for path in paths:
        with contextlib.suppress(OSError, ValueError):  # ValueError: a null byte
            if stat.S_ISREG((status := os.stat(path)).st_mode):
                statuses[path] = status
    return statuses


def _equal_files(sizes: Mapping[str, int], evaluated: Mapping[str, int]) -> set[str]:
    """Return the evaluated files that are equal to one of others, of all of which the sizes are given.

    Only files of equal size are opened, and only those with equal beginnings read whole.
    """
    by_head: dict[tuple[int, int], list[str]] = defaultdict(list)
    evaluated_sizes = set(evaluated.values())
    for path, size in sizes.items():
        if size in evaluated_sizes:
            by_head[size, _checksum(path)].append(path)
    equal = set()
    digests: dict[tuple[int, int], set[bytes]] = {}  # of the files with each beginning that both have
    for path, size in evaluated.items():
        key = (size, _checksum(path))
        if key in by_head:
            if key not in digests:
                digests[key] = set(map(_digest, by_head[key])) - {b""}
            if _digest(path) in digests[key]:
                equal.add(path)
    return equal


def _checksum(path: str) -> int:
    """Return a checksum of a file's beginning; of nothing if it cannot be read."""
    return zlib.crc32(_read(path, HEAD) or b"")


def _digest(path: str) -> bytes:
    """Return a hash of a file's content; b"" if it cannot be read."""
    content = _read(path, -1)
    return b"" if content is None else hashlib.sha256(content).digest()


def _read(path: str, size: int) -> bytes | None:
    """Return the first `size` bytes of a file, or all; None if it cannot be read."""
    try:
        with io.FileIO(path) as file:
            return file.read(size)
    except OSError:  # no permission, or deleted since it was listed
        return None
