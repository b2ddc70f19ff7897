"""The label of each detection, and the part of the image that its box covers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from utils.datasets.images import write_image
from utils.plots.boxes import printable
from utils.structures import Detections


def detection_labels(
    found: Detections, names: tuple[str, ...], *, hide_labels: bool = False, hide_conf: bool = False
) -> list[str]:
    """Return the text beside each box: name and confidence."""
    if hide_labels:
        return [""] * len(found)
    labels = [printable(names[number], number) for number in found.classes.tolist()]
    if hide_conf:
        return labels
    return [f"{label} {score:.2f}" for label, score in zip(labels, found.scores.tolist(), strict=True)]


def crop_box(image: np.ndarray, box_xyxy: list[float]) -> np.ndarray:
    """Return the part of an (H, W, 3) image that a box in its pixels covers; empty where it covers no pixel."""
    height, width = image.shape[:2]
    x1, y1, x2, y2 = (round(v) for v in box_xyxy)
    return image[max(y1, 0) : min(max(y2, 0), height), max(x1, 0) : min(max(x2, 0), width)]


def write_crops(
    folder: Path, stem: str, image: np.ndarray, found: Detections, names: tuple[str, ...]
) -> list[Path | None]:
    """Write each box as an image `folder/<class>/<stem>.jpg`, from the second on with a number.

    Returns:
        The file of each box; None for a box without a pixel.
    """
    files: list[Path | None] = []
    for position, (box, number) in enumerate(zip(found.boxes.tolist(), found.classes.tolist(), strict=True)):
        crop = crop_box(image, box)
        suffix = "" if position == 0 else str(position + 1)
        path = folder / _folder_name(names[number], number) / f"{stem}{suffix}.jpg"
        files.append(write_image(path, crop) if crop.size else None)
    return files


def _folder_name(name: str, number: int) -> str:
    """Return a class name as the name of a folder."""
    return name.replace("/", "_").replace("\\", "_").replace("\0", "_").strip(". ") or str(number)
