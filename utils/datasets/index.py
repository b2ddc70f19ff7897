"""The index of a split in flat arrays: built by one scan, and cached until anything it depends on changes."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from utils.datasets.config import PREPARE, DataConfig
from utils.datasets.labels import LabelContent, label_path, misplaced_labels, read_label_content
from utils.datasets.polygons import empty_polygons
from utils.datasets.scan import ScannedImage, list_images, scan_images
from utils.errors import ConfigError, DataError
from utils.files import try_write, user_cache_dir
from utils.log import LOGGER
from utils.structures import Polygons

CACHE_VERSION = 2
FRACTION_KEY = 2**32 - 1  # apart from the epochs, with which the seed gives the order of the images


@dataclass(frozen=True, kw_only=True)
class DatasetIndex:
    """One split in flat arrays, which worker processes can share without copying.

    Coordinates are normalized by the image size. `points` are those of the polygons of all rows, (p, 2) float32; row j
    has points point_starts[j] to point_starts[j + 1], none if it was a box.
    """

    paths: np.ndarray  # (n,) str, the images, sorted
    sizes_hw: np.ndarray  # (n, 2) int32, height and width after EXIF orientation
    labels: np.ndarray  # (m, 5) float32: class, cx, cy, w, h; all images concatenated
    starts: np.ndarray  # (n + 1,) int64: image i has rows starts[i] to starts[i + 1]
    points: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.float32))
    point_starts: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))
    skipped: tuple[tuple[str, str], ...] = ()  # path and reason of each image that was skipped
    notes: tuple[str, ...] = ()  # what was corrected in the labels, with counts, in words

    def __len__(self) -> int:
        """Return the number of usable images."""
        return len(self.paths)

    def rows(self, index: int) -> np.ndarray:
        """Return the (k, 5) label rows of one image."""
        return self.labels[self.starts[index] : self.starts[index + 1]]

    def polygons(self, index: int) -> Polygons | None:
        """Return the polygons of one image's rows, normalized; None if the split has only boxes."""
        if not len(self.points):
            return None
        starts = self.point_starts[self.starts[index] : self.starts[index + 1] + 1]
        return Polygons(points=self.points[starts[0] : starts[-1]], starts=starts - starts[0])

    def subset(self, image_ids: np.ndarray) -> DatasetIndex:
        """Return the split with some of its images only, (k,) indices in the order that they get."""
        rows, starts = _select_ranges(self.starts, image_ids)
        points, point_starts = _select_ranges(self.point_starts, rows)
        return replace(
            self,
            paths=self.paths[image_ids],
            sizes_hw=self.sizes_hw[image_ids],
            labels=self.labels[rows],
            starts=starts,
            points=self.points[points],
            point_starts=point_starts,
        )

    def fraction(self, fraction: float, *, seed: int) -> DatasetIndex:
        """Return a fraction of the images, in (0, 1] and rounded to whole images, drawn by a seed.

        The draw depends on nothing but the seed and the number and order of the images. A larger fraction contains the
        images of a smaller one. A ConfigError is raised if no image or no object is left.
        """
        if fraction == 1:
            return self
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, FRACTION_KEY))))
        drawn = np.argsort(rng.random(len(self)), kind="stable")[: round(len(self) * fraction)]
        index = self.subset(np.sort(drawn))
        if not len(index.labels):
            what = f"{fraction:g} leaves {len(index)} of {len(self)} images, without objects (seed {seed})"
            raise ConfigError("--fraction", what, fix="pass a larger one")
        return index

    def fingerprint(self) -> str:
        """Return a hash of file names, sizes, labels and polygons: equal for equal data sets in any folder."""
        digest = hashlib.sha256()
        for path in self.paths:
            digest.update(os.path.basename(path).encode("utf-8", "surrogateescape") + b"\0")
        polygons = (self.points, self.point_starts) if len(self.points) else ()
        for array in (self.sizes_hw, self.labels, self.starts, *polygons):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def _select_ranges(starts: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return all positions from starts[i] to starts[i + 1] of the chosen i, and where those of each begin there."""
    counts = starts[chosen + 1] - starts[chosen]
    new_starts = np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))
    return np.arange(new_starts[-1]) + np.repeat(starts[chosen] - new_starts[:-1], counts), new_starts


def build_index(config: DataConfig, split: str, *, use_cache: bool = True, strict: bool = False) -> DatasetIndex:
    """Scan a split, or read the cached scan if nothing has changed; the data set itself is never written to.

    Raises:
        DataError: no images, a class id beyond `names`, no usable image, or with `strict` any bad image or label.
    """
    paths = list_images(config, split)
    labels = [read_label_content(path) for path in paths]
    if all(label is None for label in labels):
        what = f"no labels found for '{split}' (the first expected file is {label_path(paths[0])})"
        misplaced = misplaced_labels(paths[0])
        fix = f"rename {misplaced} to labels, beside a folder named images" if misplaced else ""
        fix = fix or f"put labels/ beside images/, one txt for each image, or prepare the folder with `{PREPARE}`"
        raise DataError(config.file, what, fix=fix)
    _warn_about_common_labels(paths, split)
    cache = cache_file(config, split, paths, labels) if use_cache else None
    index = read_cache(cache) if cache else None
    if index is None:
        index = _concatenate(paths, scan_images(config, split, paths, labels))
        if cache:
            write_cache(cache, index)
    if strict and index.skipped:
        path, reason = index.skipped[0]
        raise DataError(path, reason, fix="correct it or run without --strict")
    if len(index) == 0:
        path, reason = index.skipped[0]
        raise DataError(config.file, f"no usable image in '{split}' ({path}: {reason})", fix="correct the data set")
    _log_summary(index, split)
    return index


def _warn_about_common_labels(paths: Sequence[str], split: str) -> None:
    """Warn about images whose names differ only in the suffix, since they have the same label file."""
    first: dict[str, str] = {}
    common = [(path, other) for path in paths if (other := first.setdefault(os.path.splitext(path)[0], path)) != path]
    if common:
        path, other = common[0]
        LOGGER.warning(f"{split}: {len(common)} images have the label file of another: {path} that of {other}")


def _concatenate(paths: Sequence[str], scanned: Sequence[ScannedImage]) -> DatasetIndex:
    """Join scanned images into an index, without those that have errors."""
    usable = [i for i, image in enumerate(scanned) if not image.error]
    rows = [np.zeros((0, 5), np.float32), *(scanned[i].labels.rows for i in usable)]
    polygons = [empty_polygons(0), *(scanned[i].labels.polygons for i in usable)]
    counts = {
        "polygons": sum(image.labels.num_polygons for image in scanned),
        "boxes clipped to the image": sum(image.labels.clipped for image in scanned),
        "duplicate rows or rows without area dropped": sum(image.labels.dropped for image in scanned),
        "images without a label file": sum(not image.has_label_file for image in scanned),
    }
    return DatasetIndex(
        paths=np.array([paths[i] for i in usable], dtype=np.str_),
        sizes_hw=np.array([scanned[i].size_hw for i in usable], dtype=np.int32).reshape(-1, 2),
        labels=np.concatenate(rows),
        starts=np.cumsum([len(r) for r in rows], dtype=np.int64),
        points=np.concatenate([p.points for p in polygons]),
        point_starts=np.cumsum(np.concatenate([[0], *(np.diff(p.starts) for p in polygons)]), dtype=np.int64),
        skipped=tuple((paths[i], image.error) for i, image in enumerate(scanned) if image.error),
        notes=tuple(f"{count} {what}" for what, count in counts.items() if count),
    )


def _log_summary(index: DatasetIndex, split: str) -> None:
    """Log what was found and corrected, and how many images were skipped."""
    notes = f"; {', '.join(index.notes)}" if index.notes else ""
    LOGGER.info(f"{split}: {len(index)} images, {len(index.labels)} objects{notes}")
    if index.skipped:
        path, reason = index.skipped[0]
        total = len(index) + len(index.skipped)
        LOGGER.warning(f"{split}: skipped {len(index.skipped)} of {total} images; the first: {path}: {reason}")


def cache_file(config: DataConfig, split: str, paths: Sequence[str], labels: Sequence[LabelContent]) -> Path:
    """Return the cache's path, a hash of all that a scan depends on: labels, image files, class count, code version."""
    digest = hashlib.sha256(f"{CACHE_VERSION} {config.num_classes} {config.file}".encode("utf-8", "surrogateescape"))
    for path, label in zip(paths, labels, strict=True):
        try:
            status = os.stat(path)
            state = f"{status.st_size} {status.st_mtime_ns} {status.st_ino}"
        except OSError:
            state = ""
        content = label if isinstance(label, bytes) else str(label).encode("utf-8", "surrogateescape")
        kind = f"{path}\0{state} {type(label).__name__} {len(content)}\0"
        digest.update(kind.encode("utf-8", "surrogateescape") + content)
    key = hashlib.sha256(f"{config.file.resolve()} {split}".encode("utf-8", "surrogateescape")).hexdigest()[:12]
    return user_cache_dir() / "labels" / f"{split}-{key}-{digest.hexdigest()[:24]}.npz"


def write_cache(file: Path, index: DatasetIndex) -> None:
    """Write the index to the cache and remove this split's older ones. Failure to write is only a warning."""
    buffer = io.BytesIO()
    texts = {"skipped": np.array(index.skipped, np.str_).reshape(-1, 2), "notes": np.array(index.notes, np.str_)}
    np.savez_compressed(buffer, **{**vars(index), **texts})
    error = try_write(file, buffer.getvalue())
    if error is not None:
        LOGGER.warning(f"labels are not cached: {error.where}: {error.what}; set XDG_CACHE_HOME to a writable folder")
        return
    prefix = file.name.rsplit("-", 1)[0]
    for old in file.parent.glob(f"{prefix}-*.npz"):
        if old != file:
            old.unlink(missing_ok=True)


def read_cache(file: Path) -> DatasetIndex | None:
    """Return the cached index, or None if there is none or it is damaged. Pickled objects are never loaded."""
    try:
        with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as stored:
            arrays = dict(stored)
        skipped, notes = arrays["skipped"], arrays["notes"]
        if (skipped.dtype.kind, skipped.shape[1:], notes.dtype.kind, notes.ndim) != ("U", (2,), "U", 1):
            raise ValueError("texts of another shape")
        texts = {"skipped": tuple(map(tuple, skipped.tolist())), "notes": tuple(notes.tolist())}
        index = DatasetIndex(**{**arrays, **texts})
    except (FileNotFoundError, NotADirectoryError):
        return None
    except Exception as error:
        LOGGER.warning(f"label cache {file} is damaged ({type(error).__name__}); scanning again")
        return None
    if not _is_consistent(index):
        LOGGER.warning(f"label cache {file} is damaged (inconsistent arrays); scanning again")
        return None
    return index


def _is_consistent(index: DatasetIndex) -> bool:
    """Return whether the types, shapes and ranges of all arrays fit together."""
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
        and bool((index.sizes_hw > 0).all() and np.isfinite(index.labels).all())
        and bool((index.labels[:, 0] >= 0).all() and (index.labels[:, 0] % 1 == 0).all())
        and _is_normalized(index.labels[:, 1:])
        and _is_normalized(index.points)
    )


def _is_normalized(values: np.ndarray) -> bool:
    return bool(((values >= 0) & (values <= 1)).all())


def _is_rising(starts: np.ndarray) -> bool:
    return starts[0] == 0 and bool((np.diff(starts) >= 0).all())
