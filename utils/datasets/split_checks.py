"""What would spoil a result and is found without decoding images: shared files, no objects, missing labels.

`prepare.py --check` finds more.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

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
    missing = sum(not os.path.exists(label_path(str(path))) for path in evaluated.paths)
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
    return overlapping_images(trained, [str(path) for path in evaluated.paths])


def overlapping_images(paths: Sequence[str], evaluated: Sequence[str]) -> list[str]:
    """Return the evaluated images whose file is also among others: the same file, or equal byte for byte."""
    files = set(map(os.path.realpath, paths))
    copies = _equal_files(paths, [path for path in evaluated if os.path.realpath(path) not in files])
    return [path for path in evaluated if path in copies or (os.path.realpath(path) in files and os.path.isfile(path))]


def _equal_files(paths: Sequence[str], evaluated: Sequence[str]) -> set[str]:
    """Return the evaluated files that are equal to one of others; only those with equal beginnings are read whole."""
    by_head: dict[bytes, list[str]] = defaultdict(list)
    sizes = {_size(path) for path in evaluated}
    for path in paths:
        if (size := _size(path)) in sizes:
            by_head[_digest(path, size, head=True)].append(path)
    equal = set()
    digests: dict[bytes, set[bytes]] = {}  # of the files with each head that both have
    for path in evaluated:
        size = _size(path)
        head = _digest(path, size, head=True)
        if head and head in by_head:
            if head not in digests:
                digests[head] = {_digest(other, size, head=False) for other in by_head[head]} - {b""}
            if _digest(path, size, head=False) in digests[head]:
                equal.add(path)
    return equal


def _size(path: str) -> int | None:
    """Return the size of a regular file in bytes, else None."""
    return os.path.getsize(path) if os.path.isfile(path) else None


def _digest(path: str, size: int | None, *, head: bool) -> bytes:
    """Return a hash of a file's size and content, or of its first bytes; b"" if it cannot be read."""
    if size is None:
        return b""
    try:
        with Path(path).open("rb") as file:
            return hashlib.sha256(f"{size} ".encode() + file.read(HEAD if head else -1)).digest()
    except OSError:  # no permission, or deleted since it was listed
        return b""
