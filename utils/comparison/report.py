"""What compare.py writes: results.json, compare.md, report.html, and the summary in the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from utils.comparison.ablation import (
    ASCII_TICKS,
    TICKS,
    ablation_sections,
    ablation_table,
    effect_table,
)
from utils.comparison.error_analysis import error_sections
from utils.comparison.predictions import ALL, COCO, MIN_IMAGES, MIN_OBJECTS
from utils.comparison.result import ComparisonResult, results_content
from utils.comparison.statistics import (
    PRIMARY_METRIC,
    ModelComparison,
    accuracy_table,
    class_tables,
    coco_table,
    cost_tables,
    detail_tables,
    difference_table,
    further_difference_table,
    seed_table,
)
from utils.document import (
    Block,
    BulletList,
    CodeBlock,
    Section,
    Table,
    first_of,
    split_columns,
    table_to_text,
    to_html,
    to_markdown,
)
from utils.files import atomic_write, dump_json
from utils.log import LOGGER, is_printable
from utils.metrics.coco_resampling import ALL_AREAS
from utils.metrics.significance import MARK_LEGEND, SIGNIFICANCE_LEVEL
from utils.options import CompareOptions

MAX_CONFIG_ROWS = 12
# Sections with images.
OVERVIEW, FIGURES, EXAMPLES, SAMPLING = "Overview", "Figures", "Largest differences", "AKConv sampling points"
SHEETS = "Contact sheets"  # likewise
TERMINAL_COLUMNS = 80
ACCURACY_NOTE = (
    "Mean ± standard deviation over seeds, by the rules of val.py; P, R and F1 are means over classes at IoU 0.5, at "
    "the confidence of the best mean F1."
)
MARKS = f"Asterisks: {MARK_LEGEND},"
MARKS_NOTE = f"{MARKS} not corrected for several metrics or models; there is no verdict on these metrics."
COCO_NOTE = (
    "By COCO's rules, equal to those of pycocotools for the files of val.py --save-json, and different from the values "
    "above: at most 100 detections per image and class count, a detection whose best label is taken may match the next "
    "one, and precision is a step function. Sizes in pixels of the image file: {}."
)
DETAIL_SECTIONS = {
    "class": (
        "Per class",
        "Intervals and asterisks are not corrected for multiple comparisons: 5 % are wrong by chance.",
    ),
    "size": (
        "Per object size",
        "AP by the rules of val.py, other than under COCO metrics. Intervals and asterisks are not corrected.",
    ),
}
SEED_NOTE = (
    "Runs with the same seed, in brackets the difference from the baseline. For inspection only: such runs share "
    "little more than initial weights and image order, so the intervals treat seeds as independent."
)
COST_NOTE = (
    "GFLOPs include AKConv's sampling. File: a checkpoint of the model alone, 1 MB is 10^6 bytes. Training time: mean "
    "over runs, without a difference, because other jobs slow some of them down. Training memory: reserved by PyTorch "
    "on CUDA, of the whole process elsewhere. Times: medians over single images of the split, decoded before, in "
    "interleaved rounds; images are letterboxed into a square, batch norms fused, NMS has detect.py's thresholds. End "
    "to end is the sum of the phases. Inference memory: weights, image and activations, as PyTorch allocates them. "
    "Each model is timed as two copies, which differ by up to {:.1%} in the median and {:.1%} in p95 of inference; "
    "smaller differences between models are noise."
)


def write_results(result: ComparisonResult, options: CompareOptions, *, folder: Path) -> None:
    """Log tables and verdicts, write results.json, and compare.md without images, in case drawing them fails."""
    scores, pairs = result.scores, result.pairs
    tables = [accuracy_table(scores), coco_table(scores), *([difference_table(pairs)] if pairs else [])]
    tables += cost_tables(scores, result.costs)
    if result.ablation:
        ticks = TICKS if is_printable("".join(TICKS)) else ASCII_TICKS
        tables.append(ablation_table(result.ablation.ablation, scores, pairs, result.costs, ticks=ticks))
        tables += [effect_table(result.ablation.effects)] if result.ablation.effects else []
    narrow = [part for table in tables if len(table.header) > 1 for part in split_columns(table, TERMINAL_COLUMNS)]
    LOGGER.info("\n" + "\n\n".join(map(table_to_text, narrow)) + "\n")
    for warning in result.warnings:
        LOGGER.warning(warning)
    for sentence in _verdicts(result):
        LOGGER.info(sentence)
    dump_json(folder / "results.json", results_content(result, options))
    atomic_write(folder / "compare.md", to_markdown(report_sections(result, {}), folder))


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
        Section("Accuracy", [ACCURACY_NOTE, accuracy_table(scores)]),
        Section("Differences", [interpretation(pairs), difference_table(pairs)] if pairs else []),
        *(ablation_sections(result.ablation, scores, pairs, result.costs) if result.ablation else ()),
        Section("Further differences", [MARKS_NOTE, further_difference_table(pairs, ALL)] if pairs else []),
        _coco_section(result),
        Section("Per seed", [SEED_NOTE, seeds] if seeds else []),
        *(_detail_section(result, group) for group in DETAIL_SECTIONS),
        *error_sections(scores, pairs),
        Section("Cost", [COST_NOTE.format(*result.timing_noise), *cost_tables(scores, result.costs)]),
        Section(FIGURES, figures.get(FIGURES, ())),
        Section("Configuration differences", _config_diffs(result)),
        Section("Weights", [weights] if weights.rows else []),
        Section(EXAMPLES, figures.get(EXAMPLES, ())),
        Section(SHEETS, figures.get(SHEETS, ())),
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
    return f"{text} {MARKS} by these p-values; a verdict needs p < {SIGNIFICANCE_LEVEL}."


def _coco_section(result: ComparisonResult) -> Section:
    """Return COCO's metrics of all models and their differences."""
    table = coco_table(result.scores)
    differences: list[Block] = [MARKS_NOTE, further_difference_table(result.pairs, COCO)] if result.pairs else []
    note = COCO_NOTE.format(", ".join(map(_size_range, result.size_scale.ranges.items())))
    return Section("COCO metrics", [note, table, *differences] if len(table.header) > 1 else [])


def _size_range(size: tuple[str, tuple[float, float]]) -> str:
    """Return `small 16² to 32²`."""
    name, (low, high) = size
    start, end = (f"{math.sqrt(area):.0f}²" for area in (low, high))
    return f"{name} from {start}" if high == ALL_AREAS[1] else f"{name} {start} to {end}" if low else f"{name} to {end}"


def _detail_section(result: ComparisonResult, group: str) -> Section:
    """Return the tables per class or per object size."""
    title, note = DETAIL_SECTIONS[group]
    if group == "size" and result.excluded:
        note += (
            " A size is the mean over classes; excluded are those with fewer than "
            f"{MIN_OBJECTS} objects of the size or in fewer than {MIN_IMAGES} images: {', '.join(result.excluded)}."
        )
    tables = detail_tables(result.scores, result.pairs, group, result.support)
    values = class_tables(result.scores) if group == "class" else []
    return Section(title, [*values, note, *tables] if tables else [])


def _config_diffs(result: ComparisonResult) -> list[Block]:
    blocks: list[Block] = []
    for label, rows in result.config_diffs.items():
        blocks.append(f"{label}, compared with {result.models[0].label}:" if rows else f"{label}: none")
        blocks += [CodeBlock(first_of(rows, MAX_CONFIG_ROWS))] if rows else []
    return blocks
