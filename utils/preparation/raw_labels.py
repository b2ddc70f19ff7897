"""Label files as they stand: every row that has numbers, before any range is enforced or any box is clipped."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from utils.datasets.labels import MAX_LABEL_BYTES


@dataclass(frozen=True, kw_only=True)
class RawLabels:
    """The rows of one label file; polygons are replaced by their bounding boxes."""

    rows: np.ndarray = field(default_factory=lambda: np.zeros((0, 5)))  # (k, 5) float64: class, then four numbers
    lines: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))  # (k,) line of each row, from 1
    problems: tuple[str, ...] = ()  # lines that are not rows, with their numbers


def parse_raw(data: bytes) -> RawLabels:
    """Parse the bytes of a label file without judging its values."""
    if len(data) > MAX_LABEL_BYTES:
        return RawLabels(problems=(f"is too large for a label file ({len(data)} bytes)",))
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return RawLabels(problems=(f"is not UTF-8 text (byte {error.start})",))
    rows: list[list[float]] = []
    lines: list[int] = []
    problems: list[str] = []
    for line, content in enumerate(text.splitlines(), start=1):
        fields = content.split()
        if not fields:
            continue
        values = _numbers(fields)
        if values is None:
            problems.append(f"line {line} is not a row of numbers: {content[:40]!r}")
        elif len(values) != 5 and (len(values) < 7 or len(values) % 2 == 0):
            hint = " (with a confidence?)" if len(values) == 6 else ""
            problems.append(f"line {line} has {len(values)} columns{hint}")
        elif values[0] != int(values[0]) or values[0] < 0:
            problems.append(f"line {line}: class {fields[0][:20]} is not a class id")
        else:
            rows.append(values if len(values) == 5 else _bounding_box(values))
            lines.append(line)
    return RawLabels(
        rows=np.array(rows, np.float64).reshape(-1, 5), lines=np.array(lines, np.int32), problems=tuple(problems)
    )


def _numbers(fields: list[str]) -> list[float] | None:
    """Return the values of plain decimal numbers; None if any field is something else or not finite."""
    try:
        values = [float(field) for field in fields if field.isascii() and "_" not in field]
    except ValueError:
        return None
    return values if len(values) == len(fields) and all(abs(value) < 1e9 for value in values) else None


def _bounding_box(values: list[float]) -> list[float]:
    x, y = values[1::2], values[2::2]
    return [values[0], (min(x) + max(x)) / 2, (min(y) + max(y)) / 2, max(x) - min(x), max(y) - min(y)]
