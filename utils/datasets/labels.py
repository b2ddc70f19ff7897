"""The one way to read a label file: rows `class cx cy w h`, shares of the image, or `class x1 y1 x2 y2 ...`."""

from __future__ import annotations

import math
import os
import stat
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np

from utils.errors import DataError
from utils.structures import Polygons

MAX_LABEL_BYTES = 10_000_000
COLUMNS = ("class", "x_center", "y_center", "width", "height")


@dataclass(frozen=True, kw_only=True)
class LabelProblem:
    """What is wrong with a row.

    Attributes:
        line: from 1.
        column: from 1; 0 for the whole row.
        what: the field and value.
        is_class_range: the class number is beyond the data set's names, a mistake of the data yaml rather than the row.
    """

    line: int
    column: int
    what: str
    is_class_range: bool = False


@dataclass(frozen=True, kw_only=True)
class LabelFile:
    """The rows of one label file.

    Attributes:
        rows: (n, 5) float32: class, cx, cy, w, h as shares of the image.
        outlines: of the n objects, points as shares of the image; none where the row was a box.
        problems: what is wrong; a file with problems should not be trained on.
        polygons: how many rows were outlines.
        clipped: how many boxes reached beyond the image and were cut.
        dropped: how many rows were left out, having no area or standing twice.
    """

    rows: np.ndarray
    outlines: Polygons
    problems: tuple[LabelProblem, ...] = ()
    polygons: int = 0
    clipped: int = 0
    dropped: int = 0


def label_path(image_path: str) -> str:
    """Return where an image's labels lie: the last folder `images` becomes `labels`, the suffix `.txt`."""
    path = PurePath(image_path)
    parts = list(path.parts)
    for position in range(len(parts) - 2, -1, -1):
        if parts[position] == "images":
            parts[position] = "labels"
            break
    return str(PurePath(*parts).with_suffix(".txt"))


def parse_labels(data: bytes, *, num_classes: int) -> LabelFile:
    """Check and read the content of a label file, row by row.

    Args:
        data: the file's bytes, UTF-8 with or without a byte order mark; an empty file is an image without objects.
        num_classes: classes are 0 to `num_classes - 1`.

    Returns:
        The good rows and all problems.
    """
    if len(data) > MAX_LABEL_BYTES:
        return _only_problem(f"is too large for a label file ({len(data)} bytes)")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return _only_problem(f"is not UTF-8 text (byte {error.start})")
    rows: list[list[float]] = []
    rings: list[list[float]] = []
    problems: list[LabelProblem] = []
    polygons = clipped = dropped = 0
    for number, line in enumerate(text.splitlines(), start=1):
        fields = line.split()
        if not fields:
            continue
        values = _parse_row(fields, number, num_classes)
        if isinstance(values, LabelProblem):
            problems.append(values)
            continue
        is_outline = len(values) > len(COLUMNS)
        polygons += is_outline
        kept, was_clipped = _clip(_box_around(values) if is_outline else values)
        clipped += was_clipped
        if np.float32(kept[3]) <= 0 or np.float32(kept[4]) <= 0:
            dropped += 1
        else:
            rows.append(kept)
            rings.append(values[1:] if is_outline else [])
    array = np.array(rows, dtype=np.float32).reshape(-1, 5)
    if len(array) > 1:
        unique = np.sort(np.unique(array, axis=0, return_index=True)[1])
        dropped += len(array) - len(unique)
        array = array[unique]
        rings = [rings[number] for number in unique]
    return LabelFile(
        rows=array,
        outlines=_flat(rings),
        problems=tuple(problems),
        polygons=polygons,
        clipped=clipped,
        dropped=dropped,
    )


def _flat(rings: list[list[float]]) -> Polygons:
    """Lay rings x, y, x, y... one after another."""
    points = [value for ring in rings for value in ring]
    return Polygons(
        points=np.array(points, dtype=np.float32).reshape(-1, 2),
        starts=np.cumsum([0, *(len(ring) // 2 for ring in rings)], dtype=np.int64),
    )


def _only_problem(what: str) -> LabelFile:
    problem = LabelProblem(line=1, column=0, what=what)
    return LabelFile(rows=np.zeros((0, 5), np.float32), outlines=_flat([]), problems=(problem,))


def _parse_row(fields: list[str], line: int, num_classes: int) -> list[float] | LabelProblem:
    """Read the numbers of one row, a box or an outline."""
    count = len(fields)
    if count != 5 and (count < 7 or count % 2 == 0):
        what = f"has {count} columns, not 5 for a box or an odd number from 7 for an outline"
        return LabelProblem(line=line, column=0, what=what)
    values = []
    for column, field in enumerate(fields, start=1):
        name = COLUMNS[column - 1] if count == 5 else "class" if column == 1 else "xy"[column % 2]
        value = _number(field)
        if value is None or not math.isfinite(value):
            return LabelProblem(line=line, column=column, what=f"{name} {field[:20]!r} is no finite number")
        if column == 1:
            if value != int(value) or value < 0:
                return LabelProblem(line=line, column=1, what=f"class {field[:20]} is no whole number from 0")
            if value >= num_classes:
                what = f"class {value:.15g} but there are {num_classes} classes (0-{num_classes - 1})"
                return LabelProblem(line=line, column=1, what=what, is_class_range=True)
        elif not 0 <= value <= 1:
            sign = "< 0" if value < 0 else "> 1"
            return LabelProblem(line=line, column=column, what=f"{name} {field[:20]} {sign}")
        values.append(value)
    return values


def _box_around(values: list[float]) -> list[float]:
    """Return the row of the box around an outline's row."""
    x, y = values[1::2], values[2::2]
    width, height = max(x) - min(x), max(y) - min(y)
    return [values[0], min(x) + width / 2, min(y) + height / 2, width, height]


def _number(text: str) -> float | None:
    """Return the number that plain decimal text means; None for anything else, such as `1_0`."""
    try:
        return float(text) if text.isascii() and "_" not in text else None
    except ValueError:
        return None


def _clip(row: list[float]) -> tuple[list[float], bool]:
    """Cut a box at the image's borders; return it and whether more than rounding was cut."""
    label, cx, cy, w, h = row
    x1, y1, x2, y2 = cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2
    if min(x1, y1) >= 0 and max(x2, y2) <= 1:
        return row, False
    beyond = max(-x1, -y1, x2 - 1, y2 - 1)
    x1, y1, x2, y2 = max(x1, 0.0), max(y1, 0.0), min(x2, 1.0), min(y2, 1.0)
    return [label, (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], beyond > 1e-4


def read_label_bytes(path: Path | str) -> bytes | None:
    """Return a label file's bytes, or None when there is none: an image without labels.

    Raises:
        DataError: something is there that cannot be read as a file.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would wait for ever
            raise DataError(path, "is no regular file", fix="remove it")
        return Path(path).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror})", fix="check the path and permissions") from error
