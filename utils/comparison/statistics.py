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
    """Compare every further model with the first, the baseline; verdicts are corrected for multiple comparisons.

    `images` is the number of images in the validation set.
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
    verdicts = {
        key: decide_all([by_key[key] for by_key in differences], fixed_weights=fixed_weights)
        for key in ((ALL, "", metric) for metric in METRIC_TITLES)
    }
    comparisons = []
    for index, model in enumerate(others):
        decided = {key: of_all[index] for key, of_all in verdicts.items()}
        text = sentence(
            decided[PRIMARY_METRIC],
            differences[index][PRIMARY_METRIC],
            model=model.label,
            baseline=baseline.label,
            metric=METRIC_TITLES[PRIMARY_METRIC[2]],
            fixed_weights=fixed_weights,
        )
        comparisons.append(
            ModelComparison(
                model=model.label,
                baseline=baseline.label,
                differences=differences[index],
                verdicts=decided,
                sentence=text,
            )
        )
    return comparisons


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
    differences = [
        _json_row(
            key,
            value=difference.value,
            low=difference.low,
            high=difference.high,
            standard_error=difference.standard_error,
            degrees_of_freedom=difference.degrees_of_freedom,
            p_value=difference.p_value,
            p_value_corrected=pair.verdicts[key].p_value if key in pair.verdicts else None,
            seed_variance=sum(difference.seed_variances),
            image_variance=difference.image_variance,
            covers_seeds=difference.covers_seeds,
        )
        for key, difference in pair.differences.items()
    ]
    return {
        "model": pair.model,
        "baseline": pair.baseline,
        "verdict": verdict.decision,
        "sentence": pair.sentence,
        "extra_seeds": verdict.extra_seeds,
        "images_factor": verdict.images_factor,
        "differences": differences,
    }


def scores_json(model: ModelScores) -> list[dict[str, Any]]:
    """Return a model's metrics as plain values: mean, standard deviation over seeds, and the value of each run."""
    return [
        _json_row(
            key, mean=float(of.points.mean()), std=math.sqrt(of.seed_variance), runs=[float(v) for v in of.points]
        )
        for key, of in model.metrics.items()
    ]


def _json_row(key: MetricKey, **values: object) -> dict[str, Any]:
    """Return named values of a metric; JSON has no numbers that are not finite."""
    finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
    return {"group": key[0], "name": key[1], "metric": key[2], **finite}
