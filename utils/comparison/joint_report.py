"""The joint results of several data sets: one verdict for each model, and results.json, compare.md, report.html."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from utils.comparison.ablation import effect_verdict
from utils.comparison.jobs import FailedRun
from utils.comparison.predictions import ALL, MetricKey
from utils.comparison.report import MARKS
from utils.comparison.result import ComparisonResult, contrast_json, finite
from utils.comparison.statistics import (
    METRIC_TITLES,
    MISSING,
    PRIMARY_METRIC,
    Contrast,
    accuracy_table,
    decide_contrasts,
    difference_table,
    interval_text,
    mean_and_std,
    p_value_text,
)
from utils.document import Block, BulletList, CodeBlock, Image, Section, Table, table_to_markdown, to_html, to_markdown
from utils.files import atomic_write, dump_json, write_csv
from utils.log import LOGGER, optional
from utils.metrics.joint_difference import JointDifference, joint_difference
from utils.options import CompareOptions
from utils.plots.figure import save_formats
from utils.plots.fonts import display_name
from utils.plots.forest import ForestRow, forest, max_panels
from utils.plots.translations import caption

FOREST = Path("figures", "data_sets.png")
MAX_TITLE_LETTERS = 30
MEAN_NOTE = (
    "The mean over these data sets, each with the same weight, with its 95 % interval: it covers other images of the "
    "same data sets, and other seeds if each model has several runs on each (docs/statistics.md). The verdict is on "
    f"mAP50-95. {MARKS} corrected for the number of models."
)
JOINT_EFFECTS_NOTE = (
    "The mean over these data sets of each effect of a switch or interaction, which the reports of the sets explain. "
    "p-values, asterisks and verdicts are Holm-corrected for {} effects, the intervals are not."
)
OTHER_SETS_NOTE = (
    "Random effects: the mean to expect on further data sets of this kind, if these were drawn from them. Tau is the "
    "standard deviation of the true difference over data sets, I² the share of the observed variation that seeds and "
    "images do not explain. With few data sets the interval is wide; no verdict is based on it."
)


@dataclass(frozen=True, kw_only=True)
class JointContrast(Contrast):
    """A contrast that several data sets have; its differences are the means over these sets."""

    of_sets: Mapping[str, Contrast]  # by label of the data set
    differences: Mapping[MetricKey, JointDifference]  # in every metric that all these sets have, but those of classes


@dataclass(frozen=True, kw_only=True)
class JointResult:
    """The results on several data sets, and what they say together."""

    sets: Mapping[str, ComparisonResult]  # by label of the data set
    labels: Sequence[str]  # of all models, the baseline first
    comparisons: Mapping[str, JointContrast]  # of models with the baseline, by label
    effects: Sequence[tuple[tuple[str, ...], JointContrast]]  # of an ablation, with its switches
    sentences: Sequence[str]  # the verdicts on the comparisons
    warnings: Sequence[str]  # about the data sets together
    failed: Sequence[FailedRun]


def compare_jointly(
    sets: Mapping[str, ComparisonResult],
    labels: Sequence[str],
    *,
    warnings: Sequence[str] = (),
    failed: Sequence[FailedRun] = (),
) -> JointResult:
    """Join what at least two data sets know: differences from the baseline, and effects that weigh the same models."""
    fixed_weights = all(score.fixed_weights for result in sets.values() for score in result.scores)
    pairs = {label: {pair.model: pair for pair in result.pairs} for label, result in sets.items()}
    comparisons = _joined(pairs, fixed_weights=fixed_weights)
    sentences = []
    for model, one in comparisons.items():
        where = f" over {len(one.of_sets)} data sets"
        sentences.append(one.sentence_of(model, labels[0], where=where, fixed_weights=fixed_weights))
    effects = {
        label: {(effect.switches, frozenset(effect.weights.items())): effect for effect in result.ablation.effects}
        for label, result in sets.items()
        if result.ablation
    }
    joint_effects = _joined(effects, fixed_weights=fixed_weights)
    return JointResult(
        sets=sets,
        labels=labels,
        comparisons=comparisons,
        effects=[(switches, one) for (switches, _), one in joint_effects.items()],
        sentences=sentences,
        warnings=[*warnings, *_absent_models(sets, labels, comparisons)],
        failed=failed,
    )


def _joined(of_sets: Mapping[str, Mapping[Any, Contrast]], *, fixed_weights: bool) -> dict[Any, JointContrast]:
    """Join the contrasts that several data sets have, by what identifies them, and decide on all of them."""
    keys = dict.fromkeys(key for contrasts in of_sets.values() for key in contrasts)
    found = {key: {label: of[key] for label, of in of_sets.items() if key in of} for key in keys}
    several = {key: contrasts for key, contrasts in found.items() if len(contrasts) > 1}
    differences = []
    for contrasts in several.values():
        first, *others = (one.differences for one in contrasts.values())
        metrics = [m for m in first if m[0] != "class" and all(m in other for other in others)]
        differences.append({m: joint_difference([one[m] for one in (first, *others)]) for m in metrics})
    titles = [next(iter(contrasts.values())).title for contrasts in several.values()]
    decided = decide_contrasts(differences, titles, fixed_weights=fixed_weights)
    joined = zip(several.items(), decided, strict=True)
    return {key: JointContrast(**vars(one), of_sets=contrasts) for (key, contrasts), one in joined}


def write_joint_results(joint: JointResult, options: CompareOptions, *, folder: Path) -> list[Block]:
    """Log the joint verdicts, write results.json, compare.md, report.html and a figure, and return the figure."""
    tables = [mean_table(joint), *difference_tables(joint), *effect_tables(joint)]
    LOGGER.info("\n" + "\n\n".join(map(table_to_markdown, tables)))
    for warning in joint.warnings:
        LOGGER.warning(warning)
    for sentence in joint.sentences:
        LOGGER.info(sentence)
    comparisons = zip(joint.comparisons.items(), joint.sentences, strict=True)
    content = {
        "options": options.as_json(),
        "data_sets": [
            {"label": label, "images": len(result.val), "objects": len(result.val.labels)}
            for label, result in joint.sets.items()
        ],
        "comparisons": [
            {"model": model, "baseline": joint.labels[0], "sentence": text, **_json(one)}
            for (model, one), text in comparisons
        ],
        "correction": "Holm" if len(joint.comparisons) > 1 else None,
        "effects": [{"switches": switches, **_json(one)} for switches, one in joint.effects],
        "warnings": joint.warnings,
        "failed": [{"run": f.run.title, "exit_code": f.exit_code, "reason": f.reason} for f in joint.failed],
    }
    dump_json(folder / "results.json", content)
    figures: list[Block] = []
    with optional():
        figures += draw_forest_plot(joint, options, folder=folder)
    sections = joint_sections(joint, figures)
    LOGGER.info(f"\nJoint tables: {atomic_write(folder / 'compare.md', to_markdown(sections, folder))}")
    with optional():
        title = f"Comparison on {len(joint.sets)} data sets: {', '.join(joint.labels)}"
        LOGGER.info(f"Joint report: {atomic_write(folder / 'report.html', to_html(sections, title=title))}")
    return figures


def _absent_models(
    sets: Mapping[str, ComparisonResult], labels: Sequence[str], joint: Mapping[str, JointContrast]
) -> list[str]:
    """Warn of models that lack runs on a data set, and of those without a joint verdict."""
    warnings = []
    for label in labels:
        absent = [name for name, of in sets.items() if label not in [model.label for model in of.models]]
        warnings += [f"{label} has no finished run on {', '.join(absent)}."] if absent else []
    without = [label for label in labels[1:] if label not in joint]
    if without:
        warnings.append(f"No joint verdict on {', '.join(without)}: it needs two data sets with runs of the baseline.")
    return warnings


def _json(joint: JointContrast) -> dict[str, Any]:
    content = contrast_json(joint)
    for row, (key, difference) in zip(content["differences"], joint.differences.items(), strict=True):
        row["random_effects"] = asdict(difference.random_effects) if difference.random_effects else None
        of_sets = {label: of.differences[key] for label, of in joint.of_sets.items()}
        row["data_sets"] = [
            finite({"label": label, "value": of.value, "low": of.low, "high": of.high}) for label, of in of_sets.items()
        ]
    return content


def draw_forest_plot(joint: JointResult, options: CompareOptions, *, folder: Path) -> list[Block]:
    """Draw the differences on each set and their means, and write them as CSV; of many models the most significant."""
    if not joint.comparisons:
        return []
    most = sorted(joint.comparisons, key=lambda model: joint.comparisons[model].p_value(PRIMARY_METRIC))
    shown = most[: max_panels(1 + len(joint.sets)) // len(METRIC_TITLES)]
    panels: dict[str, list[ForestRow]] = {}
    numbers: list[Sequence[object]] = [("metric", "model", "data set", "difference", "low", "high")]
    for model, one in joint.comparisons.items():
        index = joint.labels.index(model)
        short = display_name(model, index + 1, max_letters=MAX_TITLE_LETTERS)
        name = model if short == model else f"{index}. {short}"  # short names may be equal
        for metric, title in METRIC_TITLES.items():
            rows = forest_rows(one, (ALL, "", metric), series=index)
            numbers += [(title, model, row.label, row.value, row.low, row.high) for row in rows]
            if model in shown:
                panels[f"{name}: {title}"] = rows
    write_csv((folder / FOREST).with_suffix(".csv"), numbers)
    figure = forest(panels, baseline=joint.labels[0], lang=options.lang)
    covers_seeds = all(one.differences[PRIMARY_METRIC].covers_seeds for one in joint.comparisons.values())
    intervals = caption("intervals with seeds" if covers_seeds else "intervals", options.lang)
    text = caption("data sets", options.lang, baseline=joint.labels[0], intervals=intervals)
    if len(shown) < len(most):
        text += caption("most significant", options.lang, shown=len(shown), all=len(most))
    return [Image(save_formats(figure, folder / FOREST, options.figure_formats, title=text), text)]


def forest_rows(joint: JointContrast, key: MetricKey, *, series: int) -> list[ForestRow]:
    """Return a row for each data set, and one for the joint mean."""
    of_sets = [(label, of.differences[key]) for label, of in joint.of_sets.items()]
    rows = [ForestRow(label=label, value=of.value, low=of.low, high=of.high, series=series) for label, of in of_sets]
    mean = joint.differences[key]
    return [*rows, ForestRow(label="joint mean", value=mean.value, low=mean.low, high=mean.high, joint=True)]


def joint_sections(joint: JointResult, figures: Sequence[Block]) -> list[Section]:
    """Return the joint report, with images beside the differences."""
    failures = [f"{f.run.title}: exit code {f.exit_code}, {f.reason}" for f in joint.failed]
    of_sets = [f"{label}: {warning}" for label, result in joint.sets.items() for warning in result.warnings]
    warnings = [*joint.warnings, *of_sets]
    counts = (f"{label}: {len(of.val)} images, {len(of.val.labels)} objects" for label, of in joint.sets.items())
    differences: list[Block] = [MEAN_NOTE, *figures, *difference_tables(joint)]
    ablation: list[Block] = [JOINT_EFFECTS_NOTE.format(len(joint.effects)), *effect_tables(joint)]
    sections = [
        Section("Failed runs", [BulletList(failures)] if failures else []),
        Section("Joint verdict", [BulletList(joint.sentences or ["No joint verdict."])]),
        Section("Warnings", [BulletList(warnings)] if warnings else []),
        Section("Accuracy", ["mAP50-95, mean ± standard deviation over seeds.", mean_table(joint)]),
        Section("Differences", differences if joint.comparisons else []),
        Section("Ablation", ablation if joint.effects else []),
        Section("Other data sets", [OTHER_SETS_NOTE, random_effects_table(joint)] if joint.comparisons else []),
    ]
    for label, of in joint.sets.items():
        verdict: list[Block] = [BulletList([pair.sentence for pair in of.pairs])] if of.pairs else []
        tables = [accuracy_table(of.scores), *([difference_table(of.pairs)] if of.pairs else [])]
        sections.append(Section(f"Data set {label}", [of.header, *verdict, *tables]))
    sections.append(Section("Commands", [CodeBlock(next(iter(joint.sets.values())).commands[:1])]))
    text = f"Each was trained and evaluated by itself. {'; '.join(counts)}."
    title = Section("Comparison on several data sets", [text], level=1)
    return [title, *(section for section in sections if section.blocks)]


def mean_table(joint: JointResult) -> Table:
    """Return mAP50-95 of every model on every data set, and the mean of those that have runs on all."""
    rows = []
    for label in joint.labels:
        found = [{score.label: score for score in of.scores}.get(label) for of in joint.sets.values()]
        values = [float(score.metrics[PRIMARY_METRIC].points.mean()) for score in found if score is not None]
        mean = f"{sum(values) / len(values):.3f}" if len(values) == len(found) else MISSING
        cells = [MISSING if score is None else mean_and_std(score, PRIMARY_METRIC) for score in found]
        rows.append([label, *cells, mean])
    return Table(header=["Model", *joint.sets, "Mean"], rows=rows)


def difference_tables(joint: JointResult) -> list[Table]:
    """Return per metric a table of the mean differences from the baseline, and of those on each data set."""
    decisions = [one.verdicts[PRIMARY_METRIC].decision for one in joint.comparisons.values()]
    return _tables(joint, list(joint.comparisons.values()), decisions)


def effect_tables(joint: JointResult) -> list[Table]:
    """Return per metric a table of the mean effects of an ablation, and of those on each data set."""
    decisions = [effect_verdict(switches, one) for switches, one in joint.effects]
    return _tables(joint, [one for _, one in joint.effects], decisions)


def _tables(joint: JointResult, contrasts: Sequence[JointContrast], decisions: Sequence[str]) -> list[Table]:
    """Return a table per metric; none without contrasts. `decisions` are those in the primary metric."""
    p_title = "p (Holm)" if len(contrasts) > 1 else "p"
    tables = []
    for metric, title in METRIC_TITLES.items() if contrasts else ():
        key = (ALL, "", metric)
        verdicts = [[decision] if key == PRIMARY_METRIC else [] for decision in ("Joint verdict", *decisions)]
        rows = []
        for one, verdict in zip(contrasts, verdicts[1:], strict=True):
            of_sets = [one.of_sets[label].text(key) if label in one.of_sets else MISSING for label in joint.sets]
            rows.append([one.title, one.text(key), p_value_text(one.verdicts[key]), *verdict, *of_sets])
        tables.append(Table(header=[title, "Mean", p_title, *verdicts[0], *joint.sets], rows=rows))
    return tables


def random_effects_table(joint: JointResult) -> Table:
    """Return what to expect in the primary metric on other data sets."""
    rows = []
    for one in joint.comparisons.values():
        of = one.differences[PRIMARY_METRIC].random_effects
        cells = [interval_text(of), f"{math.sqrt(of.between_variance):.3f}", f"{of.i_squared:.0%}"] if of else []
        rows.append([one.title, *(cells or [MISSING] * 3)])
    return Table(header=["mAP50-95", "Random-effects mean", "Tau", "I²"], rows=rows)
