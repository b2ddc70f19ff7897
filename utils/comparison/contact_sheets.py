"""Contact sheets of a comparison: crops of true positives, false positives and false negatives of each model."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from utils.boxes import pairwise_iou
from utils.comparison.browse import write_browse
from utils.comparison.figures import CONFIDENCE, JPEG_QUALITY
from utils.comparison.result import ComparisonResult
from utils.comparison.shown_runs import ShownRun, by_difference, shown_runs
from utils.datasets.images import read_image
from utils.document import Block, Image
from utils.files import atomic_write
from utils.log import optional
from utils.metrics.evaluated_set import EvaluatedSet
from utils.metrics.tide import BACKGROUND_IOU, ERRORS, TRUE_POSITIVE
from utils.plots.boxes import WHITE, class_colour
from utils.plots.contact_sheet import Crop, Outline, contact_sheet
from utils.plots.fonts import display_name

FOLDER = "sheets"
MAX_CROPS, MAX_PER_IMAGE = 24, 3
KINDS = ("true positives", "false positives", "false negatives")
NOTE = (
    f"Of each model the run nearest to its mean mAP50-95, at a confidence of at least {CONFIDENCE}. First come images "
    "on which the models' F1 differ most, and in them objects that some models find and others do not."
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
    """Draw up to three sheets for each model in place of earlier ones; a kind without any boxes gets none."""
    for path in folder.glob("*.jpg"):
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
    disputed = np.ptp([run.found.astype(float) for run in runs], axis=0)  # 1: found by some models, not by all
    _, spread = by_difference(runs)
    sheets: list[Image] = []
    for number, run in enumerate(runs, 1):
        of = run.evaluated
        is_tp = run.errors.kinds[run.detections] == TRUE_POSITIVE
        hits, false = run.detections[is_tp], run.detections[~is_tp]
        missed = np.flatnonzero(~run.found)
        rows_and_keys = (
            (hits, spread[of.image_ids[hits]], disputed[run.errors.targets[hits]], of.confidences[hits]),
            (false, spread[of.image_ids[false]], np.zeros(len(false)), of.confidences[false]),
            (missed, spread[of.label_image_ids[missed]], disputed[missed], np.zeros(len(missed))),
        )
        for kind, (rows, *keys) in zip(KINDS, rows_and_keys, strict=True):
            rows = rows[np.lexsort([-key for key in reversed(keys)])]
            images = (of.label_image_ids if kind == KINDS[2] else of.image_ids)[rows]
            chosen = rows[_first_per_image(images)][:MAX_CROPS]
            if not len(chosen):
                continue
            legend = (
                f"{display_name(run.title, number, max_letters=60)}: {kind}, {len(chosen)} of {len(rows)}. "
                "Thick: the box of the caption. Only boxes that overlap it are drawn: labels in white, detections "
                f"with a confidence of at least {CONFIDENCE} in colour. Images on which models differ most come first."
            )
            sheet = contact_sheet(_crops(result, run, chosen, kind), legend)
            _, encoded = cv2.imencode(".jpg", sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
            name = re.sub(r"[^\w.-]+", "-", f"{number}-{run.model}-{kind}.jpg")
            path = atomic_write(folder / name, encoded.tobytes())
            sheets.append(Image(path, f"{run.title}: {kind}, {len(chosen)} of {len(rows)}"))
    return [NOTE, *sheets] if sheets else []


def _first_per_image(image_ids: np.ndarray) -> np.ndarray:
    """Return (n,) bool, whether each row is among the first few of its image."""
    order = np.argsort(image_ids, kind="stable")
    ordered = image_ids[order]
    rank = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    among = np.zeros(len(order), bool)
    among[order] = rank < MAX_PER_IMAGE
    return among


def _crops(result: ComparisonResult, run: ShownRun, rows: np.ndarray, kind: str) -> list[Crop]:
    """Return the crops around some detections of a run, or around labels that it did not find."""
    of, names, of_labels = run.evaluated, result.names, kind == KINDS[2]
    read = functools.lru_cache(maxsize=4)(read_image)
    crops = []
    for row in rows.tolist():
        image_id = int((of.label_image_ids if of_labels else of.image_ids)[row])
        class_id = int((of.label_classes if of_labels else of.classes)[row])
        box = of.label_boxes[row] if of_labels else of.boxes[row]
        labels = np.flatnonzero(of.label_image_ids == image_id)
        labels = labels[_overlap(of.label_boxes[labels], box)]
        detections = run.detections[of.image_ids[run.detections] == image_id]
        detections = detections[_overlap(of.boxes[detections], box)]
        outlines = [Outline(of.label_boxes[label], WHITE, of_labels and label == row) for label in labels]
        for detection in detections:
            colour = class_colour(int(of.classes[detection]))
            outlines.append(Outline(of.boxes[detection], colour, not of_labels and detection == row))
        outlines.sort(key=lambda outline: outline.thick)  # on top
        caption = display_name(names[class_id], class_id)
        if not of_labels:
            caption += f" {of.confidences[row]:.2f}"
        if kind == KINDS[1]:
            caption += f" {ERRORS[run.errors.kinds[row]]}"
        path = Path(str(result.val.paths[image_id]))
        crops.append(Crop(image=read(str(path)), box=box, outlines=outlines, caption=caption, name=path.name))
    return crops


def _overlap(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Return (n,) bool, whether each of (n, 4) boxes has more than a background's IoU with a box."""
    return pairwise_iou(boxes, box[None])[:, 0] > BACKGROUND_IOU
