"""What compare.py writes: results.json, compare.md, report.html, and the summary in the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from utils.comparison.ablation import (
    ASCII_TICKS,
    TICKS,
    AblationEffects,
    Effect,
    ablation_sections,
    ablation_table,
    effect_table,
)
from utils.comparison.jobs import FailedRun
from utils.comparison.predictions import MIN_IMAGES, MIN_OBJECTS, MetricKey, SupportByName
from utils.comparison.statistics import (
    PRIMARY_METRIC,
    ModelComparison,
    ModelScores,
    accuracy_table,
    cost_table,
    detail_tables,
    difference_table,
    seed_table,
)
from utils.comparison.trained_runs import TrainedRuns
from utils.datasets.index import DatasetIndex
from utils.document import (
    Block,
    BulletList,
    CodeBlock,
    Section,
    Table,
    first_of,
    table_to_markdown,
    to_html,
    to_markdown,
)
from utils.files import atomic_write, dump_json
from utils.log import LOGGER, is_printable
from utils.options import CompareOptions

MAX_CONFIG_ROWS = 12
DIFFERENCE_FIELDS = "value low high standard_error degrees_of_freedom p_value image_variance covers_seeds".split()
OVERVIEW, EXAMPLES, SAMPLING = "Overview", "Largest differences", "AKConv sampling points"  # sections with images
DETAIL_SECTIONS = {
    "class": ("Per class", "Intervals are not corrected for multiple comparisons: 5 % miss the truth by chance."),
    "size": (
        "Per object size",
        "COCO's sizes: small below 32² pixels of the image file, large from 96². Intervals are not corrected.",
    ),
}
SEED_NOTE = (
    "Runs with the same seed, in brackets the difference from the baseline. For inspection only: such runs share "
    "little more than initial weights and image order, so the intervals treat seeds as independent."
)
COST_NOTE = (
    "GFLOPs include AKConv's sampling. Inference: one image, batch norms fused, without NMS, models timed in "
    "interleaved rounds. Training time: mean over runs, without a difference, because other jobs slow some of them "
    "down. Training memory: reserved by PyTorch on CUDA, of the whole process elsewhere. Each model is timed as two "
    "copies, which differ by "
    "up to {:.1%} in the median and {:.1%} in p95; smaller differences between models are noise."
)


@dataclass(frozen=True, kw_only=True)
class ComparisonResult:
    """The result of a comparison; models are in the order of the command line, the first is the baseline."""

    header: str  # the settings in a sentence or two
    val: DatasetIndex  # the evaluated split
    names: Sequence[str]  # of the classes, unique
    models: Sequence[TrainedRuns]  # their finished runs
    scores: Sequence[ModelScores]  # their metrics
    pairs: Sequence[ModelComparison]  # every further model against the baseline; empty if the baseline is missing
    costs: Sequence[Mapping[str, Any]]  # of each model, by the keys of `COST_COLUMNS`
    ablation: AblationEffects | None = None  # of --ablation
    warnings: Sequence[str] = ()  # sentences
    failed: Sequence[FailedRun] = ()  # training runs that failed
    # by label of each further model, differences of its configuration from the baseline's
    config_diffs: Mapping[str, Sequence[str]] = field(default_factory=dict)
    commands: Sequence[str] = ()  # command lines that reproduce the comparison
    environment: Mapping[str, Any] = field(default_factory=dict)  # of the machine
    resamples: int = 0  # bootstrap resamples of the validation images
    support: SupportByName = field(default_factory=dict)  # of each class and size, see `support_by_class`
    excluded: Sequence[str] = ()  # classes that are excluded from the mean of an object size
    # relative difference between two copies of a model, at most, in median and p95 of inference time
    timing_noise: tuple[float, float] = (0.0, 0.0)


def write_results(result: ComparisonResult, options: CompareOptions, *, folder: Path) -> None:
    """Log tables and verdicts, write results.json, and compare.md without images, in case drawing them fails."""
    scores, pairs = result.scores, result.pairs
    tables = [accuracy_table(scores), *([difference_table(pairs)] if pairs else []), cost_table(scores, result.costs)]
    if result.ablation:
        ticks = TICKS if is_printable("".join(TICKS)) else ASCII_TICKS
        tables.append(ablation_table(result.ablation.ablation, scores, pairs, result.costs, ticks=ticks))
        tables += [effect_table(result.ablation.effects)] if result.ablation.effects else []
    LOGGER.info("\n" + "\n\n".join(map(table_to_markdown, tables)) + "\n")
    for warning in result.warnings:
        LOGGER.warning(warning)
    for sentence in _verdicts(result):
        LOGGER.info(sentence)
    rows = [
        {
            "model": score.label,
            "seeds": len(score.seeds),
            "seed_numbers": list(score.seeds),
            "checkpoints": [str(run.path) for run in model.runs],
            "transferred_fraction": model.transferred_fraction,
            "training_images": [run.training_images for run in model.runs],
            "training_objects": [run.training_objects for run in model.runs],
            **cost,
            **{name: float(score.metrics["all", "", name].points.mean()) for name in ("map50", "map50_95")},
            "metrics": [
                _json_row(key, mean=float(of.points.mean()), std=math.sqrt(of.seed_variance), runs=of.points.tolist())
                for key, of in score.metrics.items()
            ],
        }
        for score, model, cost in zip(scores, result.models, result.costs, strict=True)
    ]
    content = {
        "options": asdict(options),
        "environment": result.environment,
        "validation": {"split": options.task, "images": len(result.val), "objects": len(result.val.labels)},
        "resamples": result.resamples,
        "results": rows,
        "comparisons": [_comparison_json(pair) for pair in pairs],
        "correction": "Holm" if len(pairs) > 1 else None,
        "ablation": _ablation_json(result.ablation) if result.ablation else None,
        "warnings": list(result.warnings),
        "failed": [{"run": f.run.folder.name, "exit_code": f.exit_code, "reason": f.reason} for f in result.failed],
        "commands": list(result.commands),
    }
    dump_json(folder / "results.json", content)
    atomic_write(folder / "compare.md", to_markdown(report_sections(result, {}), folder))


def _comparison_json(pair: ModelComparison) -> dict[str, Any]:
    return {"model": pair.model, "baseline": pair.baseline, "sentence": pair.sentence, **_differences_json(pair)}


def _ablation_json(result: AblationEffects) -> dict[str, Any]:
    on = {label: [name for name in result.ablation.switches if name in on] for label, on in result.ablation.on.items()}
    effects = [
        {"switches": effect.switches, "weights": effect.weights, "pairs": effect.pairs, **_differences_json(effect)}
        for effect in result.effects
    ]
    return {"switches": result.ablation.switches, "models": on, "effects": effects}


def _differences_json(of: ModelComparison | Effect) -> dict[str, Any]:
    """Return the verdict on the primary metric, what would make it significant, and all differences."""
    verdict = of.verdicts[PRIMARY_METRIC]
    differences = [
        _json_row(
            key,
            **{name: getattr(difference, name) for name in DIFFERENCE_FIELDS},
            p_value_corrected=of.verdicts[key].p_value if key in of.verdicts else None,
            seed_variance=sum(difference.seed_variances),
        )
        for key, difference in of.differences.items()
    ]
    return {
        "verdict": verdict.decision,
        "extra_seeds": verdict.extra_seeds,
        "images_factor": verdict.images_factor,
        "differences": differences,
    }


def _json_row(key: MetricKey, **values: object) -> dict[str, Any]:
    """Return named values of a metric; JSON has no numbers that are not finite."""
    finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
    return {"group": key[0], "name": key[1], "metric": key[2], **finite}


def write_reports(result: ComparisonResult, figures: Mapping[str, Sequence[Block]], *, folder: Path) -> None:
    """Write compare.md and report.html with images, given by heading of their section."""
    sections = report_sections(result, figures)
    LOGGER.info(f"\nTables: {atomic_write(folder / 'compare.md', to_markdown(sections, folder))}")
    title = f"Comparison: {', '.join(model.label for model in result.models)}"
    LOGGER.info(f"Report: {atomic_write(folder / 'report.html', to_html(sections, title=title))}")


def report_sections(result: ComparisonResult, figures: Mapping[str, Sequence[Block]]) -> list[Section]:
    """Return the report without the sections that have no content; `figures` by heading."""
    scores, pairs = result.scores, result.pairs
    failed = [f"{f.run.folder.name}: exit code {f.exit_code}, {f.reason} ({f.run.log.name})" for f in result.failed]
    seeds = seed_table(scores)
    rows = [
        [model.label, "unknown" if run.seed is None else str(run.seed), str(run.path)]
        for model in result.models
        if model.is_finished_weights
        for run in model.runs
    ]
    weights = Table(header=["Model", "Seed", "File"], rows=rows)
    environment = ", ".join(f"{k} {v}" for k, v in result.environment.items() if k != "command" and v is not None)
    sections = [
        Section("Failed runs", [BulletList(failed)] if failed else []),
        Section("Verdict", [BulletList(_verdicts(result))]),
        Section("Warnings", [BulletList(result.warnings)] if result.warnings else []),
        Section(OVERVIEW, figures.get(OVERVIEW, ())),
        Section("Accuracy", ["Mean ± standard deviation over seeds.", accuracy_table(scores)]),
        Section("Differences", [interpretation(pairs), difference_table(pairs)] if pairs else []),
        *(ablation_sections(result.ablation, scores, pairs, result.costs) if result.ablation else ()),
        Section("Per seed", [SEED_NOTE, seeds] if seeds else []),
        *(_detail_section(result, group) for group in DETAIL_SECTIONS),
        Section("Cost", [COST_NOTE.format(*result.timing_noise), cost_table(scores, result.costs)]),
        Section("Configuration differences", _config_diffs(result)),
        Section("Weights", [weights] if weights.rows else []),
        Section(EXAMPLES, figures.get(EXAMPLES, ())),
        Section(SAMPLING, figures.get(SAMPLING, ())),
        Section("Commands", [CodeBlock(result.commands)]),
        Section("Environment", [environment]),
    ]
    title = Section("Comparison", [result.header], level=1)
    return [title, *(section for section in sections if section.blocks)]


def _verdicts(result: ComparisonResult) -> list[str]:
    """Return the verdict on each model as a sentence, or why there is none."""
    if result.pairs:
        return [pair.sentence for pair in result.pairs]
    if len(result.models) > 1:
        return ["No comparison: the baseline is missing."]
    return [f"No comparison: all runs are of one model, {result.models[0].label}, and differ in the seed only."]


def interpretation(pairs: Sequence[ModelComparison]) -> str:
    """Return what the intervals cover and what decides the verdicts."""
    covers_seeds = all(pair.differences[PRIMARY_METRIC].covers_seeds for pair in pairs)
    scope = "other images of the same kind and other seeds" if covers_seeds else "other images of the same kind only"
    text = f"In brackets the 95 % interval: it covers {scope} (docs/statistics.md). The verdict is on mAP50-95."
    if len(pairs) > 1:
        text += (
            f" p-values and verdicts are Holm-corrected for {len(pairs)} comparisons; the intervals are not, so an "
            "interval without 0 does not always give a verdict."
        )
    return text


def _detail_section(result: ComparisonResult, group: str) -> Section:
    """Return the tables per class or per object size."""
    title, note = DETAIL_SECTIONS[group]
    if group == "size" and result.excluded:
        note += (
            " A size is the mean over classes; excluded are those with fewer than "
            f"{MIN_OBJECTS} objects of the size or in fewer than {MIN_IMAGES} images: {', '.join(result.excluded)}."
        )
    tables = detail_tables(result.scores, result.pairs, group, result.support)
    return Section(title, [note, *tables] if tables else [])


def _config_diffs(result: ComparisonResult) -> list[Block]:
    blocks: list[Block] = []
    for label, rows in result.config_diffs.items():
        blocks.append(f"{label}, compared with {result.models[0].label}:" if rows else f"{label}: none")
        blocks += [CodeBlock(first_of(rows, MAX_CONFIG_ROWS))] if rows else []
    return blocks
