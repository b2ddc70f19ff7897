"""The validation images on which two models differ most, drawn side by side for the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from utils.boxes import cxcywh_to_xyxy
from utils.comparison.html import ReportImage
from utils.datasets.images import read_image
from utils.datasets.index import DatasetIndex
from utils.files import atomic_write
from utils.metrics.evaluated_set import EvaluatedSet
from utils.plots.boxes import draw_boxes
from utils.plots.fonts import printable

FOLDER = "examples"
CONFIDENCE = 0.25
EACH_WAY = 2
PANEL_SIDE = 420
GAP = 8
QUALITY = 82


def image_scores(judged: EvaluatedSet, *, confidence: float = CONFIDENCE) -> np.ndarray:
    """Return (images,) F1 at overlap 0.5 of each image, 1 for an empty image without false alarms."""
    sure = judged.confidences >= confidence
    right = np.bincount(judged.image_ids[sure & judged.tp[:, 0]], minlength=judged.num_images)
    told = np.bincount(judged.image_ids[sure], minlength=judged.num_images)
    there = np.bincount(judged.label_image_ids, minlength=judged.num_images)
    return np.where(told + there > 0, 2 * right / np.maximum(told + there, 1), 1.0)


def largest_differences(model: Sequence[EvaluatedSet], baseline: Sequence[EvaluatedSet]) -> list[tuple[int, float]]:
    """Return image numbers and mean F1 differences over seeds: the best for the model, then the worst."""
    gain = np.mean([image_scores(j) for j in model], 0) - np.mean([image_scores(j) for j in baseline], 0)
    order = np.argsort(-gain, kind="stable")
    best = [int(i) for i in order[:EACH_WAY] if gain[i] > 0]
    worst = [int(i) for i in order[::-1][:EACH_WAY] if gain[i] < 0]
    return [(i, float(gain[i])) for i in (*best, *worst)]


def representative_seed_pair(
    model: Sequence[EvaluatedSet],
    baseline: Sequence[EvaluatedSet],
    *,
    seeds: tuple[Sequence[int | None], Sequence[int | None]],
    number: int,
    gain: float,
) -> tuple[int, int]:
    """Return the runs of model and baseline whose difference on an image is nearest the mean over all runs.

    Args:
        model: its judgements.
        baseline: likewise.
        seeds: of the runs of either, None where not known; runs of one seed are taken, where there are any.
        number: of the image.
        gain: the mean difference there.
    """
    pairs = [(i, j) for i in range(len(model)) for j in range(len(baseline))]
    alike = [(i, j) for i, j in pairs if seeds[0][i] is not None and seeds[0][i] == seeds[1][j]]
    ours, theirs = ([image_scores(one)[number] for one in own] for own in (model, baseline))
    return min(alike or pairs, key=lambda pair: abs(ours[pair[0]] - theirs[pair[1]] - gain))


def example_images(
    model: Sequence[EvaluatedSet],
    baseline: Sequence[EvaluatedSet],
    *,
    labels: tuple[str, str],
    seeds: tuple[Sequence[int | None], Sequence[int | None]],
    index: DatasetIndex,
    names: Sequence[str],
    folder: Path,
) -> list[ReportImage]:
    """Draw labels, the baseline's and the model's detections of the images on which they differ most.

    Args:
        model: its judgements, one for each seed; those of the run that is most like the mean are drawn.
        baseline: likewise.
        labels: names of model and baseline.
        seeds: of the runs of both, None where not known.
        index: the validation set.
        names: of the classes.
        folder: of the comparison; files go into `examples/` there.

    Raises:
        DataError: an image cannot be read.
        RunError: a file cannot be written.
    """
    found: list[ReportImage] = []
    for number, gain in largest_differences(model, baseline):
        image = read_image(str(index.paths[number]))
        panels = [_draw_labels(image, index, number, names)]
        ours, theirs = representative_seed_pair(model, baseline, seeds=seeds, number=number, gain=gain)
        shown = baseline[theirs], model[ours]
        panels += [_draw_detections(image, one, number, names) for one in shown]
        before, after = (image_scores(one)[number] for one in shown)
        caption = (
            f"{index.paths[number].split('/')[-1]}: labels, {_run(labels[1], seeds[1][theirs], baseline)}, "
            f"{_run(labels[0], seeds[0][ours], model)} from left to right, confidence above {CONFIDENCE}: F1 "
            f"{before:.2f} against {after:.2f}."
        )
        if max(len(model), len(baseline)) > 1:
            caption += f" Over all runs {labels[0] if gain > 0 else labels[1]} is better here by {abs(gain):.2f}."
        path = folder / FOLDER / f"{labels[0]}-{len(found) + 1}.jpg"
        found.append(ReportImage(path=atomic_write(path, _jpeg(_side_by_side(panels))), caption=caption))
    return found


def _run(label: str, seed: int | None, runs: Sequence[EvaluatedSet]) -> str:
    """Return what to call a run of a model: with its seed, if it is one of several."""
    return f"{label} (seed {seed})" if len(runs) > 1 and seed is not None else label


def shown_name(names: Sequence[str], number: int) -> str:
    """Return what an image calls a class; with a single name, all classes of the labels are taken for one."""
    own = number if len(names) > 1 else 0
    return printable(names[own], own)


def _draw_labels(image: np.ndarray, index: DatasetIndex, number: int, names: Sequence[str]) -> np.ndarray:
    rows = index.rows(number)
    height, width = image.shape[:2]
    boxes = cxcywh_to_xyxy(rows[:, 1:]) * np.array((width, height, width, height))
    classes = rows[:, 0].astype(np.int64).tolist()
    return draw_boxes(image, boxes, [shown_name(names, c) for c in classes], classes, thickness=2)


def _draw_detections(image: np.ndarray, judged: EvaluatedSet, number: int, names: Sequence[str]) -> np.ndarray:
    mine = (judged.image_ids == number) & (judged.confidences >= CONFIDENCE)
    classes = judged.classes[mine].tolist()
    texts = [f"{shown_name(names, c)} {s:.2f}" for c, s in zip(classes, judged.confidences[mine], strict=True)]
    return draw_boxes(image, judged.boxes[mine], texts, classes, thickness=2)


def _side_by_side(panels: Sequence[np.ndarray]) -> np.ndarray:
    """Scale panels down to one size and put them next to each other, white between."""
    height, width = panels[0].shape[:2]
    scale = min(PANEL_SIDE / max(height, width), 1.0)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    parts: list[np.ndarray] = []
    for panel in panels:
        parts += [cv2.resize(panel, size, interpolation=cv2.INTER_AREA), np.full((size[1], GAP, 3), 255, np.uint8)]
    return np.concatenate(parts[:-1], axis=1)


def _jpeg(image: np.ndarray) -> bytes:
    """Return an RGB image as JPEG."""
    _, encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return encoded.tobytes()
