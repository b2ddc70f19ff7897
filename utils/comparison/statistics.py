"""Scores of models over seeds, their differences with intervals and verdicts, and the tables of these."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from utils.comparison.document import Table
from utils.comparison.predictions import ALL, MetricKey, SupportByName
from utils.metrics.paired_difference import Difference, Scores, paired_difference
from utils.metrics.significance import Verdict, decide_all, sentence

METRIC_TITLES = {"map50": "mAP50", "map50_95": "mAP50-95"}
PRIMARY_METRIC: MetricKey = (ALL, "", "map50_95")
# Below these, intervals are unreliable.
RELIABLE_SET_IMAGES, RELIABLE_OBJECTS, RELIABLE_IMAGES = 50, 30, 10
UNTRAINED_MAP50 = 0.02
MAX_NAMED = 5
MISSING = "-"
COST_COLUMNS = {  # key: title and number format
    "parameters": ("Parameters", "{:,.0f}"),
    "gflops": ("GFLOPs", "{:.3g}"),
    "sampling_gflops": ("Sampling GFLOPs", "{:.2g}"),
    "training_seconds": ("Training s", "{:.0f}"),
    "training_memory_gb": ("Training GB", "{:.2f}"),
    "inference_ms": ("Inference ms, median", "{:.1f}"),
    "inference_ms_p95": ("p95", "{:.1f}"),
    "inference_memory_gb": ("Inference GB", "{:.2f}"),
}


@dataclass(frozen=True, kw_only=True)
class ModelScores:
    """All metrics of a model.

    Attributes:
        label: name of the model.
        fixed_weights: the comparison is of these weights, not of how they were trained.
        metrics: values of the runs, and resampled ones.
        seeds: of the runs, None where unknown.
    """

    label: str
    fixed_weights: bool
    metrics: Mapping[MetricKey, Scores]
    seeds: tuple[int | None, ...]

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
    label: str, runs: Sequence[Mapping[MetricKey, np.ndarray]], *, seeds: Sequence[int | None], fixed_weights: bool
) -> ModelScores:
    """Collect the `resampled_metrics` of a model's runs."""
    metrics = {
        key: Scores(points=np.array([run[key][0] for run in runs]), resampled=np.stack([run[key][1:] for run in runs]))
        for key in runs[0]
    }
    return ModelScores(
        label=label, fixed_weights=fixed_weights, seeds=tuple(seeds) or (None,) * len(runs), metrics=metrics
    )


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
        labels = {"model": model.label, "baseline": baseline.label}
        comparisons.append(ModelComparison(**labels, differences=differences[index], verdicts=decided, sentence=text))
    return comparisons


def accuracy_table(models: Sequence[ModelScores]) -> Table:
    """Return the mean and standard deviation over seeds of every model."""
    rows = [
        [model.label, str(model.num_runs), *(_mean_and_std(model, (ALL, "", metric)) for metric in METRIC_TITLES)]
        for model in models
    ]
    return Table(header=["Model", "Seeds", *METRIC_TITLES.values()], rows=rows)


def difference_table(pairs: Sequence[ModelComparison]) -> Table:
    """Return every model's difference from the baseline with its interval, and the verdict on mAP50-95."""
    rows = []
    for pair in pairs:
        verdict = pair.verdicts[PRIMARY_METRIC]
        p_value = "< 0.001" if verdict.p_value < 0.001 else f"{verdict.p_value:.3f}"
        intervals = (_difference(pair, (ALL, "", metric)) for metric in METRIC_TITLES)
        rows.append([pair.title, *intervals, p_value, verdict.decision])
    p_title = "p (Holm)" if len(pairs) > 1 else "p"
    return Table(header=["Difference", *METRIC_TITLES.values(), p_title, "Verdict on mAP50-95"], rows=rows)


def detail_tables(
    models: Sequence[ModelScores], pairs: Sequence[ModelComparison], group: str, support: SupportByName
) -> list[Table]:
    """Return one table per metric of the baseline and of each difference from it.

    It has a row per class or per object size, as `group` is "class" or "size"; `support` is by group and name.
    """
    baseline = models[0]
    tables = []
    for metric, title in METRIC_TITLES.items():
        rows = []
        for key in (key for key in baseline.metrics if (key[0], key[2]) == (group, metric)):
            part = support.get((group, key[1]))
            count = MISSING if part is None else f"{part.objects} in {part.images}"
            rows.append([key[1], count, _mean_and_std(baseline, key), *(_difference(pair, key) for pair in pairs)])
        if rows:
            header = [title, "Objects in images", baseline.label, *(pair.title for pair in pairs)]
            tables.append(Table(header=header, rows=rows))
    return tables


def seed_table(models: Sequence[ModelScores]) -> Table | None:
    """Return mAP50-95 of the seeds that at least two models have, with the difference from the first model in brackets.

    None with fewer than two such seeds.
    """
    by_seed = [dict(zip(m.seeds, m.metrics[PRIMARY_METRIC].points.tolist(), strict=True)) for m in models]
    seeds = [seed for runs in by_seed for seed in runs if seed is not None]
    shared = sorted(seed for seed in set(seeds) if seeds.count(seed) > 1)
    if len(shared) < 2:
        return None
    rows = []
    for seed in shared:
        baseline, *others = (runs.get(seed) for runs in by_seed)
        cells = [MISSING if baseline is None else f"{baseline:.3f}"]
        for value in others:
            gain = "" if value is None or baseline is None else f" ({value - baseline:+.3f})"
            cells.append(MISSING if value is None else f"{value:.3f}{gain}")
        rows.append([f"seed {seed}", *cells])
    return Table(header=["mAP50-95", *(model.label for model in models)], rows=rows)


def cost_table(models: Sequence[ModelScores], costs: Sequence[Mapping[str, Any]]) -> Table:
    """Return each model's cost, and its relative difference from the baseline's."""
    keys = [key for key in COST_COLUMNS if any(cost.get(key) is not None for cost in costs)]
    rows = [
        [model.label, *(_format(cost.get(key), COST_COLUMNS[key][1]) for key in keys)]
        for model, cost in zip(models, costs, strict=True)
    ]
    for model, cost in zip(models[1:], costs[1:], strict=True):
        ratios = (_relative(cost.get(key), costs[0].get(key)) for key in keys)
        rows.append([f"{model.label} - {models[0].label}", *(_format(ratio, "{:+.1%}") for ratio in ratios)])
    return Table(header=["Model", *(COST_COLUMNS[key][0] for key in keys)], rows=rows)


def _mean_and_std(model: ModelScores, key: MetricKey) -> str:
    scores = model.metrics[key]
    mean = f"{scores.points.mean():.3f}"
    return f"{mean} ± {math.sqrt(scores.seed_variance):.3f}" if scores.num_runs > 1 else mean


def _difference(pair: ModelComparison, key: MetricKey) -> str:
    difference = pair.differences[key]
    if math.isnan(difference.low):
        return f"{difference.value:+.3f}"
    return f"{difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"


def _format(value: float | None, form: str) -> str:
    return MISSING if value is None else form.format(value)


def _relative(value: float | None, baseline: float | None) -> float | None:
    return None if value is None or not baseline else value / baseline - 1


def support_warnings(images: int, names: Sequence[str], support: SupportByName) -> list[str]:
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
    known = [model for model in models if None not in model.seeds]
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
