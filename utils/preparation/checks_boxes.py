"""Checks of label rows: coordinates in another order or unit, boxes beyond the image, tiny, huge or twice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from utils.boxes import pairwise_iou
from utils.preparation.findings import MAX_LISTED, Example, Finding, Mark, Severity
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
            fix = f"divide x by the image's width and y by its height, and write cx cy w h (now {reading})"
            findings.append(_order_finding("coordinates-in-pixels", [split], {split.name: pixels}, reading, words, fix))
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
        fix = f"write the rows as cx cy w h (now {reading})"
        findings.append(_order_finding("coordinates-in-other-order", group, images, reading, words, fix))
        explained |= set(where)
    return findings, explained


def _agrees(split: SplitSurvey, chosen: np.ndarray, reading: str) -> bool:
    """Return whether a split alone fits a reading at least as well as the right order."""
    index = NAMES.index(reading)
    return bool(split.contrast[chosen, index].mean() > split.contrast[chosen, 0].mean())


def _order_finding(
    kind: str, group: Sequence[SplitSurvey], images: dict[str, list[int]], reading: str, words: str, fix: str
) -> Finding:
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
                Mark(box=_corners(box), text=text if first == 0 else "", class_id=colour)
                for reading_, text, colour in ((NAMES[0], NAMES[0], 0), (reading, reading, SUGGESTED))
                for first, box in enumerate(boxes_of(values[:12], reading_, (height, width)))
            ]
            text = f"first row: {values_as(rows[0, 1:].tolist())}"
            example = Example(path=split.paths[image], words=text, split=split.name, marks=tuple(marks))
            ranked.append((rank, example))
    ranked.sort(key=lambda item: item[0])
    return Finding(
        kind=kind,
        severity="spoils",
        title="Coordinates in pixels" if kind.endswith("pixels") else "Coordinates in another order",
        words=words,
        fix=fix,
        count=sum(len(found) for found in images.values()),
        splits=tuple(split.name for split in group),
        examples=[example for _, example in ranked[:MAX_LISTED]],
        details={"reading": reading},
    )


def _corners(box: np.ndarray) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (float(value) for value in box)
    return x1, y1, x2, y2


RowFault = tuple[str, int, int, float, str]  # split, image, row of the image, badness, words


def check_boxes(splits: Sequence[SplitSurvey], names: Sequence[str]) -> list[Finding]:
    """Report rows with values or boxes out of range, without area, tiny, or as large as the image."""
    by_kind: dict[str, list[RowFault]] = {}
    for split in splits:
        for kind, row, badness, words in _row_faults(split):
            image = int(np.searchsorted(split.starts, row, "right")) - 1
            fault = (split.name, image, row - int(split.starts[image]), badness, words)
            by_kind.setdefault(kind, []).append(fault)
    findings = []
    for kind, (title, severity, words, fix) in ROW_KINDS.items():
        faults = by_kind.get(kind, [])
        if faults:
            if kind == "values-out-of-range" and _loses_too_many(faults, splits):
                severity = "spoils"
            findings.append(_row_finding(kind, title, severity, words, fix, faults, splits, names))
    return findings


ROW_KINDS: dict[str, tuple[str, Severity, str, str]] = {
    "values-out-of-range": (
        "Values out of range",
        "warning",
        "A value of the row is below 0 or above 1. Training leaves out the whole image.",
        "correct the rows",
    ),
    "boxes-beyond-image": (
        "Boxes beyond the image",
        "warning",
        "Centre and size are in range, but the box leaves the image; training clips it.",
        "clip the boxes, or check whether they belong to another image",
    ),
    "boxes-without-area": (
        "Boxes without area",
        "warning",
        "Width or height is 0; training leaves the row out.",
        "remove or redraw them",
    ),
    "boxes-tiny": (
        "Absurdly small boxes",
        "warning",
        "A side is below 2 pixels of the image file: mostly a click by mistake.",
        "remove or redraw them",
    ),
    "boxes-whole-image": (
        "Boxes as large as the image",
        "note",
        "The box covers more than 95 % of the image.",
        "check whether the object really fills the image",
    ),
}


def _row_faults(split: SplitSurvey) -> Iterable[tuple[str, int, float, str]]:
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
    for kind, found, badness, describe in (
        ("values-out-of-range", outside, split.beyond_range, lambda row: _out_of_range(values[row])),
        ("boxes-without-area", flat, -sides, lambda row: values_as(values[row].tolist())),
        ("boxes-beyond-image", beyond, reach.max(1), lambda row: f"{reach_pixels[row]:.0f} pixels beyond the image"),
        ("boxes-tiny", tiny, -sides, lambda row: f"shorter side {sides[row]:.2g} pixels"),
        ("boxes-whole-image", whole, area, lambda row: f"{area[row]:.1%} of the image"),
    ):
        for row in np.flatnonzero(found):
            yield kind, int(row), float(badness[row]), describe(row)


def _out_of_range(values: np.ndarray) -> str:
    """Return the four numbers of a row, which are in range if they are those around a polygon that is not."""
    inside = bool(((values >= 0) & (values <= 1)).all())
    return f"box {values_as(values.tolist())} of a polygon beyond the image" if inside else values_as(values.tolist())


def _loses_too_many(faults: Sequence[RowFault], splits: Sequence[SplitSurvey]) -> bool:
    """Return whether the images with faults are a large part of any split's labelled images."""
    for split in splits:
        lost = len({image for name, image, *_ in faults if name == split.name})
        if lost > MOST_REFUSED * max(int((split.counts > 0).sum()), 1):
            return True
    return False


