"""The one way to read a label file: rows `class cx cy w h`, normalized, or `class x1 y1 x2 y2 ...` for a polygon."""

from __future__ import annotations

import contextlib
import functools
import io
import math
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import NamedTuple

import numpy as np

from utils.datasets.polygons import empty_polygons
from utils.errors import DataError
from utils.files import decode_text
from utils.structures import Polygons

MAX_LABEL_BYTES = 10_000_000
CLIP_TOLERANCE = 1e-4  # beyond which clipping a box is counted, since rounding alone explains less
MAX_VALUE = 1e9  # far beyond any class id or pixel: such a number is an error of its own, and sums of it overflow
COLUMNS = ("class", "x_center", "y_center", "width", "height")
LabelContent = bytes | DataError | None  # of a label file; the error if it cannot be read; None if there is no file


@dataclass(frozen=True, kw_only=True)
class LabelProblem:
    """An error in one row."""

    line: int  # from 1
    column: int = 0  # from 1; 0 for the whole row
    what: str  # the field and its value
    is_class_range: bool = False  # the class id is out of range, an error of the data yaml rather than of the row


@dataclass(frozen=True, kw_only=True)
class LabelFile:
    """The content of one label file: n objects, in coordinates normalized by the image size."""

    rows: np.ndarray = field(default_factory=lambda: np.zeros((0, 5), np.float32))  # class, cx, cy, w, h
    polygons: Polygons = field(default_factory=lambda: empty_polygons(0))  # empty where the row was a box
    problems: tuple[LabelProblem, ...] = ()  # a file with errors should not be trained on
    num_polygons: int = 0  # number of polygon rows
    clipped: int = 0  # number of boxes that extended beyond the image and were clipped
    dropped: int = 0  # number of rows without area and duplicates, which are left out


def label_path(image_path: str) -> str:
    """Return the path of an image's label file: the last folder `images` becomes `labels`, the suffix `.txt`."""
    folder, name = os.path.split(image_path)
    return f"{_label_folder(folder)}{name.rpartition('.')[0] or name}.txt"


@functools.lru_cache(1024)
def _label_folder(folder: str) -> str:
    """Return the folder of the label files of a folder of images, with a separator at its end, or ""."""
    parts = list(PurePath(folder).parts)
    if "images" in parts:
        parts[-1 - parts[::-1].index("images")] = "labels"
    return os.path.join(*parts, "") if parts else ""


def misplaced_labels(image_path: str) -> str:
    """Return a folder of labels above an image whose name is not exactly `labels`, such as `Labels`, or ""."""
    for folder in list(Path(image_path).parents)[:4]:
        with contextlib.suppress(OSError):
            names = sorted(name for name in os.listdir(folder) if name.lower() in ("labels", "label"))
            if names and names[0] != "labels":
                return str(folder / names[0])
    return ""


class LabelRow(NamedTuple):
    """One line of a label file, as training and `prepare.py --check` read it before they ask what range it is in."""

    line: int  # from 1
    fields: list[str]  # as written
    values: list[float]  # class id, then a box's four numbers or a polygon's x, y, x, y, ...; up to the problem
    problem: LabelProblem | None = None  # why it is not a row

    @property
    def box(self) -> list[float]:
        """Class, cx, cy, w, h; of a polygon those of its bounding box."""
        return _bounding_box(self.values)


def _bounding_box(values: list[float]) -> list[float]:
    if len(values) == len(COLUMNS):
        return values
    x, y = values[1::2], values[2::2]
    width, height = max(x) - min(x), max(y) - min(y)
    return [values[0], min(x) + width / 2, min(y) + height / 2, width, height]


def label_rows(text: str) -> Iterator[LabelRow]:
    """Yield the lines of a label file that are not empty."""
    for line, content in enumerate(text.splitlines(), start=1):
        if fields := content.split():
            yield _parse_row(fields, line)


def read_rows(data: bytes) -> list[LabelRow]:
    """Return the lines of a label file: UTF-8, with or without a byte order mark, or UTF-16 with one."""
    try:
        return list(label_rows(decode_text(data)))
    except UnicodeDecodeError as error:
        problem = LabelProblem(line=1, what=f"is not UTF-8 text (byte {error.start})")
        return [LabelRow(1, [], [], problem)]


