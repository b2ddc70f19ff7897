"""Which run of each model is drawn, what it detected, and on which images the models differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from utils.comparison.figures import CONFIDENCE, image_f1
from utils.comparison.result import ComparisonResult
from utils.comparison.statistics import PRIMARY_METRIC
from utils.metrics.evaluated_set import EvaluatedSet
from utils.metrics.tide import TRUE_POSITIVE, AssignedErrors, assign_errors


@dataclass(frozen=True, kw_only=True)
class ShownRun:
    """The run of a model whose mAP50-95 is nearest to the mean over its seeds, at a confidence threshold."""

    model: str
    title: str  # the model, with the seed if it has several
    evaluated: EvaluatedSet
    errors: AssignedErrors
    detections: np.ndarray  # indices of those with at least `CONFIDENCE`, image by image
    found: np.ndarray  # (m,) bool, labels with a true positive among these
    f1: np.ndarray  # (runs, images) of all runs of the model, at IoU 0.5

    def caption(self, image_id: int) -> str:
        """Return the title and the F1 on an image."""
        mean = self.f1[:, image_id].mean()
        return f"{self.title}, F1 {mean:.2f}" + (f", mean of {len(self.f1)} runs" if len(self.f1) > 1 else "")


def shown_runs(result: ComparisonResult, evaluated: Sequence[Sequence[EvaluatedSet]]) -> list[ShownRun]:
    """Choose a run of each model; `evaluated` holds the predictions of all."""
    shown = []
    for scores, runs in zip(result.scores, evaluated, strict=True):
        points = scores.metrics[PRIMARY_METRIC].points
        index = int(np.abs(points - points.mean()).argmin())
        run, seed = runs[index], scores.seeds[index]
        errors = assign_errors(run, max_detections=len(run.image_ids))
        detections = np.flatnonzero(run.confidences >= CONFIDENCE)
        found = np.zeros(len(run.label_image_ids), bool)
        found[errors.targets[detections[errors.kinds[detections] == TRUE_POSITIVE]]] = True
        shown.append(
            ShownRun(
                model=scores.label,
                title=f"{scores.label} (seed {seed})" if len(runs) > 1 and seed is not None else scores.label,
                evaluated=run,
                errors=errors,
                detections=detections,
                found=found,
                f1=np.stack([image_f1(one) for one in runs]),
            )
        )
    return shown


def by_difference(runs: Sequence[ShownRun]) -> tuple[np.ndarray, np.ndarray]:
    """Return the ids of all images, those first on which the models' F1 differ most, and (images,) that difference."""
    f1 = np.array([run.f1.mean(0) for run in runs])
    spread = (f1.max(0) - f1.min(0)).round(6)  # equal ones keep the order of the files
    return np.argsort(-spread, kind="stable"), spread
