"""Which run of each model is drawn, what it found and what it got wrong, and on which images the models differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from utils.comparison.figures import CONFIDENCE, image_f1
from utils.comparison.result import ComparisonResult
from utils.comparison.statistics import PRIMARY_METRIC
from utils.metrics.evaluated_set import EvaluatedSet
from utils.metrics.tide import ERRORS, MISSED, TRUE_POSITIVE, assign_errors

LABEL, FALSE_NEGATIVE = 7, 8  # kinds of boxes, beside those of `utils.metrics.tide`
KINDS = {TRUE_POSITIVE: "true positive", **dict(enumerate(ERRORS[:MISSED])), FALSE_NEGATIVE: "false negative"}


@dataclass(frozen=True, eq=False)
class ShownBox:
    """A label, or a detection with a confidence of at least `CONFIDENCE`."""

    image_id: int
    class_id: int
    kind: int  # one of `KINDS`, or `LABEL`
    corners: np.ndarray  # (4,) x1, y1, x2, y2
    label: int  # index of the label that it is, or on which it is a true positive; -1 of others
    confidence: float | None = None  # None of a label

    def text(self, names: Sequence[str] | Mapping[int, str]) -> str:
        """Return the class and the confidence."""
        return names[self.class_id] + ("" if self.confidence is None else f" {self.confidence:.2f}")


@dataclass(frozen=True, kw_only=True)
class ShownRun:
    """The run of a model whose mAP50-95 is nearest to the mean over its seeds."""

    model: str
    title: str  # the model, with the seed if it has several
    labels: Sequence[Sequence[ShownBox]]  # by image, false negatives if no detection is a true positive on them
    detections: Sequence[Sequence[ShownBox]]  # by image
    f1: np.ndarray  # (runs, images) of all runs of the model, at IoU 0.5

    def caption(self, image_id: int) -> str:
        """Return the title and the F1 on an image."""
        mean = self.f1[:, image_id].mean()
        return f"{self.title}, F1 {mean:.2f}" + (f", mean of {len(self.f1)} runs" if len(self.f1) > 1 else "")


def shown_runs(result: ComparisonResult, evaluated: Sequence[Sequence[EvaluatedSet]]) -> list[ShownRun]:
    """Choose a run of each model; `evaluated` holds the predictions of all."""
    return [
        shown_run(scores.label, runs, points=scores.metrics[PRIMARY_METRIC].points, seeds=scores.seeds)
        for scores, runs in zip(result.scores, evaluated, strict=True)
    ]


def shown_run(label: str, runs: Sequence[EvaluatedSet], *, points: np.ndarray, seeds: Sequence[int | None]) -> ShownRun:
    """Choose a run of one model from the predictions, mAP50-95 and seed of each."""
    index = int(np.abs(points - points.mean()).round(9).argmin())  # of two runs, both as near, the first
    seed = seeds[index]
    title = f"{label} (seed {seed})" if len(runs) > 1 and seed is not None else label
    labels, detections = _boxes_by_image(runs[index])
    return ShownRun(
        model=label, title=title, labels=labels, detections=detections, f1=np.stack([image_f1(run) for run in runs])
    )


def _boxes_by_image(run: EvaluatedSet) -> tuple[list[list[ShownBox]], list[list[ShownBox]]]:
    """Return the labels and the confident detections of each image."""
    errors = assign_errors(run, max_detections=len(run.image_ids))
    on_label: np.ndarray = np.where(errors.kinds == TRUE_POSITIVE, errors.targets, -1)
    confident = np.flatnonzero(run.confidences >= CONFIDENCE)
    found = np.isin(np.arange(len(run.label_boxes)), on_label[confident])
    labels: list[list[ShownBox]] = [[] for _ in range(run.num_images)]
    detections: list[list[ShownBox]] = [[] for _ in range(run.num_images)]
    for row in confident.tolist():
        image_id, class_id, kind = (int(of[row]) for of in (run.image_ids, run.classes, errors.kinds))
        box = ShownBox(image_id, class_id, kind, run.boxes[row], int(on_label[row]), float(run.confidences[row]))
        detections[image_id].append(box)
    for row, image_id in enumerate(run.label_image_ids.tolist()):
        kind = LABEL if found[row] else FALSE_NEGATIVE
        labels[image_id].append(ShownBox(image_id, int(run.label_classes[row]), kind, run.label_boxes[row], row))
    return labels, detections


def by_difference(runs: Sequence[ShownRun]) -> tuple[np.ndarray, np.ndarray]:
    """Return the ids of all images, those first on which the models' F1 differ most, and (images,) that difference."""
    f1 = np.array([run.f1.mean(0) for run in runs])
    spread = (f1.max(0) - f1.min(0)).round(6)  # equal ones keep the order of the files
    return np.argsort(-spread, kind="stable"), spread
