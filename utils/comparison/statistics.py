"""Scores of models over seeds, their differences with intervals, and the verdicts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from utils.comparison.predictions import ALL, MetricKey, Support
from utils.metrics.paired_difference import Difference, Scores, paired_difference
from utils.metrics.significance import Verdict, decide_all, sentence

METRIC_TITLES = {"map50": "mAP50", "map50_95": "mAP50-95"}
PRIMARY_METRIC: MetricKey = (ALL, "", "map50_95")
# Below these, intervals are unreliable.
RELIABLE_SET_IMAGES, RELIABLE_OBJECTS, RELIABLE_IMAGES = 50, 30, 10
UNTRAINED_MAP50 = 0.02
MAX_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class ModelScores:
    """All metrics of a model.

    Attributes:
        label: name of the model.
        fixed_weights: the comparison is of these weights, not of how they were trained.
        metrics: values of the runs, and resampled ones.
        seeds: of the runs, None where unknown; empty if all are.
    """

    label: str
    fixed_weights: bool
    metrics: Mapping[MetricKey, Scores]
    seeds: tuple[int | None, ...] = ()

    @property
    def num_runs(self) -> int:
        """Number of runs."""
        return self.metrics[PRIMARY_METRIC].num_runs


@dataclass(frozen=True, kw_only=True)
class ModelComparison:
    """A model compared with the baseline.

    Attributes:
        model: label.
        baseline: label.
        differences: model minus baseline, of every metric.
        verdicts: on mAP50 and on mAP50-95, the primary metric.
        sentence: the verdict on the primary metric.
    """

    model: str
    baseline: str
    differences: Mapping[MetricKey, Difference]
    verdicts: Mapping[MetricKey, Verdict]
    sentence: str

    @property
    def title(self) -> str:
        """Name of the difference."""
        return f"{self.model} - {self.baseline}"


def collect_scores(
    label: str,
    runs: Sequence[Mapping[MetricKey, np.ndarray]],
    *,
    fixed_weights: bool,
    seeds: Sequence[int | None] = (),
) -> ModelScores:
    """Collect the `resampled_metrics` of a model's runs."""
    metrics = {
        key: Scores(points=np.array([run[key][0] for run in runs]), resampled=np.stack([run[key][1:] for run in runs]))
        for key in runs[0]
    }
    return ModelScores(label=label, fixed_weights=fixed_weights, seeds=tuple(seeds), metrics=metrics)


def compare_with_baseline(models: Sequence[ModelScores], *, images: int) -> list[ModelComparison]:
    """Compare every further model with the first, with verdicts corrected for multiple comparisons.

    Args:
        models: the first is the baseline.
        images: number of images in the validation set.
    """
    baseline, others = models[0], models[1:]
    differences = [
        {
            key: paired_difference(
                model.metrics[key], scores, num_images=images, variance_donors=[donor.metrics[key] for donor in models]
            )
            for key, scores in baseline.metrics.items()
        }
        for model in others
    ]
    fixed_weights = all(model.fixed_weights for model in models)
    verdicts: list[dict[MetricKey, Verdict]] = [{} for _ in others]
    for metric in METRIC_TITLES:
        key = (ALL, "", metric)
        decided = decide_all([by_key[key] for by_key in differences], fixed_weights=fixed_weights)
        for by_key, verdict in zip(verdicts, decided, strict=True):
            by_key[key] = verdict
    return [
        ModelComparison(
            model=model.label,
            baseline=baseline.label,
            differences=of_model,
            verdicts=decided_of_model,
            sentence=sentence(
                decided_of_model[PRIMARY_METRIC],
                of_model[PRIMARY_METRIC],
                model=model.label,
                baseline=baseline.label,
                metric=METRIC_TITLES[PRIMARY_METRIC[2]],
                fixed_weights=fixed_weights,
            ),
        )
        for model, of_model, decided_of_model in zip(others, differences, verdicts, strict=True)
    ]


