"""From judged runs to what is reported: means and spreads, differences with intervals, verdicts, and warnings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from utils.comparison.predictions import ALL, Key
from utils.datasets.index import DatasetIndex
from utils.metrics.paired_difference import Difference, Scores, paired_difference
from utils.metrics.significance import Verdict, decide_all, sentence

TITLES = {"map50": "mAP50", "map50_95": "mAP50-95"}
PRIMARY_METRIC: Key = (ALL, "", "map50_95")
UNLEARNED = 0.02
FEW_IMAGES, FEW_LABELS, FEW_IMAGES_OF_CLASS = 50, 30, 10
MOST_NAMED = 5
RULE = (
    f"fewer than {FEW_IMAGES} images, or a class or size with fewer than {FEW_LABELS} objects or in fewer than "
    f"{FEW_IMAGES_OF_CLASS} images"
)


@dataclass(frozen=True, kw_only=True)
class ModelScores:
    """All figures of one model: per key, the runs' own values and resampled ones; and the seeds as far as known."""

    label: str
    fixed_weights: bool
    metrics: Mapping[Key, Scores]
    seeds: tuple[int | None, ...] = ()

    @property
    def runs(self) -> int:
        """How many runs there are."""
        return self.metrics[PRIMARY_METRIC].num_runs

    def of_seed(self, seed: int, key: Key = PRIMARY_METRIC) -> float | None:
        """Return a figure of the run with this seed; None if there is no such run."""
        if seed not in self.seeds:
            return None
        return float(self.metrics[key].points[self.seeds.index(seed)])


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One model against the baseline.

    Attributes:
        model: label.
        baseline: label.
        differences: of every figure.
        verdicts: of mAP50 and mAP50-95; the latter decides.
        words: the verdict as a sentence.
    """

    model: str
    baseline: str
    differences: Mapping[Key, Difference]
    verdicts: Mapping[Key, Verdict]
    words: str


def collect_scores(
    label: str,
    runs: Sequence[Mapping[Key, np.ndarray]],
    *,
    fixed_weights: bool,
    seeds: Sequence[int | None] = (),
) -> ModelScores:
    """Put the figures of a model's runs together; `seeds` are theirs, None where not known."""
    return ModelScores(
        label=label,
        fixed_weights=fixed_weights,
        seeds=tuple(seeds),
        metrics={
            key: Scores(
                points=np.array([run[key][0] for run in runs]), resampled=np.stack([run[key][1:] for run in runs])
            )
            for key in runs[0]
        },
    )


def compare_with_baseline(models: Sequence[ModelScores], *, images: int) -> list[Pair]:
    """Compare every further model with the first, corrected for their number.

    Args:
        models: the first is the baseline.
        images: images in the validation set.
    """
    baseline, others = models[0], models[1:]
    differences: list[dict[Key, Difference]] = [{} for _ in others]
    for key in baseline.metrics:
        variance_donors = [model.metrics[key] for model in models]
        for found, other in zip(differences, others, strict=True):
            found[key] = paired_difference(
                other.metrics[key], baseline.metrics[key], num_images=images, variance_donors=variance_donors
            )
    finished = all(model.fixed_weights for model in models)
    verdicts: list[dict[Key, Verdict]] = [{} for _ in others]
    for figure in TITLES:
        key = (ALL, "", figure)
        judged = decide_all([found[key] for found in differences], fixed_weights=finished)
        for told, verdict in zip(verdicts, judged, strict=True):
            told[key] = verdict
    return [
        Pair(
            model=other.label,
            baseline=baseline.label,
            differences=found,
            verdicts=told,
            words=sentence(
                told[PRIMARY_METRIC],
                found[PRIMARY_METRIC],
                model=other.label,
                baseline=baseline.label,
                metric=TITLES[PRIMARY_METRIC[2]],
                fixed_weights=finished,
            ),
        )
        for other, found, told in zip(others, differences, verdicts, strict=True)
    ]


