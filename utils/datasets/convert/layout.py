"""What all converters read and write: files by name, label files, a data yaml, and a report of what was skipped."""

from __future__ import annotations

import io
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

from PIL import Image

from utils.errors import DataError

Files = Mapping[str, Callable[[], bytes]]  # functions that read a file, by relative name with `/`, in a fixed order
FileEntry = tuple[str, bytes]
Row = tuple[int, Sequence[float]]
# Words in names of files and folders that begin or end like a split, but are not one.
_NO_SPLITS = "constrain contest festival interval latest strain valley valleys value values valve valves".split()


class ConversionReport(Counter[str]):
    """Counts of what a conversion wrote and skipped, by description."""

    def __str__(self) -> str:
        """Return all counts in one line."""
        return ", ".join(f"{count} {description}" for description, count in self.items() if count)


def files_below(folder: Path) -> Files:
    """Return the files below a folder, without hidden ones; DataError if there are none, or one cannot be read."""
    paths = [Path(root) / name for root, _, names in os.walk(folder) for name in names if not name.startswith(".")]
    if not paths:
        raise DataError(folder, "is not a folder with files", fix="check the path")
    readers = {path.relative_to(folder).as_posix(): partial(_read, path) for path in paths}
    return dict(sorted(readers.items()))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror})", fix="check permissions") from error


def box_row(class_id: int, box_xyxy: Sequence[float], size_wh: tuple[float, float]) -> Row | None:
    """Return the label row of a box in pixels, clipped to the image; None if nothing is left."""
    width, height = size_wh
    x1, x2 = (min(max(v / width, 0.0), 1.0) for v in box_xyxy[::2])
    y1, y2 = (min(max(v / height, 0.0), 1.0) for v in box_xyxy[1::2])
    if not (x2 > x1 and y2 > y1):  # NaN too
        return None
    return class_id, ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)


def label_text(rows: Iterable[Row]) -> bytes:
    """Return the content of a label file: class id and normalized values in each line."""
    return "".join(f"{class_id} {' '.join(f'{value:.6g}' for value in values)}\n" for class_id, values in rows).encode()


def label_entry(image_of: dict[str, str], target: str, rows: Iterable[Row], *, image: str, where: str) -> FileEntry:
    """Return name and content of the label file of one image.

    Args:
        image_of: the images by label file, to which this one is added.
        target: path of the image below `images` in the result.
        rows: the image's labels.
        image: name of the image in messages.
        where: the annotation file, for messages.

    Raises:
        DataError: it is the file of another image, for example if the names differ in the suffix only.
    """
    label_file = str(PurePosixPath("labels", target).with_suffix(".txt"))
    if label_file in image_of:
        what = f"{image!r} would overwrite the labels of {image_of[label_file]!r} ({label_file})"
        raise DataError(where, what, fix="rename one of the images, or name it once")
    image_of[label_file] = image
    return label_file, label_text(rows)


def image_size(data: bytes, where: str) -> tuple[int, int]:
    """Return width and height from an image's header; DataError if it is not an image."""
    try:
        with Image.open(io.BytesIO(data)) as header:
            return header.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(where, f"is not an image ({error})", fix="replace the file") from error


def with_data_yaml(entries: Iterable[FileEntry], names: Sequence[str]) -> Iterator[FileEntry]:
    """Yield the entries, then a data yaml whose splits are the image folders named train..., val..., test..."""
    folders: dict[str, None] = {}
    for name, content in entries:
        parts = name.split("/")[:-1]
        if "images" in parts:
            folders["/".join(parts[: parts.index("images") + 2])] = None  # deeper folders are found from there
        yield name, content
    splits: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for folder in folders:  # its split is that of the last part of its path that names one
        splits[next(filter(None, map(split_in, reversed(folder.split("/")))), "train")].append(folder)
    splits["val"] = splits["val"] or splits["test"] or splits["train"]
    lines = ["path: .", *(f"{split}: {json.dumps(paths)}" for split, paths in splits.items() if paths), "names:"]
    lines += [f"  {class_id}: {json.dumps(name, ensure_ascii=False)}" for class_id, name in enumerate(names)]
    yield "data.yaml", ("\n".join(lines) + "\n").encode()


def split_in(name: str) -> str:
    """Return the split in a name, or "": that of the first word that starts or ends with train, val or test.

    For example, `trainval2017` is train, `valid` and `minival2014` are val, `VisDrone2019-DET-test-dev` is test.
    """
    for word in re.findall("[a-z]+", name.lower()):
        for split in ("train", "val", "test"):
            if (word.startswith(split) or word.endswith(split)) and word not in _NO_SPLITS:
                return split
    return ""
