"""Images of batches and detections, made from what the engine has in hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from utils.boxes import cxcywh_to_xyxy
from utils.datasets.images import read_image, write_image
from utils.datasets.letterbox import PAD_VALUE
from utils.metrics.detection_errors import DetectionError, detection_errors
from utils.metrics.evaluated_set import ImageEvaluation
from utils.plots.boxes import draw_boxes, image_grid, printable
from utils.structures import Batch, Detections

MAX_IMAGES = 16
THICKNESS = 2
SHOWN_CONFIDENCE = 0.25
TILE = 320  # pixels of a cut's side
CONTEXT = 2.5  # its side in the image, as a multiple of the box's
MIN_CUT = 64
LONGEST_NAME = 18  # letters, two of them and a reason being as wide as a tile


def _pixels(batch: Batch, position: int) -> np.ndarray:
    """Return one image of a batch as (H, W, 3) uint8."""
    return np.ascontiguousarray(batch.images[position].permute(1, 2, 0).numpy())


def plot_labelled_batch(batch: Batch, names: Sequence[str], path: Path, captions: Sequence[str] = ()) -> None:
    """Draw the first sixteen images of a batch with their labels."""
    height, width = batch.images.shape[2:]
    targets = batch.targets.numpy()
    drawn = []
    for position in range(min(len(batch.images), MAX_IMAGES)):
        rows = targets[targets[:, 0] == position]
        boxes = cxcywh_to_xyxy(rows[:, 2:]) * np.array((width, height, width, height))
        classes = rows[:, 1].astype(int).tolist()
        labels = [printable(names[number], number) for number in classes]
        drawn.append(draw_boxes(_pixels(batch, position), boxes, labels, classes, thickness=THICKNESS))
    write_image(path, image_grid(drawn, captions[:MAX_IMAGES]))


def plot_detected_batch(
    batch: Batch, detections: Sequence[Detections], names: Sequence[str], path: Path, captions: Sequence[str] = ()
) -> None:
    """Draw the first sixteen images of a batch with what was found in them above a confidence of 0.25."""
    drawn = []
    for position, found in enumerate(detections[:MAX_IMAGES]):
        sure = found.scores > SHOWN_CONFIDENCE
        classes = found.classes[sure].tolist()
        scores = found.scores[sure].tolist()
        labels = [f"{printable(names[n], n)} {score:.1f}" for n, score in zip(classes, scores, strict=True)]
        boxes = found.boxes[sure].cpu().numpy()
        drawn.append(draw_boxes(_pixels(batch, position), boxes, labels, classes, thickness=THICKNESS))
    write_image(path, image_grid(drawn, captions[:MAX_IMAGES]))


def plot_mistakes(images: Sequence[ImageEvaluation], paths: Sequence[str], names: Sequence[str], run_dir: Path) -> None:
    """Draw the sixteen worst misses and the sixteen worst false alarms of a data set, if there are any.

    The worst misses are labels that nothing hinted at, large ones first, and last those that only lack a box of their
    own; the worst false alarms are the surest.

    Args:
        images: judged.
        paths: files of all images, by their numbers.
        names: class names.
        run_dir: for `worst_misses.jpg` and `worst_false_alarms.jpg`.
    """
    misses: list[tuple[int, DetectionError]] = []
    alarms: list[tuple[int, DetectionError]] = []
    for image in images:
        found = detection_errors(image)
        for kind, mistakes in zip((misses, alarms), found, strict=True):
            kind.extend((image.image_id, mistake) for mistake in mistakes)
    misses.sort(key=lambda entry: (entry[1].confidence, -entry[1].area))
    alarms.sort(key=lambda entry: -entry[1].confidence)
    labels = {image.image_id: image.label_boxes for image in images}
    for name, worst in (("worst_misses", misses[:MAX_IMAGES]), ("worst_false_alarms", alarms[:MAX_IMAGES])):
        if worst:
            tiles = [_tile(read_image(paths[index]), entry, labels[index], names) for index, entry in worst]
            captions = [Path(paths[index]).name for index, _ in worst]
            write_image(run_dir / f"{name}.jpg", image_grid(tiles, captions))


def _tile(image: np.ndarray, mistake: DetectionError, label_boxes: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Return a square cut around a mistake; thin white boxes are the labels."""
    x1, y1, x2, y2 = mistake.box.tolist()
    side = max(CONTEXT * max(x2 - x1, y2 - y1), MIN_CUT)
    corner = np.array((x1 + x2 - side, y1 + y2 - side)) / 2
    scale = TILE / side
    warp = np.array(((scale, 0, -corner[0] * scale), (0, scale, -corner[1] * scale)))
    shrink = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    cut = cv2.warpAffine(image, warp, (TILE, TILE), flags=shrink, borderValue=(PAD_VALUE,) * 3)
    offset = np.tile(corner, 2)
    for box in (label_boxes - offset) * scale:
        left, top, right, bottom = (round(float(value)) for value in box)
        cv2.rectangle(cut, (left, top), (right, bottom), (255, 255, 255), 1, cv2.LINE_AA)
    box = (mistake.box[None] - offset) * scale
    return draw_boxes(cut, box, [_reason(mistake, names)], [mistake.class_id], thickness=THICKNESS)


def _reason(mistake: DetectionError, names: Sequence[str]) -> str:
    """Say what is wrong: `dog 0.91, is cat`, `dog 0.80, again`, `dog 0.75`, or of a miss `dog, at most 0.12`."""
    name = printable(names[mistake.class_id], mistake.class_id, longest=LONGEST_NAME)
    if mistake.matched_to_other:
        return f"{name}, its box {mistake.confidence:.2f} is another's"
    if mistake.is_false_negative:
        return f"{name}, at most {mistake.confidence:.2f}" if mistake.confidence else name
    if mistake.true_class >= 0:
        really = printable(names[mistake.true_class], mistake.true_class, longest=LONGEST_NAME)
        return f"{name} {mistake.confidence:.2f}, is {really}"
    return f"{name} {mistake.confidence:.2f}{', again' if mistake.is_duplicate else ''}"
