"""What all converters write: label rows as text, a data yaml, and what was left out, in words."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath

from PIL import Image

from utils.errors import DataError

FileEntry = tuple[str, bytes]
Row = tuple[int, Sequence[float]]
# Words that files and folders may well be called, and that begin or end like a split.
_NO_SPLITS = frozenset(
    "constrain contest festival interval latest strain valley valleys value values valve valves".split()
)


class ConversionReport(Counter[str]):
    """What a conversion met, in words, and how often."""

    def __str__(self) -> str:
        """Return one line."""
        return ", ".join(f"{count} {what}" for what, count in self.items() if count)


def box_row(label: int, box_xyxy: Sequence[float], size_wh: tuple[float, float]) -> Row | None:
    """Return the row of a box in pixels, cut at the image's borders; None if nothing is left."""
    width, height = size_wh
    x1, x2 = (min(max(v / width, 0.0), 1.0) for v in box_xyxy[::2])
    y1, y2 = (min(max(v / height, 0.0), 1.0) for v in box_xyxy[1::2])
    if not (x2 > x1 and y2 > y1):  # NaN too
        return None
    return label, ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)


class LabelFiles:
    """The label files of a data set; each belongs to one image."""

    def __init__(self) -> None:
        """Start with none."""
        self._image_of: dict[str, str] = {}

    def claim(self, target: str, *, image: str, where: str) -> str:
        """Return the name of an image's label file.

        Args:
            target: the image's place in the result, `labels` instead of `images`.
            image: what messages call the image.
            where: the annotation file, for messages.

        Raises:
            DataError: the file is another image's, as when names differ in the suffix only.
        """
        label_file = str(PurePosixPath(target).with_suffix(".txt"))
        if label_file in self._image_of:
            what = f"{image!r} would overwrite the labels of {self._image_of[label_file]!r} ({label_file})"
            raise DataError(where, what, fix="rename one of the images, or name it once")
        self._image_of[label_file] = image
        return label_file


def label_text(rows: Iterable[Row]) -> bytes:
    """Return the content of a label file, `class` and shares of the image in each line."""
    return "".join(f"{label} {' '.join(f'{value:.6g}' for value in values)}\n" for label, values in rows).encode()


def image_size(data: bytes, where: str) -> tuple[int, int]:
    """Return the width and height that an image's header tells.

    Raises:
        DataError: it is no image.
    """
    try:
        with Image.open(io.BytesIO(data)) as header:
            return header.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(where, f"is no image ({error})", fix="replace the file") from error


def with_data_yaml(entries: Iterable[FileEntry], names: Sequence[str]) -> Iterator[FileEntry]:
    """Yield the entries, and after them a data yaml: folders of images named train..., val..., test... as splits."""
    folders: dict[str, None] = {}
    for name, content in entries:
        parts = name.split("/")[:-1]
        if "images" in parts:
            folders["/".join(parts[: parts.index("images") + 2])] = None  # what lies deeper is found from there
        yield name, content
    splits = {split: [f for f in folders if _split_of(f) == split] for split in ("train", "val", "test")}
    splits["val"] = splits["val"] or splits["test"] or splits["train"]
    lines = ["path: .", *(f"{split}: {json.dumps(found)}" for split, found in splits.items() if found), "names:"]
    lines += [f"  {number}: {json.dumps(name, ensure_ascii=False)}" for number, name in enumerate(names)]
    yield "data.yaml", ("\n".join(lines) + "\n").encode()


def _split_of(folder: str) -> str:
    """Tell which split a folder of images belongs to, by the nearest part of its path that names one."""
    return next((split for part in reversed(folder.split("/")) if (split := split_in(part))), "train")


def split_in(name: str) -> str:
    """Return the split that a name tells, or "": the first word counts that starts or ends in train, val or test.

    So `trainval2017` is train, `valid` and `minival2014` are val, and `VisDrone2019-DET-test-dev` is test.
    """
    for word in re.findall("[a-z]+", name.lower()):
        for split in ("train", "val", "test"):
            if (word.startswith(split) or word.endswith(split)) and word not in _NO_SPLITS:
                return split
    return ""
