"""The one way to read a label file: rows `class cx cy w h`, normalized, or `class x1 y1 x2 y2 ...` for a polygon."""

from __future__ import annotations

import contextlib
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
    *folders, name = PurePath(image_path).with_suffix(".txt").parts
    if "images" in folders:
        folders[-1 - folders[::-1].index("images")] = "labels"
    return str(PurePath(*folders, name))


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
        if len(self.values) == len(COLUMNS):
            return self.values
        x, y = self.values[1::2], self.values[2::2]
        width, height = max(x) - min(x), max(y) - min(y)
        return [self.values[0], min(x) + width / 2, min(y) + height / 2, width, height]


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
    rows: list[list[float]] = []
    rings: list[list[float]] = []
    problems: list[LabelProblem] = []
    num_polygons = clipped = dropped = 0
    for read in read_rows(data):
        if problem := _range_problem(read, num_classes) or read.problem:
            problems.append(problem)
            continue
        is_polygon = len(read.values) > len(COLUMNS)
        num_polygons += is_polygon
        row, was_clipped = _clip_box(read.box)
        clipped += was_clipped
        if np.float32(row[3]) <= 0 or np.float32(row[4]) <= 0:
            dropped += 1
        else:
            rows.append(row)
            rings.append(read.values[1:] if is_polygon else [])
    array = np.array(rows, dtype=np.float32).reshape(-1, 5)
    if len(array) > 1:
        unique = np.sort(np.unique(array, axis=0, return_index=True)[1])
        dropped += len(array) - len(unique)
        array = array[unique]
        rings = [rings[index] for index in unique]
    return LabelFile(
        rows=array,
        polygons=Polygons(
            points=np.array([value for ring in rings for value in ring], np.float32).reshape(-1, 2),
            starts=np.cumsum([0, *(len(ring) // 2 for ring in rings)], dtype=np.int64),
        ),
        problems=tuple(problems),
        num_polygons=num_polygons,
        clipped=clipped,
        dropped=dropped,
    )


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


def _clip_box(row: list[float]) -> tuple[list[float], bool]:
    """Clip a box to the image; return it and whether more than a rounding error was clipped."""
    class_id, cx, cy, w, h = row
    x1, y1, x2, y2 = cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2
    if min(x1, y1) >= 0 and max(x2, y2) <= 1:
        return row, False
    beyond = max(-x1, -y1, x2 - 1, y2 - 1)
    x1, y1, x2, y2 = max(x1, 0.0), max(y1, 0.0), min(x2, 1.0), min(y2, 1.0)
    return [class_id, (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], beyond > 1e-4


def read_label_content(image_path: str) -> LabelContent:
    """Return the content of an image's label file."""
    path = label_path(image_path)
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # reading a pipe would block forever
            return DataError(path, "is not a regular file", fix="remove it")
        if status.st_size > MAX_LABEL_BYTES:
            return DataError(path, f"is too large for a label file ({status.st_size} bytes)", fix="remove it")
        return Path(path).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        return DataError(path, f"cannot be read ({error.strerror})", fix="check the path and permissions")
