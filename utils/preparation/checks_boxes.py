"""Checks of label rows: coordinates in another order or unit, boxes beyond the image, tiny, huge or twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from utils.boxes import pairwise_iou
from utils.preparation.findings import MAX_LISTED, Example, Finding, Mark, found
from utils.preparation.kinds import ROWS
from utils.preparation.readings import NAMES, better_reading, boxes_of, in_pixels, most_fitting, normalized, values_as
from utils.preparation.survey import SplitSurvey

MIN_SIDE = 2.0  # pixels of the image file, below which a box is absurdly small
WHOLE_IMAGE = 0.95  # of the image's area, above which a box is absurdly large
SAME_BOX_IOU = 0.9  # of two rows of one image that stand for one object
MOST_REFUSED = 0.1  # fraction of a split's labelled images that may be lost
SUGGESTED = 3  # colour of boxes under the reading that fits better


def check_coordinates(splits: Sequence[SplitSurvey]) -> tuple[list[Finding], set[str]]:
    """Report splits whose four numbers are in another order or unit; return also the names of those splits."""
    findings, explained = [], set()
    usable = {split.name: split.decoded & (split.counts > 0) for split in splits}
    for split in splits:
        chosen = np.flatnonzero(usable[split.name]).tolist()
        pixels = [i for i in chosen if in_pixels(split.rows_of(i))]
        if len(chosen) and len(pixels) > len(chosen) / 2:
            reading = most_fitting(split.inside[pixels], split.contrast[pixels])
            largest = float(np.abs(split.rows[:, 1:]).max())
            words = (
                f"{len(pixels)} of {len(chosen)} labelled images have values beyond 2, up to {largest:.6g}: pixels "
                f"instead of fractions of the image's size, most likely as {reading}."
            )
            findings += _order_finding("coordinates-in-pixels", [split], {split.name: pixels}, reading, words)
            explained.add(split.name)
    rest = [split for split in splits if split.name not in explained and usable[split.name].any()]
    for group in [rest, *([split] for split in rest if len(rest) > 1)]:
        group = [split for split in group if split.name not in explained]
        if not group:
            continue
        where = {split.name: usable[split.name] for split in group}
        better = better_reading(
            np.concatenate([split.inside[where[split.name]] for split in group]),
            np.concatenate([split.contrast[where[split.name]] for split in group]),
            np.concatenate([split.counts[where[split.name]] for split in group]),
        )
        # All splits together only if each of them agrees, else one at a time.
        if better is None or not all(_agrees(split, where[split.name], better[0]) for split in group):
            continue
        reading, evidence = better
        words = f"The rows fit the images better as {reading} than as cx cy w h: {evidence}."
        images = {split.name: np.flatnonzero(where[split.name]).tolist() for split in group}
        findings += _order_finding("coordinates-in-other-order", group, images, reading, words)
        explained |= set(where)
    return findings, explained


def _agrees(split: SplitSurvey, chosen: np.ndarray, reading: str) -> bool:
    """Return whether a split alone fits a reading at least as well as the right order."""
    index = NAMES.index(reading)
    return bool(split.contrast[chosen, index].mean() > split.contrast[chosen, 0].mean())


def _order_finding(
    kind: str, group: Sequence[SplitSurvey], images: dict[str, list[int]], reading: str, words: str
) -> list[Finding]:
    """Return the finding of rows in another order, with examples drawn as they are and as they fit."""
    ranked: list[tuple[int, Example]] = []
    for split in group:
        index = NAMES.index(reading)
        gain = split.contrast[images[split.name], index] - split.contrast[images[split.name], 0]
        for rank, position in enumerate(np.argsort(-gain, kind="stable")[:MAX_LISTED]):
            image = images[split.name][position]
            height, width = (int(side) for side in split.sizes_hw[image])
            rows = split.rows_of(image)
            values = normalized(rows, (height, width))
            marks = [
                Mark(box=box, text=order if number == 0 else "", class_id=colour)
                for order, colour in ((NAMES[0], 0), (reading, SUGGESTED))
                for number, box in enumerate(boxes_of(values[:12], order, (height, width)).tolist())
            ]
            text = f"first row: {values_as(rows[0, 1:].tolist())}"
            example = Example(path=split.paths[image], words=text, split=split.name, marks=tuple(marks))
            ranked.append((rank, example))
    ranked.sort(key=lambda item: item[0])
    count = sum(map(len, images.values()))
    return found(kind, [example for _, example in ranked], words=words, count=count, details={"reading": reading})


class RowFault(NamedTuple):
    """What is wrong with one label row."""

    split: SplitSurvey
    image: int
    row: int  # of the image
    badness: float
    words: str


def check_boxes(splits: Sequence[SplitSurvey], names: Sequence[str]) -> list[Finding]:
    """Report rows with values or boxes out of range, without area, tiny, as large as the image, or repeated."""
    faults: dict[str, list[RowFault]] = {kind: [] for kind in ROWS}
    for split in splits:
        image_of_row = split.image_of_row.tolist()
        for kind, row, badness, words in _row_faults(split):
            image = image_of_row[row]
            faults[kind].append(RowFault(split, image, row - int(split.starts[image]), badness, words))
        for kind, fault in _repeated_rows(split, names):
            faults[kind].append(fault)
    return [finding for kind in ROWS for finding in _row_finding(kind, faults[kind], splits, names)]


def _row_faults(split: SplitSurvey) -> Iterator[tuple[str, int, float, str]]:
    """Yield kind, row, badness and words of every row of a split that has a fault; at most one fault a row."""
    if not len(split.rows):
        return
    image = split.image_of_row
    values = split.rows[:, 1:]
    cx, cy, w, h = values.T
    reach = np.stack([w / 2 - cx, h / 2 - cy, cx + w / 2 - 1, cy + h / 2 - 1], 1)  # beyond each side, normalized
    height, width = split.sizes_hw[image].T
    reach_pixels = (reach * np.stack([width, height, width, height], 1)).max(1)
    sides = split.sides_wh().min(1)
    area = (np.minimum(cx + w / 2, 1) - np.maximum(cx - w / 2, 0)) * (
        np.minimum(cy + h / 2, 1) - np.maximum(cy - h / 2, 0)
    )
    decoded = split.decoded[image]
    outside = split.beyond_range > 0
    flat = ~outside & ((w <= 0) | (h <= 0))
    beyond = ~outside & ~flat & (reach.max(1) > 1e-3) & (reach_pixels > 1) & decoded
    tiny = ~outside & ~flat & ~beyond & (sides < MIN_SIDE) & decoded
    whole = ~outside & ~flat & (area > WHOLE_IMAGE) & ~beyond
    for kind, faulty, badness, describe in (
        ("values-out-of-range", outside, split.beyond_range, lambda row: _out_of_range(values[row])),
        ("boxes-without-area", flat, -sides, lambda row: values_as(values[row].tolist())),
        ("boxes-beyond-image", beyond, reach.max(1), lambda row: f"{reach_pixels[row]:.0f} pixels beyond the image"),
        ("boxes-tiny", tiny, -sides, lambda row: f"shorter side {sides[row]:.2g} pixels"),
        ("boxes-whole-image", whole, area, lambda row: f"{area[row]:.1%} of the image"),
    ):
        for row in np.flatnonzero(faulty).tolist():
            yield kind, row, float(badness[row]), describe(row)


def _out_of_range(values: np.ndarray) -> str:
    """Return the four numbers of a row, which are in range if they are those around a polygon that is not."""
    inside = bool(((values >= 0) & (values <= 1)).all())
    return f"box {values_as(values.tolist())} of a polygon beyond the image" if inside else values_as(values.tolist())


def _repeated_rows(split: SplitSurvey, names: Sequence[str]) -> Iterator[tuple[str, RowFault]]:
    """Yield each row that occurs before it in the file, or whose box is nearly equal to one before it."""
    for image in np.flatnonzero(split.counts > 1).tolist():
        rows = split.rows_of(image)
        boxes = boxes_of(rows[:, 1:], NAMES[0], (1, 1))
        iou = np.triu(pairwise_iou(boxes, boxes), 1)
        faults: dict[tuple[str, int], RowFault] = {}  # a row that equals several others is one fault
        for first, second in np.argwhere(iou > SAME_BOX_IOU).tolist():
            if (rows[first].astype(np.float32) == rows[second].astype(np.float32)).all():
                kind, words = "rows-repeated", f"as line {split.lines[split.starts[image] + first]}"
            else:
                one, other = (class_name(int(rows[row, 0]), names) for row in (first, second))
                what = f"both {one}" if one == other else f"{one} and {other}"
                kind, words = "boxes-nearly-equal", f"IoU {iou[first, second]:.2f} with another row, {what}"
            faults[kind, second] = RowFault(split, image, second, float(iou[first, second]), words)
        yield from ((kind, fault) for (kind, _), fault in faults.items())


def _row_finding(
    kind: str, faults: Sequence[RowFault], splits: Sequence[SplitSurvey], names: Sequence[str]
) -> list[Finding]:
    """Return the finding of rows with a fault, the worst first, one example for each image."""
    worst: dict[tuple[str, int], list[RowFault]] = {}
    for fault in sorted(faults, key=lambda fault: -fault.badness):
        worst.setdefault((fault.split.name, fault.image), []).append(fault)
    examples = []
    for first, *others in list(worst.values())[:MAX_LISTED]:
        marks = marks_of(first.split, first.image, names)
        line = first.split.lines[first.split.starts[first.image] + first.row]
        more = f" and {len(others)} more rows" if others else ""
        examples.append(
            Example(
                path=first.split.paths[first.image],
                words=f"line {line}: {first.words}{more}",
                split=first.split.name,
                marks=tuple(marks[fault.row] for fault in (first, *others)),
                drawn=bool(first.split.decoded[first.image]),
            )
        )
    return found(
        kind,
        examples,
        severity="spoils" if kind == "values-out-of-range" and _loses_too_many(worst, splits) else None,
        count=len(faults),
        splits=list(dict.fromkeys(fault.split.name for fault in faults)),
        details={"images": len(worst)},
    )


def _loses_too_many(images: Collection[tuple[str, int]], splits: Sequence[SplitSurvey]) -> bool:
    """Return whether images with faults, by split and index, are a large part of any split's labelled images."""
    lost = Counter(name for name, _ in images)
    return any(lost[split.name] > MOST_REFUSED * max(int((split.counts > 0).sum()), 1) for split in splits)


def marks_of(split: SplitSurvey, image: int, names: Sequence[str]) -> tuple[Mark, ...]:
    """Return a mark for each row of an image."""
    classes = split.rows_of(image)[:, 0].astype(int).tolist()
    boxes = split.boxes(image).tolist()
    return tuple(Mark(box=b, text=class_name(c, names), class_id=c) for b, c in zip(boxes, classes, strict=True))


def class_name(class_id: int, names: Sequence[str]) -> str:
    """Return the name of a class, or its id if the data yaml has none."""
    return names[class_id] if 0 <= class_id < len(names) else str(class_id)
