"""Plots of an evaluation: batches with boxes, curves, the confusion matrix, and the worst detection errors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from utils.boxes import cxcywh_to_xyxy
from utils.datasets.image_writing import write_image
from utils.datasets.images import read_image
from utils.datasets.letterbox import PAD_VALUE
from utils.files import write_csv
from utils.metrics.detection_errors import BACKGROUND, DetectionError, detection_errors
from utils.metrics.evaluated_set import ImageEvaluation, box_areas
from utils.plots.boxes import draw_boxes, image_grid
from utils.plots.curves import plot_confidence_curve, plot_precision_recall
from utils.plots.fonts import display_name
from utils.plots.matrices import plot_confusion
from utils.structures import ArrayBatch, Batch, Detections
from utils.thresholds import CONF_THRESHOLD
from utils.validation.evaluate import Evaluation

MAX_IMAGES = 16
THICKNESS = 2
TILE_SIZE = 320  # pixels
CONTEXT = 2.5  # size of a crop relative to its box
MIN_CROP = 64  # pixels
MAX_NAME_LENGTH = 18  # letters; two names and a reason are as wide as a tile


def plot_batch(
    batch: Batch | ArrayBatch,
    names: Sequence[str],
    path: Path,
    captions: Sequence[str] = (),
    detections: Sequence[Detections] = (),
) -> None:
    """Draw the first images of a batch with their labels, or with the given detections above `CONF_THRESHOLD`."""
    height, width = batch.images.shape[2:]
    targets = np.asarray(batch.targets)
    tiles = []
    for position in range(min(len(batch.images), MAX_IMAGES)):
        if not detections:
            rows = targets[targets[:, 0] == position]
            boxes = cxcywh_to_xyxy(rows[:, 2:]) * np.array((width, height, width, height))
            classes = rows[:, 1].astype(int).tolist()
            texts = [display_name(names[c], c) for c in classes]
        else:
            of_image = detections[position]
            confident = of_image.scores > CONF_THRESHOLD
            boxes, scores = of_image.boxes[confident], of_image.scores[confident].tolist()
            classes = of_image.classes[confident].tolist()
            texts = [f"{display_name(names[c], c)} {score:.1f}" for c, score in zip(classes, scores, strict=True)]
        image = np.ascontiguousarray(np.asarray(batch.images[position]).transpose(1, 2, 0))
        tiles.append(draw_boxes(image, boxes, texts, classes, thickness=THICKNESS))
    write_image(path, image_grid(tiles, captions[:MAX_IMAGES]))


def plot_curves(evaluation: Evaluation, names: Sequence[str], run_dir: Path) -> None:
    """Write the curves of P, R and F1, the precision-recall curve, and the confusion matrix as image and csv."""
    metrics, confusion = evaluation.metrics, evaluation.confusion
    background = sum(not len(image.label_classes) for image in evaluation.images)
    note = (
        f"{len(evaluation.images)} images, {background} of them background without objects; detections with a "
        f"confidence above {confusion.conf_threshold}, pairs with an IoU above {confusion.iou_threshold}"
    )
    labels = [*names, "background"]
    rows = ((label, *counts) for label, counts in zip(labels, confusion.counts.tolist(), strict=True))
    write_csv(run_dir / "confusion_matrix.csv", [("predicted \\ true", *labels), *rows])
    plot_confusion(confusion.counts, confusion.normalized(), names, run_dir / "confusion_matrix.png", note=note)
    if not len(metrics.class_ids):
        return
    present = [display_name(names[int(class_id)], int(class_id)) for class_id in metrics.class_ids]
    curves = (("precision", metrics.defined_precision), ("recall", metrics.recall_curve), ("F1", metrics.f1_curve))
    best = metrics.best_confidence
    for (label, curve), name in zip(curves, ("P", "R", "F1"), strict=True):
        path = run_dir / f"{name}_curve.png"
        plot_confidence_curve(metrics.confidences, curve, present, label=label, best=best, path=path)
    plot_precision_recall(metrics.precision_by_recall, metrics.ap[:, 0], present, run_dir / "PR_curve.png")


def plot_detection_errors(
    images: Sequence[ImageEvaluation], paths: Sequence[str], names: Sequence[str], run_dir: Path
) -> None:
    """Write `false_negatives.jpg` and `false_positives.jpg`: the sixteen worst of each, if there are any.

    The worst false negatives are large labels without any detection; those whose detection is paired with another
    label come last. The worst false positives are the most confident ones. `paths` are indexed by image id.
    """
    negatives: list[tuple[int, DetectionError]] = []
    positives: list[tuple[int, DetectionError]] = []
    for image in images:
        for kind, errors in zip((negatives, positives), detection_errors(image), strict=True):
            kind.extend((image.image_id, error) for error in errors)
    negatives.sort(key=lambda entry: (entry[1].confidence, -box_areas(entry[1].box[None])[0]))
    positives.sort(key=lambda entry: -entry[1].confidence)
    label_boxes = {image.image_id: image.label_boxes for image in images}
    for name, worst in (("false_negatives", negatives[:MAX_IMAGES]), ("false_positives", positives[:MAX_IMAGES])):
        if worst:
            tiles = [_error_tile(read_image(paths[i]), error, label_boxes[i], names) for i, error in worst]
            write_image(run_dir / f"{name}.jpg", image_grid(tiles, [Path(paths[i]).name for i, _ in worst]))


def _error_tile(image: np.ndarray, error: DetectionError, label_boxes: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Return a square crop around an error; labels have thin white outlines."""
    x1, y1, x2, y2 = error.box.tolist()
    size = max(CONTEXT * max(x2 - x1, y2 - y1), MIN_CROP)
    corner = np.array((x1 + x2 - size, y1 + y2 - size)) / 2
    scale = TILE_SIZE / size
    warp = np.array(((scale, 0, -corner[0] * scale), (0, scale, -corner[1] * scale)))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    tile = cv2.warpAffine(image, warp, (TILE_SIZE, TILE_SIZE), flags=interpolation, borderValue=(PAD_VALUE,) * 3)
    offset = np.tile(corner, 2)
    for box in (label_boxes - offset) * scale:
        left, top, right, bottom = (round(float(value)) for value in box)
        cv2.rectangle(tile, (left, top), (right, bottom), (255, 255, 255), 1, cv2.LINE_AA)
    box = (error.box[None] - offset) * scale
    return draw_boxes(tile, box, [_caption(error, names)], [error.class_id], thickness=THICKNESS)


def _caption(error: DetectionError, names: Sequence[str]) -> str:
    """Return `dog 0.91, is cat`, `dog 0.80, duplicate` or `dog 0.75`; of a false negative `dog, best 0.12` or `dog`."""
    name = display_name(names[error.class_id], error.class_id, max_letters=MAX_NAME_LENGTH)
    if error.matched_to_other:
        return f"{name}, {error.confidence:.2f} is another's"
    if error.is_false_negative:
        return f"{name}, best {error.confidence:.2f}" if error.confidence else name
    if error.true_class != BACKGROUND:
        true_name = display_name(names[error.true_class], error.true_class, max_letters=MAX_NAME_LENGTH)
        return f"{name} {error.confidence:.2f}, is {true_name}"
    return f"{name} {error.confidence:.2f}{', duplicate' if error.is_duplicate else ''}"