def _row_finding(
    kind: str,
    title: str,
    severity: Severity,
    words: str,
    fix: str,
    faults: Sequence[RowFault],
    splits: Sequence[SplitSurvey],
    names: Sequence[str],
) -> Finding:
    """Return the finding of rows with a fault, the worst first, one example for each image."""
    by_name = {split.name: split for split in splits}
    worst: dict[tuple[str, int], list[RowFault]] = {}
    for fault in sorted(faults, key=lambda fault: -fault[3]):
        worst.setdefault(fault[:2], []).append(fault)
    examples = []
    for (name, image), found in list(worst.items())[:MAX_LISTED]:
        split = by_name[name]
        marks = marks_of(split, image, names)
        marks = tuple(marks[row] for _, _, row, _, _ in found)
        line = split.lines[split.starts[image] + found[0][2]]
        more = f" and {len(found) - 1} more rows" if len(found) > 1 else ""
        drawn = bool(split.decoded[image])
        text = f"line {line}: {found[0][4]}{more}"
        examples.append(Example(path=split.paths[image], words=text, split=name, marks=marks, drawn=drawn))
    return Finding(
        kind=kind,
        severity=severity,
        title=title,
        words=words,
        fix=fix,
        count=len(faults),
        splits=tuple(dict.fromkeys(fault[0] for fault in faults)),
        examples=examples,
        details={"images": len(worst)},
    )


def marks_of(split: SplitSurvey, image: int, names: Sequence[str]) -> tuple[Mark, ...]:
    """Return a mark for each row of an image."""
    classes = split.rows_of(image)[:, 0].astype(int).tolist()
    boxes = split.boxes(image)
    return tuple(
        Mark(box=_corners(b), text=class_name(c, names), class_id=c) for b, c in zip(boxes, classes, strict=True)
    )


def class_name(class_id: int, names: Sequence[str]) -> str:
    """Return the name of a class, or its id if the data yaml has none."""
    return names[class_id] if 0 <= class_id < len(names) else str(class_id)


def check_repeated(splits: Sequence[SplitSurvey], names: Sequence[str]) -> list[Finding]:
    """Report rows that occur twice in a file, and boxes of one image that are nearly equal."""
    equal: list[RowFault] = []
    near: list[RowFault] = []
    for split in splits:
        for image in np.flatnonzero(split.counts > 1).tolist():
            rows = split.rows_of(image)
            boxes = boxes_of(rows[:, 1:], NAMES[0], (1, 1))
            iou = np.triu(pairwise_iou(boxes, boxes), 1)
            for first, second in zip(*np.nonzero(iou > SAME_BOX_IOU), strict=True):
                fault = (split.name, image, int(second), float(iou[first, second]))
                if (rows[first].astype(np.float32) == rows[second].astype(np.float32)).all():
                    equal.append((*fault, f"as line {split.lines[split.starts[image] + first]}"))
                else:
                    one, other = (class_name(int(rows[row, 0]), names) for row in (first, second))
                    what = f"both {one}" if one == other else f"{one} and {other}"
                    near.append((*fault, f"IoU {iou[first, second]:.2f} with another row, {what}"))
    kinds: tuple[tuple[str, str, Severity, str, str, list[RowFault], Callable[[RowFault], int]], ...] = (
        (
            *("rows-repeated", "Rows that occur twice", "note"),
            *("Training drops the second.", "remove the second row"),
            *(equal, lambda fault: fault[2]),
        ),
        (
            *("boxes-nearly-equal", "Two boxes on one object", "warning"),
            *("Two rows of one image have an IoU above 0.9: one object labelled twice, or with two classes.",),
            *("keep one of them", near, lambda fault: fault[2]),
        ),
    )
    findings = []
    for kind, title, severity, words, fix, faults, row_of in kinds:
        # A row that equals several others is one fault.
        unique = list({(fault[0], fault[1], row_of(fault)): fault for fault in faults}.values())
        if unique:
            findings.append(_row_finding(kind, title, severity, words, fix, unique, splits, names))
    return findings
