"""A comparison in words and markdown tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from utils.engine.comparing.comparison import DECIDING, TITLES, ModelScores, Pair, shared_seeds
from utils.engine.comparing.judgements import ALL, Key
from utils.engine.comparing.report import ReportPicture, ReportPictures
from utils.engine.comparing.report_markdown import code_block, plain, table
from utils.engine.comparing.runs import FailedRun

NOTHING = "-"
MOST_ROWS = 12


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


@dataclass(frozen=True, kw_only=True)
class Findings:
    """All that a comparison has to tell.

    Attributes:
        heading: settings in a sentence or two.
        models: their figures; the first is the baseline.
        pairs: every further model against it.
        costs: per model, by the keys of `COST_COLUMNS`.
        warnings: sentences.
        failed: runs that did not come to their end.
        settings: per further model, what its yaml has otherwise than the baseline's.
        commands: lines that repeat all of it.
        environment: of the machine.
        resamples: of the validation pictures.
    """

    heading: str
    models: Sequence[ModelScores]
    pairs: Sequence[Pair]
    costs: Sequence[Mapping[str, Any]]
    warnings: Sequence[str] = ()
    failed: Sequence[FailedRun] = ()
    settings: Mapping[str, Sequence[str]] = field(default_factory=dict)
    commands: Sequence[str] = ()
    environment: Mapping[str, Any] = field(default_factory=dict)
    resamples: int = 0


def accuracy_table(models: Sequence[ModelScores]) -> str:
    """Return mean and spread of every model."""
    rows = [["Model", "Seeds", *TITLES.values()]]
    for model in models:
        cells = [_mean_and_spread(model, (ALL, "", figure)) for figure in TITLES]
        rows.append([model.label, str(model.seeds), *cells])
    return table(rows)


def difference_table(pairs: Sequence[Pair]) -> str:
    """Return every model's difference from the baseline with its interval, and the verdict on mAP50-95."""
    several = len(pairs) > 1
    rows = [["Difference", *TITLES.values(), "p, Holm" if several else "p", "Verdict on mAP50-95"]]
    for pair in pairs:
        cells = [_interval(pair, (ALL, "", figure)) for figure in TITLES]
        verdict = pair.verdicts[DECIDING]
        rows.append([f"{pair.model} - {pair.baseline}", *cells, _chance(verdict.p_value), verdict.word])
    return table(rows)


def detail_tables(models: Sequence[ModelScores], pairs: Sequence[Pair], group: str) -> list[str]:
    """Return for each figure a table per class or per object size: the baseline's, and each difference."""
    baseline = models[0]
    tables = []
    for figure, title in TITLES.items():
        keys = [key for key in baseline.figures if key[0] == group and key[2] == figure]
        rows = [[title, baseline.label, *(f"{pair.model} - {pair.baseline}" for pair in pairs)]]
        rows += [[k[1], _mean_and_spread(baseline, k), *(_interval(pair, k) for pair in pairs)] for k in keys]
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


def markdown(findings: Findings, folder: Path, pictures: ReportPictures | None = None) -> str:
    """Return the whole of compare.md.

    Args:
        findings: of the comparison.
        folder: where it is going to be, which links to pictures start from.
        pictures: to show; none by default.
    """
    models, pairs, shown = findings.models, findings.pairs, pictures or ReportPictures()
    parts = ["# Comparison", plain(findings.heading)]
    if findings.failed:
        lines = [
            f"- {plain(f'{f.run.folder.name}: exit code {f.exit_code}, {f.reason} ({f.run.log.name})')}"
            for f in findings.failed
        ]
        parts += ["## Failed runs", "\n".join(lines)]
    parts += ["## Verdict", "\n".join(f"- {plain(pair.words)}" for pair in pairs) or "Nothing to compare."]
    if findings.warnings:
        parts.append("\n".join(f"- **Note:** {plain(warning)}" for warning in findings.warnings))
    parts += _gallery("At a glance", shown.overview, folder)
    parts += ["## Accuracy", "Mean over seeds ± their standard deviation.", accuracy_table(models)]
    if pairs:
        parts += ["## Differences", explanation(pairs), difference_table(pairs)]
    seeds = seed_table(models)
    if seeds:
        parts += ["## Per seed", SEED_NOTE, seeds]
    for group, title in (("class", "Per class"), ("size", "Per object size")):
        details = detail_tables(models, pairs, group)
        if details:
            parts += [f"## {title}", DETAIL_NOTES[group], *details]
    parts += ["## Cost", COST_NOTE, cost_table(models, findings.costs)]
    if findings.settings:
        parts += ["## What differs", "\n".join(_differing(label, rows) for label, rows in findings.settings.items())]
    parts += _gallery("Where they differ most", shown.examples, folder)
    parts += _gallery("Where AKConv samples", shown.sampling, folder)
    parts += ["## Commands", code_block(findings.commands)]
    environment = ", ".join(f"{k} {v}" for k, v in findings.environment.items() if k != "command" and v is not None)
    parts += ["## Environment", plain(environment)]
    return "\n\n".join(parts) + "\n"


def _gallery(heading: str, pictures: Sequence[ReportPicture], folder: Path) -> list[str]:
    """Return pictures below their heading; nothing without any."""
    return [f"## {heading}", *(picture.markdown(folder) for picture in pictures)] if pictures else []


def _differing(label: str, rows: Sequence[str]) -> str:
    shown = [f"`{row}`" for row in rows[:MOST_ROWS]]
    more = f"; and {len(rows) - MOST_ROWS} more" if len(rows) > MOST_ROWS else ""
    return f"- {plain(label)}: {'; '.join(shown) or 'nothing in the yaml'}{more}"


DETAIL_NOTES = {
    "class": "Intervals of single classes are not corrected for their number: one in twenty misses by chance.",
    "size": "By area in pixels of the picture file: small below 32², large from 96². Not corrected for their number.",
}
SEED_NOTE = (
    "Runs of one seed side by side, in brackets the difference: to look at, not to judge by, as the first weights and "
    "the order of pictures are most of what a seed shares between models. The intervals take the seeds as independent."
)
COST_NOTE = (
    "GFLOPs count AKConv's sampling. Inference: one picture, batch norms folded, without NMS, the models taking turns. "
    "Training time: mean over the runs, each as long as it took beside whatever else its machine did then. Training "
    "memory: reserved on CUDA, of the whole process elsewhere."
)


def explanation(pairs: Sequence[Pair]) -> str:
    """Say what the intervals cover."""
    covers = all(pair.differences[DECIDING].knows_seeds for pair in pairs)
    luck = "other pictures of the same kind and other seeds" if covers else "other pictures of the same kind only"
    text = f"In brackets the 95 % interval: it covers {luck} (docs/statistics.md). mAP50-95 decides."
    if len(pairs) > 1:
        text += (
            f" p-values and verdicts are corrected for {len(pairs)} comparisons after Holm; the intervals are not, so "
            "one that leaves out 0 need not make a verdict."
        )
    return text


def _mean_and_spread(model: ModelScores, key: Key) -> str:
    scores = model.figures.get(key)
    if scores is None:
        return NOTHING
    mean = f"{scores.points.mean():.3f}"
    return f"{mean} ± {math.sqrt(scores.variance):.3f}" if scores.seeds > 1 else mean


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
