"""Scores of models over seeds, their differences with intervals and verdicts, and the tables of these."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from utils.comparison.predictions import ALL, COCO, MetricKey, SupportByName
from utils.document import Table
from utils.metrics.joint_difference import RandomEffects
from utils.metrics.paired_difference import Difference, Scores, paired_difference
from utils.metrics.significance import Verdict, decide_all, sentence, significance_mark

METRIC_TITLES = {"map50": "mAP50", "map50_95": "mAP50-95"}  # metrics with a verdict
POINT_TITLES = {"precision": "P", "recall": "R", "f1": "F1"}
ALL_TITLES = {**POINT_TITLES, "map50": "mAP50", "map75": "mAP75", "map50_95": "mAP50-95"}
PRIMARY_METRIC: MetricKey = (ALL, "", "map50_95")
# Below these, intervals are unreliable.
RELIABLE_SET_IMAGES, RELIABLE_OBJECTS, RELIABLE_IMAGES = 50, 30, 10
MISSING = "-"
SIZE_COLUMNS = {  # key: title and number format
    "parameters": ("Parameters", "{:,.0f}"),
    "gflops": ("GFLOPs", "{:.3g}"),
    "sampling_gflops": ("Sampling GFLOPs", "{:.2g}"),
    "file_mb_fp32": ("File MB, fp32", "{:.2f}"),
    "file_mb_fp16": ("File MB, fp16", "{:.2f}"),
    "training_seconds": ("Training s", "{:.0f}"),
    "training_memory_gb": ("Training GB", "{:.2f}"),
}
SPEED_COLUMNS = {
    "preprocess_ms": ("Preprocessing ms", "{:.1f}"),
    "inference_ms": ("Inference ms, median", "{:.1f}"),
    "inference_ms_p95": ("p95", "{:.1f}"),
    "nms_ms": ("NMS ms", "{:.1f}"),
    "fps_network": ("FPS, network alone", "{:.1f}"),
    "fps_end_to_end": ("FPS, end to end", "{:.1f}"),
    "inference_memory_gb": ("Inference GB", "{:.3g}"),
}
COST_COLUMNS = SIZE_COLUMNS | SPEED_COLUMNS
NOT_COMPARABLE = ("training_seconds",)  # of different hours, with other work on the machine


@dataclass(frozen=True, kw_only=True)
class ModelScores:
    """All metrics of a model."""

    label: str
    fixed_weights: bool  # given by --weights; with one run each, the verdict is about these weights only
    metrics: Mapping[MetricKey, Scores]  # values of the runs, and resampled ones
    seeds: tuple[int | None, ...]  # of the runs, None where unknown


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """A contrast of models in all metrics, such as a difference from the baseline."""

    title: str
    differences: Mapping[MetricKey, Difference]
    verdicts: Mapping[MetricKey, Verdict]  # on mAP50 and on mAP50-95, the primary metric
    marks: Mapping[MetricKey, str]  # of significance, by `p_value`

    def p_value(self, key: MetricKey) -> float:
        """Return the p-value of a metric, corrected for several contrasts if the metric has a verdict."""
        return self.verdicts[key].p_value if key in self.verdicts else self.differences[key].p_value

    def text(self, key: MetricKey) -> str:
        """Return the difference in a metric with its mark of significance and its interval."""
        return interval_text(self.differences[key], self.marks[key])

    def sentence_of(self, model: str, baseline: str, *, fixed_weights: bool, where: str = "") -> str:
        """Return the verdict on the primary metric as text."""
        verdict, difference = self.verdicts[PRIMARY_METRIC], self.differences[PRIMARY_METRIC]
        names = {"model": model, "baseline": baseline, "metric": METRIC_TITLES["map50_95"], "where": where}
        return sentence(verdict, difference, **names, fixed_weights=fixed_weights)


@dataclass(frozen=True, kw_only=True)
class ModelComparison(Contrast):
    """A model compared with the baseline: its metrics minus the baseline's."""

    model: str  # the label, as `baseline`
    baseline: str
    sentence: str  # the verdict


