"""The tables of a comparison: accuracy, differences, per class and object size, per seed, and cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from utils.comparison.document import Table
from utils.comparison.predictions import ALL, MetricKey, Support
from utils.comparison.statistics import METRIC_TITLES, PRIMARY_METRIC, ModelComparison, ModelScores

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
    models: Sequence[ModelScores],
    pairs: Sequence[ModelComparison],
    group: str,
    support: Mapping[tuple[str, str], Support],
) -> list[Table]:
    """Return one table per metric of the baseline and of each difference from it.

    It has a row per class or per object size, as `group` is "class" or "size"; `support` is by group and name.
    """
    baseline = models[0]
    tables = []
    for metric, title in METRIC_TITLES.items():
        rows = [
            [
                key[1],
                _support(support.get((group, key[1]))),
                _mean_and_std(baseline, key),
                *(_difference(pair, key) for pair in pairs),
            ]
            for key in baseline.metrics
            if key[0] == group and key[2] == metric
        ]
        if rows:
            header = [title, "Objects in images", baseline.label, *(pair.title for pair in pairs)]
            tables.append(Table(header=header, rows=rows))
    return tables


def seed_table(models: Sequence[ModelScores]) -> Table | None:
    """Return mAP50-95 of the seeds that at least two models have, with the difference from the first model in brackets.

    None with fewer than two such seeds.
    """
    by_seed = [dict(zip(m.seeds, m.metrics[PRIMARY_METRIC].points.tolist(), strict=False)) for m in models]
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


def _support(support: Support | None) -> str:
    return MISSING if support is None else f"{support.objects} in {support.images}"


def _format(value: float | None, form: str) -> str:
    return MISSING if value is None else form.format(value)


def _relative(value: float | None, baseline: float | None) -> float | None:
    return None if value is None or not baseline else value / baseline - 1
