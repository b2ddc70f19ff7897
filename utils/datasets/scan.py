"""List the images of a split, read each once, and parse its labels."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from utils.datasets.config import PREPARE, DataConfig
from utils.datasets.image_size import intact_size
from utils.datasets.images import IMAGE_SUFFIXES, has_suffix, map_in_threads, read_image, read_image_file
from utils.datasets.labels import LabelContent, LabelFile, label_path, parse_labels
from utils.datasets.paths import (
    ResolvedPath,
    find_files,
    is_hidden_copy,
    nearest_existing,
    readings,
    suffix_counts,
    unread_files,
)
from utils.errors import DataError
from utils.files import decode_text
from utils.log import LOGGER

MIN_IMAGE_SIZE = 10
MAX_LIST_BYTES = 300_000_000


@dataclass(frozen=True, kw_only=True)
class ScannedImage:
    """The result of scanning one image."""

    size_hw: tuple[int, int] = (0, 0)  # height and width after EXIF orientation
    labels: LabelFile = field(default_factory=LabelFile)
    error: str = ""  # the reason to skip the image
    has_label_file: bool = True


@dataclass(kw_only=True)
class _Listing:
    """What an entry of a split contains."""

    images: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)  # hidden images and folders
    unread: list[str] = field(default_factory=list)  # files whose suffix is not that of an image that can be read


def list_images(config: DataConfig, split: str, *, quiet: bool = False) -> list[str]:
    """Return all image files of a split, sorted, without duplicates, and log what is left out unless `quiet`.

    A DataError is raised if there are none, or if an entry cannot be read.
    """
    found = _Listing()
    resolved = config.locate(split)
    for entry in resolved:
        try:
            listing = _list_entry(entry, config, split)
        except (OSError, ValueError) as error:  # ValueError: an invalid glob
            path = entry.path / entry.pattern
            raise DataError(config.file, f"'{split}' cannot be read from {path} ({error})", fix="correct it") from error
        for name, paths in vars(listing).items():
            getattr(found, name).extend(paths)
    images = sorted(set(found.images))
    if not images:
        places = ", ".join(str(entry.path / entry.pattern) for entry in resolved)
        others = f", only {suffix_counts(found.unread)}" if found.unread else ""
        fix = "check the path and the suffixes"
        raise DataError(config.file, f"'{split}' has no images in {places}{others}", fix=fix)
    if quiet:
        return images
    if found.unread:
        LOGGER.warning(f"{split}: left out {suffix_counts(found.unread)}; these suffixes are not read")
    if found.hidden:
        LOGGER.info(f"{split}: left out {len(found.hidden)} hidden files or folders; the first: {min(found.hidden)}")
    if repeated := len(found.images) - len(images):
        first = min(path for path, count in Counter(found.images).items() if count > 1)
        LOGGER.warning(f"{split}: {repeated} images are listed more than once, and used once; the first: {first}")
    return images


def _list_entry(entry: ResolvedPath, config: DataConfig, split: str) -> _Listing:
    """Return the content of one entry: a glob, a folder and all below it, a txt list, or one image."""
    if entry.pattern or entry.path.is_dir():
        found = find_files(entry)
        hidden = [path for path in found.hidden if has_suffix(path, IMAGE_SUFFIXES) or os.path.isdir(path)]
        images = [path for path in found.files if has_suffix(path, IMAGE_SUFFIXES)]
        return _Listing(images=images, hidden=hidden, unread=unread_files(found.files, IMAGE_SUFFIXES))
    if entry.path.suffix.lower() == ".txt":
        return _read_list(entry.path, config)
    if not has_suffix(entry.path, IMAGE_SUFFIXES):
        what = f"'{split}' is neither a folder nor an image nor a .txt list ({entry.path})"
        raise DataError(config.file, what, fix=f"convert other formats with `{PREPARE}`")
    return _Listing(images=[str(entry.path)])


def _read_list(file: Path, config: DataConfig) -> _Listing:
    """Return the images that a txt list names; those that do not exist are included, and skipped by the scan.

    Lines are absolute or relative to the list, the data set's root, or the working directory. Empty lines and comments
    (`# ...`, unless there is such a file) do not count.

    Raises:
        DataError: the list is too large or not text, or none of its images exists.
    """
    if (size := file.stat().st_size) > MAX_LIST_BYTES:
        raise DataError(file, f"is too large for a list of images ({size} bytes)", fix="pass the right file")
    data = file.read_bytes()
    try:
        text = decode_text(data)
    except UnicodeDecodeError:
        text = os.fsdecode(data)  # the names of files need not be UTF-8
    folders = list(dict.fromkeys(map(str, (file.parent, *config.roots, Path.cwd()))))
    if "\0" in text:
        raise DataError(file, "is not UTF-8 text (it has null bytes)", fix="save it as UTF-8")
    lines = [line for line in map(str.strip, text.splitlines()) if line]
    listing, missing = _Listing(), []
    for line in lines:
        path = _find_listed(line, folders)
        if is_hidden_copy(path or line):
            listing.hidden.append(path or line)
        elif path:
            listing.images.append(path)
        elif not line.startswith("#"):
            missing.append(line)
    if missing and not listing.images:
        nearest = nearest_existing(missing[0], [], folders)
        fix = f"did you mean {nearest}?" if nearest else "write one path per line, relative to the list"
        raise DataError(file, f"none of the {len(missing)} listed images exists (first: {missing[0]})", fix=fix)
    listing.images += [os.path.normpath(file.parent / line) for line in missing]
    return listing


def _find_listed(line: str, folders: Sequence[str]) -> str:
    """Return the existing path that a line of a list means, or ""."""
    for folder in folders:
        for path in dict.fromkeys(readings(line, folder)):
            if os.path.exists(path):
                plain = os.path.normpath(path)
                return plain if os.path.exists(plain) else path  # `..` after a link leads elsewhere
    return ""


def scan_images(
    config: DataConfig, split: str, paths: Sequence[str], labels: Sequence[LabelContent]
) -> list[ScannedImage]:
    """Check every image and parse every label file; a class id beyond the data yaml's `names` is a DataError.

    Files that are intact are recognised in one thread, since most of that is Python code, and the others decoded.
    """
    sizes = [_intact_size(path) for path in tqdm(paths, desc=f"Scanning {split}", leave=False, disable=None)]
    doubtful = [path for path, size in zip(paths, sizes, strict=True) if size is None]
    decoded = iter(map_in_threads(_decoded_size, doubtful, f"Decoding {split}"))
    pairs = zip(paths, labels, (size or next(decoded) for size in sizes), strict=True)
    return [_scan_labels(path, label, size, config) for path, label, size in pairs]


def _intact_size(path: str) -> tuple[int, int] | None:
    try:
        return intact_size(read_image_file(path))
    except DataError:
        return None


def _decoded_size(path: str) -> tuple[int, int] | DataError:
    try:
        height, width = read_image(path).shape[:2]
    except DataError as error:
        return error
    return height, width


def _scan_labels(path: str, label: LabelContent, size: tuple[int, int] | DataError, config: DataConfig) -> ScannedImage:
    """Join the size of an image and its labels; the image is left out if either has an error."""
    if isinstance(size, DataError):
        return ScannedImage(error=size.what)
    height, width = size
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