def collect_scores(
    label: str, runs: Sequence[Mapping[MetricKey, np.ndarray]], *, seeds: Sequence[int | None], fixed_weights: bool
) -> ModelScores:
    """Collect the `resampled_metrics` of a model's runs."""
    metrics = {
        key: Scores(points=np.array([run[key][0] for run in runs]), resampled=np.stack([run[key][1:] for run in runs]))
        for key in runs[0]
    }
    return ModelScores(label=label, fixed_weights=fixed_weights, seeds=tuple(seeds), metrics=metrics)


def decide_contrasts(
    differences: Sequence[Mapping[MetricKey, Difference]], titles: Sequence[str], *, fixed_weights: bool
) -> list[Contrast]:
    """Decide on contrasts with verdicts that are corrected for their number."""
    keys: list[MetricKey] = [(ALL, "", metric) for metric in METRIC_TITLES]
    verdicts = {key: decide_all([of[key] for of in differences], fixed_weights=fixed_weights) for key in keys}
    contrasts = []
    for index, (title, of) in enumerate(zip(titles, differences, strict=True)):
        decided = {key: of_all[index] for key, of_all in verdicts.items()}
        p_values = {key: decided[key].p_value if key in decided else one.p_value for key, one in of.items()}
        marks = {key: significance_mark(one, p_values[key], fixed_weights=fixed_weights) for key, one in of.items()}
        contrasts.append(Contrast(title=title, differences=of, verdicts=decided, marks=marks))
    return contrasts


def compare_with_baseline(models: Sequence[ModelScores], *, images: int) -> list[ModelComparison]:
    """Compare every further model with the first, the baseline, on a number of images, with corrected verdicts."""
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
    titles = [f"{model.label} - {baseline.label}" for model in others]
    fixed_weights = all(model.fixed_weights for model in models)
    comparisons = []
    for model, one in zip(others, decide_contrasts(differences, titles, fixed_weights=fixed_weights), strict=True):
        text = one.sentence_of(model.label, baseline.label, fixed_weights=fixed_weights)
        comparisons.append(ModelComparison(model=model.label, baseline=baseline.label, sentence=text, **vars(one)))
    return comparisons


def accuracy_table(models: Sequence[ModelScores]) -> Table:
    """Return the mean and standard deviation over seeds of every model."""
    rows = [
        [model.label, str(len(model.seeds)), *(mean_and_std(model, (ALL, "", metric)) for metric in ALL_TITLES)]
        for model in models
    ]
    return Table(header=["Model", "Seeds", *ALL_TITLES.values()], rows=rows)


def coco_table(models: Sequence[ModelScores]) -> Table:
    """Return the mean and standard deviation over seeds of COCO's metrics of every model."""
    keys = [key for key in models[0].metrics if key[0] == COCO]
    rows = [[model.label, *(mean_and_std(model, key) for key in keys)] for model in models]
    return Table(header=["Model", *(key[2].replace("_", " ") for key in keys)], rows=rows)


def further_difference_table(pairs: Sequence[ModelComparison], group: str) -> Table:
    """Return every model's differences in the metrics without a verdict, of all classes or COCO's, with intervals."""
    keys = [key for key in pairs[0].differences if key[0] == group and key not in pairs[0].verdicts]
    rows = [[pair.title, *(pair.text(key) for key in keys)] for pair in pairs]
    return Table(header=["Difference", *(ALL_TITLES.get(key[2], key[2].replace("_", " ")) for key in keys)], rows=rows)


def difference_table(pairs: Sequence[ModelComparison]) -> Table:
    """Return every model's difference from the baseline with its interval, and the verdict on mAP50-95."""
    rows = []
    for pair in pairs:
        verdict = pair.verdicts[PRIMARY_METRIC]
        intervals = (pair.text((ALL, "", metric)) for metric in METRIC_TITLES)
        rows.append([pair.title, *intervals, p_value_text(verdict), verdict.decision])
    p_title = "p (Holm)" if len(pairs) > 1 else "p"
    return Table(header=["Difference", *METRIC_TITLES.values(), p_title, "Verdict on mAP50-95"], rows=rows)


