"""Label files against the reference reader, and through the scan of a data set."""

from __future__ import annotations

import random
from pathlib import Path

import cv2
import numpy as np

from tests.fuzz.kind import Bases, Kind, no_bases
from tests.fuzz.mutation import mutate_bytes, mutate_text, pick
from tests.helpers.label_files import CLASS_FIELDS, COORDINATES
from tests.helpers.label_reference import assert_equals_reference
from utils.datasets.config import DataConfig
from utils.datasets.labels import read_label_content, read_rows
from utils.datasets.scan import scan_images
from utils.errors import DataError

CLASSES = ("a", "b", "c")
EXTREMES = (
    *("1e-320", "4.9e-324", "1e-46", "0.99999999", "0.9999999999999999", "1.0000000000000002", "1.00000001", "-0"),
    *("-0.0",),
    *("-1e-320", "1e-9", "00.5", "0.50", "+.5", "5E-1", "1e-0", "1e+0", "999999999", "1e9", "1e400", "1e-400"),
    *("Infinity",),
    *("0x1", "1_0", "½", "٣", "\uff11", "0.5f", "0,5", ".", "-", "+", "e1", "1e", "1e1e1", "0.5.", "--1"),
    *("0.1" + "0" * 400 + "1",),
)
SPACES = (" ", "  ", "\t", " \t ", "\xa0", "\u3000", "\u2003", "\x1f", "\x0b", "\x0c")
ENDS = ("\n", "\r\n", "\r", "\n\n", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029", "")


def make(bases: Bases, rng: random.Random) -> tuple[str, bytes]:
    """Return a file of mostly valid rows."""
    lines: list[str] = []
    faulty = rng.random() < 0.6
    for _ in range(pick(rng, 0, 1, 1, 2, 3, 5, 40)):
        if lines and rng.random() < 0.15:
            lines.append(rng.choice(lines))
            continue
        fields = _row(rng, faulty)
        space = pick(rng, *[" "] * 8, *SPACES) if faulty else pick(rng, " ", " ", "  ", "\t")
        lines.append(pick(rng, "", "", "", space) + space.join(fields) + pick(rng, "", "", space))
    end = pick(rng, *["\n"] * 8, "\r\n", *(ENDS if faulty else ("\r",)))
    text = end.join(lines) + pick(rng, end, "")
    data = text.encode(pick(rng, *["utf-8"] * 10, "utf-8-sig", "utf-16", "utf-16-be"))
    if rng.random() < 0.2:
        data = mutate_text(data, rng)
    return "case.txt", mutate_bytes(data, rng) if rng.random() < 0.2 else data


def _row(rng: random.Random, faulty: bool) -> list[str]:
    """Return the fields of a box or a polygon; one in six of a faulty file is odd."""
    count = pick(rng, 4, 4, 4, 6, 8, 20)
    if count == 4:
        center, side = [rng.random(), rng.random()], [rng.random() ** 3, rng.random() ** 3]
        numbers = center + [pick(rng, s, s, 2 * min(c, 1 - c), 0.0) for c, s in zip(center, side, strict=True)]
    else:
        numbers = [rng.random() ** pick(rng, 1, 0) for _ in range(count)]
    digits = pick(rng, 3, 6, 6, 9, 17)
    fields = [pick(rng, "0", "1", "2"), *(f"{number:.{digits}{pick(rng, 'f', 'g')}}" for number in numbers)]
    if faulty and rng.random() < 0.4:
        place = rng.randrange(len(fields))
        fields[place] = rng.choice(EXTREMES if rng.random() < 0.6 else (COORDINATES if place else CLASS_FIELDS))
        if rng.random() < 0.3:
            del fields[rng.randrange(len(fields))]
    return fields


def check(path: Path) -> None:
    """Compare a label file with the reference; an error of the scan is raised as such."""
    data, image = path.read_bytes(), path.with_suffix(".png")
    assert_equals_reference(data, len(CLASSES))
    read_rows(data)  # as prepare.py --check does
    if not image.exists():
        cv2.imwrite(str(image), np.zeros((24, 36, 3), np.uint8))
    config = DataConfig(file=path.with_name("data.yaml"), names=CLASSES, roots=(), splits={})
    (scanned,) = scan_images(config, "train", [str(image)], [read_label_content(str(image))])
    if scanned.error:
        raise DataError("skipped", scanned.error)


KIND = Kind(name="labels", cases=10_000, quick=130, batch=500, prepare=no_bases, mutate=make, check=check)
