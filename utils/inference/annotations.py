"""What is shown and cut out of an image for its detections: box labels, a one-line summary, crops."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from utils.datasets.image_writing import write_image
from utils.output_names import MAX_NAME_BYTES, OutputNames, cut_name
from utils.plots.fonts import display_name
from utils.structures import Detections


def box_labels(
    detections: Detections, names: Sequence[str], *, hide_labels: bool = False, hide_conf: bool = False
) -> list[str]:
    """Return the text beside each box: class name and confidence."""
    if hide_labels:
        return [""] * len(detections)
    labels = [display_name(names[class_id], class_id) for class_id in detections.classes.tolist()]
    if hide_conf:
        return labels
    return [f"{label} {score:.2f}" for label, score in zip(labels, detections.scores.tolist(), strict=True)]


def summarize(detections: Detections, names: Sequence[str] | Mapping[int, str]) -> str:
    """Return the detections per class in one line, as `2 cats, 1 dog`, or `2 猫` where English has no plural."""
    counts = sorted(Counter(detections.classes.tolist()).items())
    return ", ".join(_count(count, names[class_id]) for class_id, count in counts) or "(no detections)"


def _count(count: int, name: str) -> str:
    plural = "s" if count > 1 and name.isascii() and name[-1:].isalpha() else ""
    return f"{count} {name}{plural}"


def label_rows(
    class_ids: Sequence[int], boxes: Sequence[Sequence[float]], confidences: Sequence[float], *, with_confidence: bool
) -> str:
    """Return the text of a label file: class id, four coordinates and, if asked for, the confidence of each box."""
    lines = []
    for class_id, box, confidence in zip(class_ids, boxes, confidences, strict=True):
        values = [*box, confidence] if with_confidence else box
        lines.append(" ".join([str(class_id), *(f"{value:.6g}" for value in values)]) + "\n")
    return "".join(lines)


def crop_box(image: np.ndarray, box_xyxy: list[float]) -> np.ndarray:
    """Return the part of an (H, W, 3) image that a box in its pixels covers; empty if it covers no pixel."""
    height, width = image.shape[:2]
    x1, y1, x2, y2 = (round(v) for v in box_xyxy)
    return image[max(y1, 0) : min(max(y2, 0), height), max(x1, 0) : min(max(x2, 0), width)]


def crop_names(taken: OutputNames, stem: str, detections: Detections, names: Sequence[str]) -> list[str]:
    """Return a new name `<class>/<stem>` for the crop of each box, with its number from the second box on."""
    crops = []
    for index, class_id in enumerate(detections.classes.tolist()):
        folder = _folder_name(names[class_id], class_id)
        numbered = stem if index == 0 else f"{stem}_{index + 1}"
        crops.append(f"{folder}/{taken.claim(numbered, folder=f'crops/{folder}', separator='_')}")
    return crops


def write_crops(folder: Path, crop_names: Sequence[str], image: np.ndarray, detections: Detections) -> None:
    """Write the crop of each box as `folder/<name>.jpg`; boxes that cover no pixel are omitted."""
    for box, name in zip(detections.boxes.tolist(), crop_names, strict=True):
        crop = crop_box(image, box)
        if crop.size:
            write_image(folder / f"{name}.jpg", crop)


def _folder_name(name: str, class_id: int) -> str:
    """Return a class name as the name of a folder, without what Windows does not accept."""
    return cut_name(re.sub(r'[<>:"/\\|?*\x00-\x1f]', "_", name), MAX_NAME_BYTES).strip(". ") or str(class_id)