def support_warnings(
    index: DatasetIndex, names: Sequence[str], amounts: Mapping[tuple[str, str], tuple[int, int]] | None = None
) -> list[str]:
    """Say when a validation set is too small for an interval to be trusted.

    Args:
        index: the validation set.
        names: of the classes; a single one stands for all.
        amounts: objects and images of each size, as `support_by_class` counts them.
    """
    found = []
    if len(index) < FEW_IMAGES:
        found.append(f"{len(index)} images")
    image_of = np.repeat(np.arange(len(index)), np.diff(index.starts))
    numbers = index.labels[:, 0].astype(np.int64) if len(names) > 1 else np.zeros(len(index.labels), np.int64)
    absent = [name for number, name in enumerate(names) if number not in numbers]
    if absent:
        more = f" and {len(absent) - MOST_NAMED} more" if len(absent) > MOST_NAMED else ""
        found.append(f"no object at all of {', '.join(absent[:MOST_NAMED])}{more}")
    for number in np.unique(numbers):
        mine = numbers == number
        labels, images = int(mine.sum()), len(np.unique(image_of[mine]))
        if labels < FEW_LABELS or images < FEW_IMAGES_OF_CLASS:
            found.append(f"{names[int(number)]} with {labels} objects in {images} images")
    for (group, size), (objects, images) in (amounts or {}).items():
        if group == "size" and (objects < FEW_LABELS or images < FEW_IMAGES_OF_CLASS):
            found.append(f"{size} ones with {objects} objects in {images} images")
    if not found:
        return []
    shown = "; ".join(found[:MOST_NAMED])
    shown += f"; and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
    return [f"The set judged on is too small to be sure of the intervals ({shown}). The rule: {RULE}."]


def seed_warnings(models: Sequence[ModelScores]) -> list[str]:
    """Say when there are too few seeds."""
    counts = {model.label: model.runs for model in models}
    if max(counts.values()) == 1:
        return ["One run of each model: the intervals cover other images, but not the luck of the seed."]
    found = []
    few = [label for label, count in counts.items() if count < 3]
    if few:
        found.append(
            f"Fewer than three seeds of {', '.join(few)}: the spread over seeds is a rough guess, and the intervals "
            "are wide, or where the models' luck differs, too narrow."
        )
    known = [model for model in models if model.seeds and None not in model.seeds]
    if len({model.seeds for model in known}) > 1:
        sets = "; ".join(f"{model.label} {', '.join(map(str, model.seeds))}" for model in known)
        found.append(
            f"The models do not have the same seeds ({sets}). All runs count; those of seeds that only one model has "
            "saw their images in another order."
        )
    return found


def shared_seeds(models: Sequence[ModelScores]) -> list[int]:
    """Return in ascending order the seeds that at least two of the models have."""
    seeds = [seed for model in models for seed in set(model.seeds) if seed is not None]
    return sorted(seed for seed in set(seeds) if seeds.count(seed) > 1)


def learning_warnings(models: Sequence[ModelScores]) -> list[str]:
    """Say when a model has learned next to nothing, so that a difference from it means little."""
    found = [model.label for model in models if model.metrics[ALL, "", "map50"].points.mean() < UNLEARNED]
    if not found:
        return []
    return [f"{', '.join(found)}: mAP50 below {UNLEARNED}, so next to nothing was learned; train longer."]


def pair_json(pair: Pair) -> dict[str, Any]:
    """Return a comparison as plain values."""
    verdict = pair.verdicts[PRIMARY_METRIC]
    return {
        "model": pair.model,
        "baseline": pair.baseline,
        "verdict": verdict.decision,
        "words": pair.words,
        "more_seeds": verdict.extra_seeds,
        "times_images": verdict.images_factor,
        "differences": [
            {
                "group": key[0],
                "name": key[1],
                "figure": key[2],
                "value": _number(difference.value),
                "low": _number(difference.low),
                "high": _number(difference.high),
                "standard_error": _number(difference.standard_error),
                "degrees_of_freedom": _number(difference.degrees_of_freedom),
                "p_value": _number(difference.p_value),
                "p_value_corrected": _number(pair.verdicts[key].p_value) if key in pair.verdicts else None,
                "seed_variance": _number(sum(difference.seed_variances)),
                "image_variance": _number(difference.image_variance),
                "covers_seeds": difference.covers_seeds,
            }
            for key, difference in pair.differences.items()
        ],
    }


def model_json(model: ModelScores) -> list[dict[str, Any]]:
    """Return a model's figures as plain values: mean, spread, and one value for each run."""
    return [
        {
            "group": key[0],
            "name": key[1],
            "figure": key[2],
            "mean": _number(float(scores.points.mean())),
            "spread": _number(math.sqrt(scores.seed_variance)) if scores.num_runs > 1 else None,
            "runs": [_number(float(value)) for value in scores.points],
        }
        for key, scores in model.metrics.items()
    ]


def _number(value: float) -> float | None:
    """Return a number that JSON knows."""
    return value if math.isfinite(value) else None