def parse_labels(data: bytes, *, num_classes: int) -> LabelFile:
    """Parse the bytes of a label file; return the valid rows and all errors.

    An empty file is an image without objects.
    """
    problems: list[LabelProblem] = []
    valid = _valid_rows(data, num_classes)
    if valid is None:
        valid = []
        for row in read_rows(data):
            if problem := _range_problem(row, num_classes) or row.problem:
                problems.append(problem)
            else:
                valid.append(row.values)
    boxes, beyond = _clip_boxes(np.array([_bounding_box(values) for values in valid]).reshape(-1, 5))
    boxes = boxes.astype(np.float32)
    kept = np.flatnonzero((boxes[:, 3:] > 0).all(1))
    if len(set(map(tuple, boxes[kept].tolist()))) < len(kept):
        kept = kept[np.sort(np.unique(boxes[kept], axis=0, return_index=True)[1])]
    is_polygon = [len(values) > len(COLUMNS) for values in valid]
    polygons = empty_polygons(len(kept))
    if any(is_polygon):
        rings = [valid[i][1:] if is_polygon[i] else [] for i in kept]
        polygons = Polygons(
            points=np.array([value for ring in rings for value in ring], np.float32).reshape(-1, 2),
            starts=np.cumsum([0, *(len(ring) // 2 for ring in rings)], dtype=np.int64),
        )
    return LabelFile(
        rows=boxes[kept],
        polygons=polygons,
        problems=tuple(problems),
        num_polygons=sum(is_polygon),
        clipped=int((beyond > CLIP_TOLERANCE).sum()),
        dropped=len(boxes) - len(kept),
    )


def _valid_rows(data: bytes, num_classes: int) -> list[list[float]] | None:
    """Return the values of all rows of a file without any problem, which is most files; None for any other."""
    if not data.isascii() or b"_" in data:
        return None
    try:
        rows = [list(map(float, fields)) for line in data.decode().splitlines() if (fields := line.split())]
    except ValueError:
        return None
    for values in rows:
        count, class_id = len(values), values[0]
        if (count != len(COLUMNS) and (count < 7 or count % 2 == 0)) or not class_id.is_integer():
            return None
        if not (0 <= class_id < num_classes and all(0 <= value <= 1 for value in values[1:])):  # nor NaN
            return None
    return rows


def _parse_row(fields: list[str], line: int) -> LabelRow:
    """Parse one row, a box or a polygon: the number of columns, numbers, and a class id."""
    count = len(fields)
    values: list[float] = []

    def refused(what: str, column: int = 0) -> LabelRow:
        return LabelRow(line, fields, values, LabelProblem(line=line, column=column, what=what))

    if count != 5 and (count < 7 or count % 2 == 0):
        hint = ", separated by spaces, not commas" if "," in fields[0] else ", without a confidence" * (count == 6)
        return refused(f"has {count} columns; a box has 5, a polygon an odd number from 7{hint}")
    for column, text in enumerate(fields, start=1):
        value = _parse_float(text)
        if value is None:
            rule = "a class id (0, 1, 2, ...)" if column == 1 else "a finite number"
            return refused(f"{_column_name(column, count)} {text[:20]!r} is not {rule}", column)
        if column == 1 and (value != int(value) or value < 0):
            return refused(f"class {text[:20]} is not a class id (0, 1, 2, ...)", column)
        values.append(value)
    return LabelRow(line, fields, values)


def _range_problem(row: LabelRow, num_classes: int) -> LabelProblem | None:
    """Return the first value that is out of range; None if there is none."""
    for column, value in enumerate(row.values, start=1):
        if column == 1 and value >= num_classes:
            what = f"class {value:.15g} is not in the range 0-{num_classes - 1}"
            return LabelProblem(line=row.line, column=1, what=what, is_class_range=True)
        if column > 1 and not 0 <= value <= 1:
            text = f"{_column_name(column, len(row.fields))} {row.fields[column - 1][:20]}"
            return LabelProblem(line=row.line, column=column, what=f"{text} {'< 0' if value < 0 else '> 1'}")
    return None


def _column_name(column: int, count: int) -> str:
    """Return the name of a column, from 1, of a row of so many columns."""
    return COLUMNS[column - 1] if count == len(COLUMNS) else "class" if column == 1 else "xy"[column % 2]


def _parse_float(text: str) -> float | None:
    """Return the value of a plain decimal number that is not too large; None for anything else, such as `1_0`."""
    try:
        value = float(text) if text.isascii() and "_" not in text else math.nan
    except ValueError:
        return None
    return value if abs(value) < MAX_VALUE else None


def _clip_boxes(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (n, 5) float64 rows clipped to the image, and (n,) by how much each extended beyond it, or less than 0."""
    low, high = rows[:, 1:3] - rows[:, 3:] / 2, rows[:, 1:3] + rows[:, 3:] / 2
    beyond = np.maximum(-low, high - 1).max(1)
    outside = np.flatnonzero(beyond > 0)
    if len(outside):
        low, high = low[outside].clip(min=0), high[outside].clip(max=1)
        rows[outside, 1:] = np.concatenate(((low + high) / 2, high - low), 1)
    return rows, beyond


def read_label_content(image_path: str) -> LabelContent:
    """Return the content of an image's label file."""
    path = label_path(image_path)
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # reading a pipe would block forever
            return DataError(path, "is not a regular file", fix="remove it")
        if status.st_size > MAX_LABEL_BYTES:
            return DataError(path, f"is too large for a label file ({status.st_size} bytes)", fix="remove it")
        with io.FileIO(path) as file:
            return file.readall()
    except FileNotFoundError:
        return None
    except OSError as error:
        return DataError(path, f"cannot be read ({error.strerror})", fix="check the path and permissions")
