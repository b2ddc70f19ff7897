"""compare.md: what a comparison found, in words, tables and images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from utils.comparison.html import ReportFigures, ReportImage
from utils.comparison.jobs import FailedRun
from utils.comparison.report_markdown import code_block, plain, table
from utils.comparison.statistics import PRIMARY_METRIC, ModelScores, Pair
from utils.comparison.support import MIN_IMAGES, MIN_OBJECTS
from utils.comparison.tables import accuracy_table, cost_table, detail_tables, difference_table, seed_table

MOST_ROWS = 12


@dataclass(frozen=True, kw_only=True)
class ComparisonResult:
    """All that a comparison has to tell.

    Attributes:
        header: settings in a sentence or two.
        models: their figures; the first is the baseline.
        pairs: every further model against it.
        costs: per model, by the keys of `COST_COLUMNS`.
        warnings: sentences.
        failed: runs that did not come to their end.
        config_diffs: per further model, what its yaml has otherwise than the baseline's.
        commands: lines that repeat all of it.
        environment: of the machine.
        resamples: of the validation images.
        support: objects and images of each class and size, as `support_by_class` counts them.
        excluded: classes that have too few objects of a size to count in its mean.
        weight_files: checkpoints of each model of finished weights, one for each seed.
        timing_noise: share by which two copies of a model differ at most in median and p95.
    """

    header: str
    models: Sequence[ModelScores]
    pairs: Sequence[Pair]
    costs: Sequence[Mapping[str, Any]]
    warnings: Sequence[str] = ()
    failed: Sequence[FailedRun] = ()
    config_diffs: Mapping[str, Sequence[str]] = field(default_factory=dict)
    commands: Sequence[str] = ()
    environment: Mapping[str, Any] = field(default_factory=dict)
    resamples: int = 0
    support: Mapping[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    excluded: Sequence[str] = ()
    weight_files: Mapping[str, Sequence[Path]] = field(default_factory=dict)
    timing_noise: tuple[float, float] | None = None


def markdown(findings: ComparisonResult, folder: Path, images: ReportFigures | None = None) -> str:
    """Return the whole of compare.md.

    Args:
        findings: of the comparison.
        folder: where it is going to be, which links to images start from.
        images: to show; none by default.
    """
    models, pairs, shown = findings.models, findings.pairs, images or ReportFigures()
    parts = ["# Comparison", plain(findings.header)]
    if findings.failed:
        lines = [
            f"- {plain(f'{f.run.folder.name}: exit code {f.exit_code}, {f.reason} ({f.run.log.name})')}"
            for f in findings.failed
        ]
        parts += ["## Failed runs", "\n".join(lines)]
    parts += ["## Verdict", "\n".join(f"- {plain(pair.words)}" for pair in pairs) or plain(nothing_to_compare(models))]
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
        details = detail_tables(models, pairs, group, findings.support)
        if details:
            parts += [f"## {title}", _detail_note(group, findings.excluded), *details]
    parts += ["## Cost", _cost_note(findings.timing_noise), cost_table(models, findings.costs)]
    if findings.config_diffs:
        parts += [
            "## What differs",
            "\n".join(_differing(label, rows) for label, rows in findings.config_diffs.items()),
        ]
    if findings.weight_files:
        parts += ["## Files", _file_table(findings)]
    parts += _gallery("Where they differ most", shown.examples, folder, note=shown.examples_note)
    parts += _gallery("Where AKConv samples", shown.sampling, folder)
    parts += ["## Commands", code_block(findings.commands)]
    environment = ", ".join(f"{k} {v}" for k, v in findings.environment.items() if k != "command" and v is not None)
    parts += ["## Environment", plain(environment)]
    return "\n\n".join(parts) + "\n"


def nothing_to_compare(models: Sequence[ModelScores]) -> str:
    """Say why there is no verdict."""
    if len(models) > 1:
        return "Nothing to compare with: the baseline is missing."
    return f"Nothing to compare: all runs at hand are of one model, {models[0].label}, and differ in the seed alone."


def _gallery(heading: str, images: Sequence[ReportImage], folder: Path, *, note: str = "") -> list[str]:
    """Return images below their heading and a note; nothing without any."""
    if not images:
        return []
    return [f"## {heading}", *([plain(note)] if note else []), *(image.markdown(folder) for image in images)]


def _file_table(findings: ComparisonResult) -> str:
    """Say which checkpoints each model of finished weights stands for."""
    seeds = {model.label: model.seeds for model in findings.models}
    rows = [["Model", "Seed", "File"]]
    for label, paths in findings.weight_files.items():
        numbers = seeds.get(label) or (None,) * len(paths)
        for seed, path in zip(numbers, paths, strict=True):
            rows.append([label, "not known" if seed is None else str(seed), str(path)])
    return table(rows)


def _detail_note(group: str, left_out: Sequence[str]) -> str:
    """Say what a table per class or size is worth."""
    note = DETAIL_NOTES[group]
    if group == "size" and left_out:
        few = f"fewer than {MIN_OBJECTS} objects of a size or in fewer than {MIN_IMAGES} images"
        note += plain(f" The mean of the classes, without those with {few}: {', '.join(left_out)}.")
    return note


def _cost_note(timing_noise: tuple[float, float] | None) -> str:
    """Say how costs were measured, and how far inference times can be trusted."""
    if timing_noise is None:
        return COST_NOTE
    median, p95 = timing_noise
    return COST_NOTE + (
        f" Each model is timed as two copies, which differ by up to {median:.1%} in the median and {p95:.1%} in p95; "
        "nothing smaller than that is a difference."
    )


def _differing(label: str, rows: Sequence[str]) -> str:
    shown = [f"`{row}`" for row in rows[:MOST_ROWS]]
    more = f"; and {len(rows) - MOST_ROWS} more" if len(rows) > MOST_ROWS else ""
    return f"- {plain(label)}: {'; '.join(shown) or 'nothing in the yaml'}{more}"


DETAIL_NOTES = {
    "class": "Intervals of single classes are not corrected for their number: one in twenty misses by chance.",
    "size": "By area in pixels of the image file: small below 32², large from 96². Not corrected for their number.",
}
SEED_NOTE = (
    "Runs of one seed side by side, in brackets the difference: to look at, not to judge by, as the first weights and "
    "the order of images are most of what a seed shares between models. The intervals take the seeds as independent."
)
COST_NOTE = (
    "GFLOPs count AKConv's sampling. Inference: one image, batch norms folded, without NMS, the models taking turns. "
    "Training time: mean over the runs, each as long as it took beside whatever else its machine did then. Training "
    "memory: reserved on CUDA, of the whole process elsewhere."
)


def explanation(pairs: Sequence[Pair]) -> str:
    """Say what the intervals cover."""
    covers = all(pair.differences[PRIMARY_METRIC].covers_seeds for pair in pairs)
    luck = "other images of the same kind and other seeds" if covers else "other images of the same kind only"
    text = f"In brackets the 95 % interval: it covers {luck} (docs/statistics.md). mAP50-95 decides."
    if len(pairs) > 1:
        text += (
            f" p-values and verdicts are corrected for {len(pairs)} comparisons after Holm; the intervals are not, so "
            "one that leaves out 0 need not make a verdict."
        )
    return text