def support_warnings(images: int, names: Sequence[str], support: Mapping[tuple[str, str], Support]) -> list[str]:
    """Warn of a validation set that is too small for reliable intervals; `support` as of `support_by_class`."""
    reasons = [f"{images} images"] if images < RELIABLE_SET_IMAGES else []
    absent = [name for name in names if ("class", name) not in support]
    if absent:
        more = f" and {len(absent) - MAX_NAMED} more" if len(absent) > MAX_NAMED else ""
        reasons.append(f"no objects of {', '.join(absent[:MAX_NAMED])}{more}")
    reasons += [
        f"{name}: {part.objects} objects in {part.images} images"
        for (_, name), part in support.items()
        if part.objects < RELIABLE_OBJECTS or part.images < RELIABLE_IMAGES
    ]
    if not reasons:
        return []
    shown = "; ".join(reasons[:MAX_NAMED])
    shown += f"; and {len(reasons) - MAX_NAMED} more" if len(reasons) > MAX_NAMED else ""
    return [
        f"The validation set is too small for reliable intervals ({shown}). They need {RELIABLE_SET_IMAGES} images and "
        f"{RELIABLE_OBJECTS} objects in {RELIABLE_IMAGES} images of each class and size."
    ]


def score_warnings(models: Sequence[ModelScores]) -> list[str]:
    """Warn of too few seeds, of models with different seeds, and of models that have hardly learned anything."""
    warnings = []
    single_runs = max(model.num_runs for model in models) == 1
    few = [model.label for model in models if model.num_runs < 3]
    if single_runs:
        warnings.append("One run of each model: the intervals cover other images, but not seed variance.")
    elif few:
        warnings.append(
            f"Fewer than three seeds of {', '.join(few)}: seed variance is a rough estimate, and the intervals are "
            "wide, or too narrow where the models differ in seed variance."
        )
    known = [model for model in models if model.seeds and None not in model.seeds]
    if len({model.seeds for model in known}) > 1 and not single_runs:
        seeds = "; ".join(f"{model.label} {', '.join(map(str, model.seeds))}" for model in known)
        warnings.append(
            f"The models have different seeds ({seeds}). All runs count, but with other seeds they saw the images in "
            "another order."
        )
    untrained = [model.label for model in models if model.metrics[ALL, "", "map50"].points.mean() < UNTRAINED_MAP50]
    if untrained:
        warnings.append(f"{', '.join(untrained)}: hardly trained (mAP50 below {UNTRAINED_MAP50}); train longer.")
    return warnings


def comparison_json(pair: ModelComparison) -> dict[str, Any]:
    """Return a comparison as plain values."""
    verdict = pair.verdicts[PRIMARY_METRIC]
    return {
        "model": pair.model,
        "baseline": pair.baseline,
        "verdict": verdict.decision,
        "sentence": pair.sentence,
        "extra_seeds": verdict.extra_seeds,
        "images_factor": verdict.images_factor,
        "differences": [
            {
                "group": key[0],
                "name": key[1],
                "metric": key[2],
                "value": _finite(difference.value),
                "low": _finite(difference.low),
                "high": _finite(difference.high),
                "standard_error": _finite(difference.standard_error),
                "degrees_of_freedom": _finite(difference.degrees_of_freedom),
                "p_value": _finite(difference.p_value),
                "p_value_corrected": _finite(pair.verdicts[key].p_value) if key in pair.verdicts else None,
                "seed_variance": _finite(sum(difference.seed_variances)),
                "image_variance": _finite(difference.image_variance),
                "covers_seeds": difference.covers_seeds,
            }
            for key, difference in pair.differences.items()
        ],
    }


def scores_json(model: ModelScores) -> list[dict[str, Any]]:
    """Return a model's metrics as plain values: mean, standard deviation over seeds, and the value of each run."""
    return [
        {
            "group": key[0],
            "name": key[1],
            "metric": key[2],
            "mean": _finite(float(scores.points.mean())),
            "std": _finite(math.sqrt(scores.seed_variance)) if scores.num_runs > 1 else None,
            "runs": [_finite(float(value)) for value in scores.points],
        }
        for key, scores in model.metrics.items()
    ]


def _finite(value: float) -> float | None:
    """Return a number that JSON can represent."""
    return value if math.isfinite(value) else None
