"""The tables of a comparison, as markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from utils.comparison.predictions import ALL, Key
from utils.comparison.report_markdown import table
from utils.comparison.statistics import PRIMARY_METRIC, TITLES, ModelScores, Pair, shared_seeds

NOTHING = "-"


@dataclass(frozen=True, kw_only=True)
class CostColumn:
    """One number of the cost table: its key, heading, and how it is written."""

    key: str
    title: str
    form: str


COST_COLUMNS = (
    CostColumn(key="parameters", title="Parameters", form="{:,.0f}"),
    CostColumn(key="gflops", title="GFLOPs", form="{:.3g}"),
    CostColumn(key="sampling_gflops", title="of them sampling", form="{:.2g}"),
    CostColumn(key="training_seconds", title="Training s", form="{:.0f}"),
    CostColumn(key="training_memory_gb", title="Training GB", form="{:.2f}"),
    CostColumn(key="inference_ms", title="Inference ms, median", form="{:.1f}"),
    CostColumn(key="inference_ms_p95", title="p95", form="{:.1f}"),
    CostColumn(key="inference_memory_gb", title="Inference GB", form="{:.2f}"),
)


def accuracy_table(models: Sequence[ModelScores]) -> str:
    """Return mean and spread of every model."""
    rows = [["Model", "Seeds", *TITLES.values()]]
    for model in models:
        cells = [_mean_and_spread(model, (ALL, "", figure)) for figure in TITLES]
        rows.append([model.label, str(model.runs), *cells])
    return table(rows)


def difference_table(pairs: Sequence[Pair]) -> str:
    """Return every model's difference from the baseline with its interval, and the verdict on mAP50-95."""
    several = len(pairs) > 1
    rows = [["Difference", *TITLES.values(), "p, Holm" if several else "p", "Verdict on mAP50-95"]]
    for pair in pairs:
        cells = [_interval(pair, (ALL, "", figure)) for figure in TITLES]
        verdict = pair.verdicts[PRIMARY_METRIC]
        rows.append([f"{pair.model} - {pair.baseline}", *cells, _chance(verdict.p_value), verdict.decision])
    return table(rows)


def detail_tables(
    models: Sequence[ModelScores],
    pairs: Sequence[Pair],
    group: str,
    amounts: Mapping[tuple[str, str], tuple[int, int]] | None = None,
) -> list[str]:
    """Return for each figure a table per class or per object size: the baseline's, and each difference.

    Args:
        models: the first is the baseline.
        pairs: every further model against it.
        group: `class` or `size`.
        amounts: objects and images of each, which get a column.
    """
    counted = {name: f"{own[0]} in {own[1]}" for (kind, name), own in (amounts or {}).items() if kind == group}
    baseline = models[0]
    tables = []
    for figure, title in TITLES.items():
        keys = [key for key in baseline.metrics if key[0] == group and key[2] == figure]
        rows = [
            [
                title,
                *(["objects in images"] if counted else []),
                baseline.label,
                *(f"{pair.model} - {pair.baseline}" for pair in pairs),
            ]
        ]
        rows += [
            [
                k[1],
                *([counted.get(k[1], NOTHING)] if counted else []),
                _mean_and_spread(baseline, k),
                *(_interval(pair, k) for pair in pairs),
            ]
            for k in keys
        ]
        if keys:
            tables.append(table(rows))
    return tables


def seed_table(models: Sequence[ModelScores]) -> str:
    """Return mAP50-95 of the runs whose seed several models have; empty with fewer than two such seeds.

    In brackets stands what a run has more than the first model's of that seed.
    """
    seeds = shared_seeds(models)
    if len(seeds) < 2:
        return ""
    rows = [["mAP50-95", *(model.label for model in models)]]
    for seed in seeds:
        baseline = models[0].of_seed(seed)
        cells = []
        for number, model in enumerate(models):
            value = model.of_seed(seed)
            gain = f" ({value - baseline:+.3f})" if number and value is not None and baseline is not None else ""
            cells.append(NOTHING if value is None else f"{value:.3f}{gain}")
        rows.append([f"seed {seed}", *cells])
    return table(rows)


def cost_table(models: Sequence[ModelScores], costs: Sequence[Mapping[str, Any]]) -> str:
    """Return what each model costs, and how far from the baseline that is."""
    columns = [column for column in COST_COLUMNS if any(cost.get(column.key) is not None for cost in costs)]
    rows = [["Model", *(column.title for column in columns)]]
    rows += [
        [m.label, *(_cost(c.get(column.key), column) for column in columns)] for m, c in zip(models, costs, strict=True)
    ]
    for model, cost in zip(models[1:], costs[1:], strict=True):
        cells = [_share(cost.get(column.key), costs[0].get(column.key)) for column in columns]
        rows.append([f"{model.label} - {models[0].label}", *cells])
    return table(rows)


def _mean_and_spread(model: ModelScores, key: Key) -> str:
    scores = model.metrics.get(key)
    if scores is None:
        return NOTHING
    mean = f"{scores.points.mean():.3f}"
    return f"{mean} ± {math.sqrt(scores.seed_variance):.3f}" if scores.num_runs > 1 else mean


def _interval(pair: Pair, key: Key) -> str:
    difference = pair.differences.get(key)
    if difference is None or math.isnan(difference.value):
        return NOTHING
    if math.isnan(difference.low):
        return f"{difference.value:+.3f}"
    return f"{difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"


def _chance(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _cost(value: float | None, column: CostColumn) -> str:
    return NOTHING if value is None else column.form.format(value)


def _share(value: float | None, baseline: float | None) -> str:
    return NOTHING if value is None or not baseline else f"{value / baseline - 1:+.1%}"
