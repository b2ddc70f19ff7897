"""Caches of decoded images at training size, in memory or on disk. They change the speed, never the images."""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np

from utils.datasets.images import map_in_threads, read_image
from utils.datasets.index import DatasetIndex
from utils.datasets.letterbox import resize_longest_side, scaled_size
from utils.errors import DetectorError
from utils.files import free_bytes, try_write, user_cache_dir
from utils.log import LOGGER

DISK_VERSION = 1
USABLE_DISK_FRACTION = 0.9
_HEADER = np.dtype("<u4")  # height and width before the pixels


class ImageCache:
    """Decoded images in memory; the least recently used are dropped."""

    def __init__(self, max_bytes: int) -> None:
        """Cache at most `max_bytes` of pixels; 0 caches nothing."""
        self.max_bytes = max_bytes
        self._images: OrderedDict[int, np.ndarray] = OrderedDict()
        self._bytes = 0

    def get(self, index: int, load: Callable[[int], np.ndarray]) -> np.ndarray:
        """Return image `index` as a read-only array, calling `load` if it is not cached."""
        image = self._images.get(index)
        if image is not None:
            self._images.move_to_end(index)
            return image
        image = load(index)
        image.flags.writeable = False
        if image.nbytes <= self.max_bytes:
            self._images[index] = image
            self._bytes += image.nbytes
            while self._bytes > self.max_bytes:
                self._bytes -= self._images.popitem(last=False)[1].nbytes
        return image


class DiskCache:
    """Decoded images of one split at one size, one file each, in the user's cache folder.

    A file is named by the hash of the image file's content, so that a changed image never matches an old file.
    """

    def __init__(self, folder: Path, names: np.ndarray, sizes_hw: np.ndarray) -> None:
        """Refer to image i, of `sizes_hw[i]`, in the file `names[i]`; both are arrays, which processes share."""
        self.folder = folder
        self._names = names
        self._sizes_hw = sizes_hw

    def load(self, index: int) -> np.ndarray | None:
        """Return image `index`, (H, W, 3) uint8, or None if it is missing or damaged."""
        try:
            data = np.fromfile(self.folder / self._names[index].decode(), np.uint8)
        except OSError:
            return None
        height, width = self._sizes_hw[index].tolist()
        if len(data) != 8 + height * width * 3 or data[:8].view(_HEADER).tolist() != [height, width]:
            return None
        return data[8:].reshape(height, width, 3)


def prepare_disk_cache(index: DatasetIndex, *, image_size: int, smooth: bool = False) -> DiskCache | None:
    """Decode the images of a split that are not cached yet, and remove outdated files; see `resize_longest_side`.

    The disk space needed is logged first. If there is too little, the result is None, with a warning.
    """
    folder = _folder(index, image_size, smooth=smooth)
    square = (image_size, image_size)
    sizes_hw = np.array([scaled_size((int(h), int(w)), square) for h, w in index.sizes_hw], np.int32)
    cached = _file_sizes(folder)
    needed = int(sizes_hw.prod(1, dtype=np.int64).sum() * 3 + 8 * len(index))
    free = free_bytes(folder)
    LOGGER.info(
        f"--cache disk: {needed / 1e9:.2f} GB of images in {folder}, {sum(cached.values()) / 1e9:.2f} GB cached, "
        f"{free / 1e9:.1f} GB free"
    )
    if needed > sum(cached.values()) + USABLE_DISK_FRACTION * free:
        LOGGER.warning("--cache disk: not enough disk space; images are decoded in every epoch")
        return None
    names = np.zeros(len(index), "S32")
    cache = DiskCache(folder, names, sizes_hw)

    def fill(i: int) -> DetectorError | None:
        path = str(index.paths[i])
        try:
            names[i] = hashlib.sha256(Path(path).read_bytes()).hexdigest()[:32].encode()
            if cached.get(names[i].decode()) == 8 + 3 * int(sizes_hw[i].prod()):
                return None
            image = resize_longest_side(read_image(path), image_size, smooth=smooth)
        except (OSError, DetectorError):  # deleted since the scan; the next read reports it
            return None
        header = np.array(image.shape[:2], _HEADER).tobytes()
        return try_write(folder / names[i].decode(), header + image.tobytes())

    results = map_in_threads(fill, range(len(index)), "Caching images")
    errors = [error for error in results if error is not None]
    if errors:
        LOGGER.warning(f"--cache disk: {len(errors)} images not cached; the first: {errors[0]}")
    for stale in cached.keys() - {name.decode() for name in names}:
        (folder / stale).unlink(missing_ok=True)
    return cache


def _folder(index: DatasetIndex, image_size: int, *, smooth: bool) -> Path:
    """Return a folder named by the location of the images, so that a changed data set replaces its old files."""
    parents = sorted({os.path.dirname(os.path.abspath(path)) for path in index.paths})
    key = hashlib.sha256("\0".join(parents).encode("utf-8", "surrogateescape")).hexdigest()[:12]
    kind = "-smooth" if smooth else ""
    return user_cache_dir() / "images" / f"{image_size}{kind}-v{DISK_VERSION}-{key}"


def _file_sizes(folder: Path) -> dict[str, int]:
    try:
        return {entry.name: entry.stat().st_size for entry in os.scandir(folder) if entry.is_file()}
    except OSError:
        return {}
