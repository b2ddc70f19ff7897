"""Contact sheets of a comparison: crops of true positives, false positives and false negatives of each model."""

from __future__ import annotations

import contextlib
import functools
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from utils.boxes import pairwise_iou
from utils.comparison.browse import write_browse
from utils.comparison.figures import CONFIDENCE, JPEG_QUALITY
from utils.comparison.result import ComparisonResult
from utils.comparison.shown_runs import FALSE_NEGATIVE, ShownBox, ShownRun, by_difference, shown_runs
from utils.datasets.images import read_image
from utils.document import Block, Image
from utils.files import atomic_write
from utils.log import optional
from utils.metrics.evaluated_set import EvaluatedSet
from utils.metrics.tide import BACKGROUND_IOU, ERRORS, MISSED, TRUE_POSITIVE
from utils.plots.boxes import WHITE, class_colour
from utils.plots.contact_sheet import Crop, Outline, contact_sheet
from utils.plots.fonts import display_name

MAX_CROPS, MAX_PER_IMAGE = 24, 3
NOTE = (
    f"Of each model the run nearest to its mean mAP50-95, at a confidence of at least {CONFIDENCE}. First come images "
    "on which the models' F1 differ most, and in them objects that some models find and others do not."
)
LEGEND = (
    "Thick: the box of the caption. Only boxes that overlap it are drawn: labels in white, detections with a "
    f"confidence of at least {CONFIDENCE} in colour. Images on which models differ most come first."
)


def draw_detections(
    result: ComparisonResult, evaluated: Sequence[Sequence[EvaluatedSet]], *, folder: Path, browse: bool
) -> list[Block]:
    """Draw contact sheets, and pages of all images if asked to; what cannot be drawn is a warning.

    `evaluated` holds the predictions of the runs of each model. Returned are the sheets, for the report.
    """
    runs = shown_runs(result, evaluated)
    sheets: list[Block] = []
    with optional():
        sheets = draw_contact_sheets(result, runs, folder=folder / "sheets")
    with optional():
        if browse:
            write_browse(result, runs, folder=folder / "browse")
    return sheets


def draw_contact_sheets(result: ComparisonResult, runs: Sequence[ShownRun], *, folder: Path) -> list[Block]:
    """Draw three sheets for each model in place of earlier ones; a kind without any boxes gets a sentence instead."""
    for path in folder.glob("*.jpg"):
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
    read = functools.lru_cache(maxsize=4)(read_image)
    rank = _rank(runs)
    blocks: list[Block] = [NOTE]
    for number, run in enumerate(runs, 1):
        for kind, boxes in _boxes_by_kind(run).items():
            chosen = _few_per_image(sorted(boxes, key=rank))
            title = f"{kind}, {len(chosen)} of {len(boxes)}" if boxes else f"no {kind}"
            if not boxes:
                blocks.append(f"{run.title}: {title}")
                continue
            crops = [_crop(result, run, box, read) for box in chosen]
            sheet = contact_sheet(crops, f"{display_name(run.title, number, max_letters=60)}: {title}. {LEGEND}")
            _, encoded = cv2.imencode(".jpg", sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
            name = re.sub(r"[^\w.-]+", "-", f"{number}-{run.model}-{kind}.jpg")
            blocks.append(Image(atomic_write(folder / name, encoded.tobytes()), f"{run.title}: {title}"))
    return blocks


def _boxes_by_kind(run: ShownRun) -> dict[str, list[ShownBox]]:
    """Return the boxes of each sheet, image by image."""
    labels, detections = ([box for boxes in of for box in boxes] for of in (run.labels, run.detections))
    return {
        "true positives": [box for box in detections if box.kind == TRUE_POSITIVE],
        "false positives": [box for box in detections if box.kind < MISSED],
        "false negatives": [box for box in labels if box.kind == FALSE_NEGATIVE],
    }


def _rank(runs: Sequence[ShownRun]) -> Callable[[ShownBox], tuple[float, bool, float]]:
    """Return the key of sorting: the difference of F1, whether only some models find the object, and the confidence."""
    _, spread = by_difference(runs)
    finders = Counter(box.label for run in runs for box in _boxes_by_kind(run)["true positives"])
    return lambda box: (
        -spread[box.image_id],
        finders[box.label] in (0, len(runs)),
        -(box.confidence or 0.0),
    )


def _few_per_image(boxes: Sequence[ShownBox]) -> list[ShownBox]:
    """Return the first boxes, at most three of each image."""
    chosen: list[ShownBox] = []
    seen: Counter[int] = Counter()
    for box in boxes:
        seen[box.image_id] += 1
        if seen[box.image_id] <= MAX_PER_IMAGE:
            chosen.append(box)
    return chosen[:MAX_CROPS]


def _crop(result: ComparisonResult, run: ShownRun, box: ShownBox, read: Callable[[str], np.ndarray]) -> Crop:
    """Return the crop around a box, with the boxes that overlap it."""
    others = [*run.labels[box.image_id], *run.detections[box.image_id]]
    overlap = pairwise_iou(np.stack([other.corners for other in others]), box.corners[None])[:, 0]
    outlines = [
        Outline(other.corners, WHITE if other.confidence is None else class_colour(other.class_id), other is box)
        for other, iou in zip(others, overlap, strict=True)
        if iou > BACKGROUND_IOU or other is box
    ]
    outlines.sort(key=lambda outline: outline.thick)  # on top
    names = {box.class_id: display_name(result.names[box.class_id], box.class_id)}
    caption = box.text(names) + (f" {ERRORS[box.kind]}" if box.kind < MISSED else "")
    path = str(result.val.paths[box.image_id])
    return Crop(image=read(path), box=box.corners, outlines=outlines, caption=caption, name=Path(path).name)
