"""One scanned split in flat arrays: what dataset, loader and caches go by."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field

import numpy as np

from utils.structures import Polygons


@dataclass(frozen=True, kw_only=True)
class DatasetIndex:
    """One split in flat arrays, which worker processes can share without copying.

    Attributes:
        paths: (n,) str, the images, sorted.
        sizes_hw: (n, 2) int32, height and width after EXIF orientation.
        labels: (m, 5) float32: class, cx, cy, w, h as shares of the image, of all images one after another.
        starts: (n + 1,) int64: image i has rows starts[i] to starts[i + 1].
        points: (p, 2) float32: the outlines' points as shares of the image, of all rows one after another.
        point_starts: (m + 1,) int64: row j has points point_starts[j] to point_starts[j + 1], none if it was a box.
        skipped: path and reason of each image left out.
        notes: what was mended in the labels, in words.
    """

    paths: np.ndarray
    sizes_hw: np.ndarray
    labels: np.ndarray
    starts: np.ndarray
    points: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.float32))
    point_starts: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))
    skipped: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Return the number of usable images."""
        return len(self.paths)

    def rows(self, index: int) -> np.ndarray:
        """Return the (k, 5) label rows of one image."""
        return self.labels[self.starts[index] : self.starts[index + 1]]

    def outlines(self, index: int) -> Polygons | None:
        """Return the outlines of one image's rows, points as shares of it; None if the split has only boxes."""
        if not len(self.points):
            return None
        starts = self.point_starts[self.starts[index] : self.starts[index + 1] + 1]
        return Polygons(points=self.points[starts[0] : starts[-1]], starts=starts - starts[0])

    def fingerprint(self) -> str:
        """Return a hash of names, sizes, labels and outlines: equal for equal data sets wherever they lie."""
        digest = hashlib.sha256()
        for path in self.paths:
            digest.update(os.path.basename(path).encode("utf-8", "surrogateescape") + b"\0")
        outlines = (self.points, self.point_starts) if len(self.points) else ()
        for array in (self.sizes_hw, self.labels, self.starts, *outlines):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()
