"""A second reading of label files, written from "Label files" in docs/data.md, slow and one character at a time."""

import re
from typing import NamedTuple

import numpy as np

from utils.datasets.labels import parse_labels

LINE_BREAK = re.compile("\r\n|[\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029]")
DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", re.ASCII)
LARGEST = 1e9
MARKS = (b"\xff\xfe", b"\xfe\xff")


class ReferenceLabels(NamedTuple):
    """What the format says a file holds."""

    rows: np.ndarray  # (n, 5) float32: class, cx, cy, w, h
    outlines: list[np.ndarray]  # per row its polygon, (points, 2) float32; empty for a box
    problems: list[tuple[int, int, bool]]  # line, column (0: the whole row), whether it is a class id beyond the names
    polygons: int  # number of valid polygon rows
    dropped: int  # number of valid rows without area, or equal to an earlier one


def reference_labels(data: bytes, classes: int) -> ReferenceLabels:
    """Read a label file of a data set with so many classes."""
    kept, outlines, problems, polygons, dropped, seen = [], [], [], 0, 0, set()
    for line, fields in _lines(data):
        problem = (0, False) if fields is None else _problem(fields, classes)
        if problem is not None or fields is None:
            problems.append((line, *(problem or (0, False))))
            continue
        class_id, *numbers = map(float, fields)
        polygons += len(numbers) > 4
        row = np.array([class_id, *(_box(numbers) if len(numbers) == 4 else _around(numbers))], np.float32)
        if row[3] <= 0 or row[4] <= 0 or tuple(row) in seen:
            dropped += 1
            continue
        seen.add(tuple(row))
        kept.append(row)
        outlines.append(np.array(numbers if len(numbers) > 4 else [], np.float32).reshape(-1, 2))
    return ReferenceLabels(np.array(kept, np.float32).reshape(-1, 5), outlines, problems, polygons, dropped)


def _lines(data: bytes):
    """Yield (number, fields) of the lines that are not blank; no fields if the file is not text."""
    try:
        text = data.decode("utf-16") if data[:2] in MARKS else data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError:
        yield 1, None
        return
    for number, line in enumerate(LINE_BREAK.split(text), 1):
        fields = re.findall(r"\S+", line)
        if fields:
            yield number, fields


def _problem(fields: list[str], classes: int) -> tuple[int, bool] | None:
    """Return the column of the first wrong field, and whether it is a class id beyond the names."""
    if not (len(fields) == 5 or (len(fields) >= 7 and len(fields) % 2 == 1)):
        return 0, False
    for column, field in enumerate(fields, 1):
        if not DECIMAL.fullmatch(field) or abs(float(field)) >= LARGEST:
            return column, False
        value = float(field)
        if column == 1 and (value < 0 or value % 1):
            return 1, False
        if column == 1 and value > classes - 1:
            return 1, True
        if column > 1 and not 0 <= value <= 1:
            return column, False
    return None


def _box(numbers: list[float]) -> list[float]:
    """Return a box, cut off at the edges of the image if it reaches beyond."""
    cx, cy, w, h = numbers
    left, top, right, bottom = cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2
    if min(left, top) >= 0 and max(right, bottom) <= 1:
        return numbers
    left, top, right, bottom = max(left, 0.0), max(top, 0.0), min(right, 1.0), min(bottom, 1.0)
    return [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]


def _around(numbers: list[float]) -> list[float]:
    """Return the box around a polygon."""
    left, top, right, bottom = min(numbers[::2]), min(numbers[1::2]), max(numbers[::2]), max(numbers[1::2])
    return [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]


def assert_equals_reference(data: bytes, classes: int = 3) -> None:
    """Fail unless `parse_labels` reads a file as the reference does, to the last digit."""
    parsed, expected = parse_labels(data, num_classes=classes), reference_labels(data, classes)
    assert [(p.line, p.column, p.is_class_range) for p in parsed.problems] == expected.problems
    assert parsed.rows.dtype == np.float32 and np.array_equal(parsed.rows, expected.rows)
    assert (parsed.num_polygons, parsed.dropped) == (expected.polygons, expected.dropped)
    assert len(parsed.polygons.starts) == len(expected.outlines) + 1
    for start, end, outline in zip(parsed.polygons.starts, parsed.polygons.starts[1:], expected.outlines, strict=False):
        assert np.array_equal(parsed.polygons.points[start:end], outline)
