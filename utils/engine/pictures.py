"""Pictures of batches and detections, made from what the engine has in hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from utils.boxes import cxcywh_to_xyxy
from utils.datasets.images import write_image
from utils.plots.boxes import draw_boxes, picture_grid, printable
from utils.structures import Batch, Detections

MAX_PICTURES = 16
THICKNESS = 2
SHOWN_CONFIDENCE = 0.25


def _pixels(batch: Batch, position: int) -> np.ndarray:
    """Return one picture of a batch as (H, W, 3) uint8."""
    return np.ascontiguousarray(batch.images[position].permute(1, 2, 0).numpy())


def plot_labelled_batch(batch: Batch, names: Sequence[str], path: Path, captions: Sequence[str] = ()) -> None:
    """Draw the first sixteen pictures of a batch with their labels."""
    height, width = batch.images.shape[2:]
    targets = batch.targets.numpy()
    drawn = []
    for position in range(min(len(batch.images), MAX_PICTURES)):
        rows = targets[targets[:, 0] == position]
        boxes = cxcywh_to_xyxy(rows[:, 2:]) * np.array((width, height, width, height))
        classes = rows[:, 1].astype(int).tolist()
        labels = [printable(names[number], number) for number in classes]
        drawn.append(draw_boxes(_pixels(batch, position), boxes, labels, classes, thickness=THICKNESS))
    write_image(path, picture_grid(drawn, captions[:MAX_PICTURES]))


def plot_detected_batch(
    batch: Batch, detections: Sequence[Detections], names: Sequence[str], path: Path, captions: Sequence[str] = ()
) -> None:
    """Draw the first sixteen pictures of a batch with what was found in them above a confidence of 0.25."""
    drawn = []
    for position, found in enumerate(detections[:MAX_PICTURES]):
        sure = found.scores > SHOWN_CONFIDENCE
        classes = found.classes[sure].tolist()
        scores = found.scores[sure].tolist()
        labels = [f"{printable(names[n], n)} {score:.1f}" for n, score in zip(classes, scores, strict=True)]
        boxes = found.boxes[sure].cpu().numpy()
        drawn.append(draw_boxes(_pixels(batch, position), boxes, labels, classes, thickness=THICKNESS))
    write_image(path, picture_grid(drawn, captions[:MAX_PICTURES]))
