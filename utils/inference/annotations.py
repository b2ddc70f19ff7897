"""What is shown and cut out of an image for its detections: box labels, a one-line summary, crops."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from utils.datasets.images import write_image
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
    """Return the detections per class in one line, as `2 cats, 1 dog`."""
    counts = sorted(Counter(detections.classes.tolist()).items())
    return ", ".join(f"{count} {names[class_id]}{'s' * (count > 1)}" for class_id, count in counts) or "(no detections)"


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


def write_crops(folder: Path, stem: str, image: np.ndarray, detections: Detections, names: Sequence[str]) -> None:
    """Write the crop of each box as `folder/<class>/<stem>.jpg`, numbered from the second box on.

    Boxes that cover no pixel are omitted.
    """
    for index, (box, class_id) in enumerate(zip(detections.boxes.tolist(), detections.classes.tolist(), strict=True)):
        crop = crop_box(image, box)
        suffix = "" if index == 0 else str(index + 1)
        if crop.size:
            write_image(folder / _folder_name(names[class_id], class_id) / f"{stem}{suffix}.jpg", crop)


def _folder_name(name: str, class_id: int) -> str:
    """Return a class name as the name of a folder."""
    return name.replace("/", "_").replace("\\", "_").replace("\0", "_").strip(". ") or str(class_id)
