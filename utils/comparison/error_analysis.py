"""compare.py's error analysis: what each kind of error costs each model, and the differences with their intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from utils.comparison.predictions import MetricKey
from utils.comparison.statistics import ModelComparison, ModelScores, mean_and_std
from utils.document import Block, Section, Table
from utils.metrics.coco_resampling import as_exported
from utils.metrics.evaluated_set import EvaluatedSet
from utils.metrics.tide import AP, ERRORS, FALSE_NEGATIVES, FALSE_POSITIVES, error_scores

HEADING = "Errors"
ERROR = "error"  # group of the metrics
KEYS: dict[MetricKey, str] = {  # with the titles of the rows
    (ERROR, AP, "ap50"): "AP at IoU 0.5",
    **{(ERROR, name, "dap50"): name.capitalize() for name in ERRORS},
    **{(ERROR, name, "dap50"): f"All {name}" for name in (FALSE_POSITIVES, FALSE_NEGATIVES)},
}
RESAMPLED_TWICE, MAX_RATIO = 200, 2.0
NOTE = (
    "What AP at IoU 0.5 would gain if all errors of one kind were corrected (TIDE, Bolya et al. 2020): classification: "
    "right place, wrong class; localization: right class, IoU of 0.1 to 0.5; both: wrong class and such an IoU; "
    "duplicate: a further detection of a detected object; background: no object there; missed: no detection there, not "
    "even a wrong one. The gains overlap and need not add up. AP counts 100 detections per image, unlike mAP50."
)
DIFFERENCE_NOTE = "A negative difference: these errors cost less. Neither intervals nor asterisks are corrected."


def error_metrics(evaluated: EvaluatedSet, weights: np.ndarray) -> dict[MetricKey, np.ndarray]:
    """Compute AP and the gain by each kind of error as `resampled_metrics` does: (1 + r,), the set itself first.

    Boxes and confidences are those of the JSON files that val.py writes, so that tidecv gives the same values.

    A resample repeats images, and among sets with repetitions a gain varies less than among sets of other images, that
    by duplicates by an eighth. How much less is seen by resampling resamples once more (Beran 1987, "Prepivoting to
    reduce level error of confidence sets"); the deviations from the mean are multiplied by that ratio, at least 1.

    `weights` are (r, images) integers, how many times each resample contains each image.
    """
    images, resamples = evaluated.num_images, len(weights)
    rates = weights[:RESAMPLED_TWICE] / max(images, 1)
    generator = np.random.default_rng(0)
    pairs = [generator.multinomial(images, rates).astype(weights.dtype) for _ in range(2)]
    scores = error_scores(
        as_exported(evaluated), np.concatenate((np.ones((1, images), weights.dtype), weights, *pairs))
    )
    metrics = {}
    for key, values in zip(KEYS, scores.values(), strict=True):
        own, resampled, twice = values[:1], values[1 : resamples + 1], values[resamples + 1 :].reshape(2, -1)
        spread = math.sqrt(np.square(twice[0] - twice[1]).mean() / 2)
        ratio = float(np.clip(resampled.std() / spread, 1, MAX_RATIO)) if spread > 0 else 1.0
        metrics[key] = np.concatenate((own, resampled.mean() + ratio * (resampled - resampled.mean())))
    return metrics


def error_sections(models: Sequence[ModelScores], pairs: Sequence[ModelComparison]) -> list[Section]:
    """Return the table of all models' errors, and that of the differences from the baseline."""
    if any(key not in model.metrics for model in models for key in KEYS):
        return []
    rows = [[title, *(mean_and_std(model, key) for model in models)] for key, title in KEYS.items()]
    blocks: list[Block] = [NOTE, Table(header=["Gain of AP", *(model.label for model in models)], rows=rows)]
    if pairs:
        rows = [[title, *(pair.text(key) for pair in pairs)] for key, title in KEYS.items()]
        blocks += [DIFFERENCE_NOTE, Table(header=["Difference", *(pair.title for pair in pairs)], rows=rows)]
    return [Section(HEADING, blocks)]