def class_tables(models: Sequence[ModelScores]) -> list[Table]:
    """Return for each model a table of all metrics of each class; none with one class."""
    class_names = dict.fromkeys(key[1] for key in models[0].metrics if key[0] == "class")
    return [
        Table(
            header=[model.label, *ALL_TITLES.values()],
            rows=[[name, *(mean_and_std(model, ("class", name, key)) for key in ALL_TITLES)] for name in class_names],
        )
        for model in models
        if class_names
    ]


def detail_tables(
    models: Sequence[ModelScores], pairs: Sequence[ModelComparison], group: str, support: SupportByName
) -> list[Table]:
    """Return per metric a table of the baseline and each difference; its rows are of a `group`, "class" or "size"."""
    baseline = models[0]
    tables = []
    for metric, title in ALL_TITLES.items():
        rows = []
        for key in (key for key in baseline.metrics if (key[0], key[2]) == (group, metric)):
            count = str(support.get((group, key[1]), MISSING))
            intervals = (pair.text(key) for pair in pairs)
            rows.append([key[1], count, mean_and_std(baseline, key), *intervals])
        if rows:
            header = [title, "Objects in images", baseline.label, *(pair.title for pair in pairs)]
            tables.append(Table(header=header, rows=rows))
    return tables


def seed_table(models: Sequence[ModelScores]) -> Table | None:
    """Return mAP50-95 of each seed that several models have, and the gain over the first; None with fewer than two."""
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


def cost_tables(models: Sequence[ModelScores], costs: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Return size and training, and the speed of inference, of each model, as far as known."""
    tables = [_cost_table(models, costs, columns) for columns in (SIZE_COLUMNS, SPEED_COLUMNS)]
    return [table for table in tables if len(table.header) > 1]


def _cost_table(models: Sequence[ModelScores], costs: Sequence[Mapping[str, Any]], columns: Iterable[str]) -> Table:
    """Return each model's cost, and its relative difference from the baseline's, but for times not taken in turns."""
    keys = [key for key in columns if any(cost.get(key) is not None for cost in costs)]
    rows = [
        [model.label, *(_format(cost.get(key), COST_COLUMNS[key][1]) for key in keys)]
        for model, cost in zip(models, costs, strict=True)
    ]
    for model, cost in zip(models[1:], costs[1:], strict=True):
        pairs = ((cost.get(key) if key not in NOT_COMPARABLE else None, costs[0].get(key)) for key in keys)
        ratios = (None if value is None or not baseline else value / baseline - 1 for value, baseline in pairs)
        rows.append([f"{model.label} - {models[0].label}", *(_format(ratio, "{:+.1%}") for ratio in ratios)])
    return Table(header=["Model", *(COST_COLUMNS[key][0] for key in keys)], rows=rows)


def mean_and_std(model: ModelScores, key: MetricKey) -> str:
    """Return a metric's mean, with two runs or more with its standard deviation."""
    scores = model.metrics[key]
    mean = f"{scores.points.mean():.3f}"
    return f"{mean} ± {math.sqrt(scores.seed_variance):.3f}" if scores.num_runs > 1 else mean


def interval_text(difference: Difference | RandomEffects, mark: str = "") -> str:
    """Return a difference with a mark of significance and its interval, if that is known."""
    value = f"{difference.value:+.3f}{mark}"
    return value if math.isnan(difference.low) else f"{value} [{difference.low:+.3f}, {difference.high:+.3f}]"


def p_value_text(verdict: Verdict) -> str:
    """Return a corrected p-value with three decimals."""
    return "< 0.001" if verdict.p_value < 0.001 else f"{verdict.p_value:.3f}"


def _format(value: float | None, form: str) -> str:
    return MISSING if value is None else form.format(value)
