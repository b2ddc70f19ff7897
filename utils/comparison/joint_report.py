"""The joint results of several data sets: one verdict for each model, and results.json, compare.md, report.html."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from utils.comparison.jobs import FailedRun
from utils.comparison.predictions import ALL, MetricKey
from utils.comparison.result import ComparisonResult
from utils.comparison.statistics import (
    METRIC_TITLES,
    MISSING,
    PRIMARY_METRIC,
    accuracy_table,
    difference_table,
    interval_text,
    p_value_text,
)
from utils.document import Block, BulletList, CodeBlock, Section, Table, table_to_text, to_html, to_markdown
from utils.files import atomic_write, dump_json, write_csv
from utils.log import LOGGER, optional
from utils.metrics.joint_difference import JointDifference, decide_jointly, joint_difference, joint_sentence
from utils.metrics.paired_difference import Difference
from utils.metrics.significance import Verdict
from utils.options import CompareOptions

FOREST = Path("figures", "data_sets.csv")
MEAN_NOTE = (
    "The mean over these data sets, each with the same weight, with its 95 % interval: it covers other images of the "
    "same data sets, and other seeds if each model has several runs on each (docs/statistics.md). The verdict is on "
    "mAP50-95."
)
OTHER_SETS_NOTE = (
    "Random effects: the mean to expect on further data sets of this kind, if these were drawn from them. Tau is the "
    "standard deviation of the true difference over data sets, I² the share of the observed variation that seeds and "
    "images do not explain. With few data sets the interval is wide; no verdict is based on it."
)


@dataclass(frozen=True, kw_only=True)
class JointComparison:
    """A model compared with the baseline over the data sets on which both have runs."""

    model: str  # the label, as `baseline`
    baseline: str
    of_sets: Mapping[str, Mapping[MetricKey, Difference]]  # by label of the data set
    differences: Mapping[MetricKey, JointDifference]  # of every metric that all these sets have, but those of classes
    verdicts: Mapping[MetricKey, Verdict]  # as of `ModelComparison`
    sentence: str  # the joint verdict on the primary metric

    @property
    def title(self) -> str:
        """Name of the difference."""
        return f"{self.model} - {self.baseline}"


def compare_jointly(results: Mapping[str, ComparisonResult]) -> list[JointComparison]:
    """Compare every model with the baseline over all data sets on which both have runs, if these are several."""
    of_models: dict[str, dict[str, Mapping[MetricKey, Difference]]] = {}
    for data_set, result in results.items():
        for pair in result.pairs:
            of_models.setdefault(pair.model, {})[data_set] = pair.differences
    of_models = {model: of_sets for model, of_sets in of_models.items() if len(of_sets) > 1}
    if not of_models:
        return []
    baseline = next(pair.baseline for result in results.values() for pair in result.pairs)
    fixed_weights = all(score.fixed_weights for result in results.values() for score in result.scores)
    differences = []
    for of_sets in of_models.values():
        first, *others = of_sets.values()
        keys = [key for key in first if key[0] != "class" and all(key in other for other in others)]
        differences.append({key: joint_difference([one[key] for one in of_sets.values()]) for key in keys})
    verdicts = {
        key: decide_jointly([by_key[key] for by_key in differences], fixed_weights=fixed_weights)
        for key in ((ALL, "", metric) for metric in METRIC_TITLES)
    }
    comparisons = []
    for index, ((model, of_sets), by_key) in enumerate(zip(of_models.items(), differences, strict=True)):
        decided = {key: of_all[index] for key, of_all in verdicts.items()}
        text = joint_sentence(
            decided[PRIMARY_METRIC],
            by_key[PRIMARY_METRIC],
            model=model,
            baseline=baseline,
            metric=METRIC_TITLES[PRIMARY_METRIC[2]],
            fixed_weights=fixed_weights,
        )
        comparisons.append(
            JointComparison(
                model=model, baseline=baseline, of_sets=of_sets, differences=by_key, verdicts=decided, sentence=text
            )
        )
    return comparisons


def write_joint_results(
    results: Mapping[str, ComparisonResult],
    options: CompareOptions,
    *,
    labels: Sequence[str],
    warnings: Sequence[str],
    failed: Sequence[FailedRun],
    folder: Path,
) -> None:
    """Log the joint verdicts, and write results.json, compare.md and report.html beside the folders of the data sets.

    `results` are by label of the data set, as far as there are any; `labels` are those of all models, the baseline
    first; `warnings` are about the data sets together.
    """
    joint = compare_jointly(results)
    warnings = [*warnings, *_absent_models(results, labels, joint)]
    LOGGER.info("\n" + "\n\n".join(map(table_to_text, [mean_table(results, labels), *joint_tables(results, joint)])))
    for warning in warnings:
        LOGGER.warning(warning)
    for one in joint:
        LOGGER.info(one.sentence)
    content = {
        "options": options.as_json(),
        "data_sets": [
            {"label": label, "images": len(result.val), "objects": len(result.val.labels)}
            for label, result in results.items()
        ],
        "comparisons": [_joint_json(one) for one in joint],
        "correction": "Holm" if len(joint) > 1 else None,
        "warnings": warnings,
        "failed": [{"run": f.run.title, "exit_code": f.exit_code, "reason": f.reason} for f in failed],
    }
    dump_json(folder / "results.json", content)
    with optional():
        write_csv(folder / FOREST, forest_rows(joint))
    sections = joint_sections(results, joint, labels=labels, warnings=warnings, failed=failed)
    LOGGER.info(f"\nJoint tables: {atomic_write(folder / 'compare.md', to_markdown(sections, folder))}")
    with optional():
        title = f"Comparison on {len(results)} data sets: {', '.join(labels)}"
        LOGGER.info(f"Joint report: {atomic_write(folder / 'report.html', to_html(sections, title=title))}")


def _absent_models(
    results: Mapping[str, ComparisonResult], labels: Sequence[str], joint: Sequence[JointComparison]
) -> list[str]:
    """Warn of models that lack runs on a data set, and say over which sets their joint verdict then is."""
    warnings = []
    for label in labels:
        absent = [name for name, of in results.items() if label not in [model.label for model in of.models]]
        if absent:
            warnings.append(f"{label} has no finished run on {', '.join(absent)}.")
    for one in joint:
        if len(one.of_sets) < len(results):
            warnings.append(f"The joint verdict on {one.model} is over {', '.join(one.of_sets)} only.")
    without = [label for label in labels[1:] if label not in [one.model for one in joint]]
    if without:
        warnings.append(f"No joint verdict on {', '.join(without)}: it needs two data sets with runs of the baseline.")
    return warnings


def _joint_json(joint: JointComparison) -> dict[str, Any]:
    verdict = joint.verdicts[PRIMARY_METRIC]
    rows = []
    for key, difference in joint.differences.items():
        values: dict[str, Any] = asdict(difference)
        values["p_value_corrected"] = joint.verdicts[key].p_value if key in joint.verdicts else None
        values["data_sets"] = [
            {"label": label, "value": of[key].value, "low": of[key].low, "high": of[key].high}
            for label, of in joint.of_sets.items()
        ]
        rows.append({"group": key[0], "name": key[1], "metric": key[2], **values})
    content = {"model": joint.model, "baseline": joint.baseline, "verdict": verdict.decision}
    return _finite({**content, "sentence": joint.sentence, "differences": rows})


def _finite(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """Replace numbers that are not finite, which JSON does not have, by None."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def forest_rows(joint: Sequence[JointComparison]) -> list[Sequence[object]]:
    """Return the numbers of a forest plot: of each metric and model a row per data set, and one of the joint mean."""
    rows: list[Sequence[object]] = [("metric", "model", "data set", "difference", "low", "high", "weight")]
    for metric, title in METRIC_TITLES.items():
        key = (ALL, "", metric)
        for one in joint:
            for label, of in one.of_sets.items():
                rows.append((title, one.model, label, of[key].value, of[key].low, of[key].high, 1 / len(one.of_sets)))
            mean = one.differences[key]
            rows.append((title, one.model, "mean", mean.value, mean.low, mean.high, 1))
    return rows


def joint_sections(
    results: Mapping[str, ComparisonResult],
    joint: Sequence[JointComparison],
    *,
    labels: Sequence[str],
    warnings: Sequence[str],
    failed: Sequence[FailedRun],
) -> list[Section]:
    """Return the joint report; the arguments are as of `write_joint_results`."""
    failures = [f"{f.run.title}: exit code {f.exit_code}, {f.reason}" for f in failed]
    verdicts = [one.sentence for one in joint] or ["No joint verdict."]
    others = joint_tables(results, joint)
    of_sets = [f"{label}: {warning}" for label, result in results.items() for warning in result.warnings]
    header = "; ".join(f"{label}: {len(of.val)} images, {len(of.val.labels)} objects" for label, of in results.items())
    sections = [
        Section("Failed runs", [BulletList(failures)] if failures else []),
        Section("Joint verdict", [BulletList(verdicts)]),
        Section("Warnings", [BulletList([*warnings, *of_sets])] if warnings or of_sets else []),
        Section("Accuracy", ["mAP50-95, mean over seeds.", mean_table(results, labels)]),
        Section("Differences", [MEAN_NOTE, *others[:-1]] if joint else []),
        Section("Other data sets", [OTHER_SETS_NOTE, others[-1]] if joint else []),
    ]
    for label, of in results.items():
        tables = [accuracy_table(of.scores), *([difference_table(of.pairs)] if of.pairs else [])]
        sentences = [pair.sentence for pair in of.pairs]
        verdict: list[Block] = [BulletList(sentences)] if sentences else []
        sections.append(Section(f"Data set {label}", [of.header, *verdict, *tables]))
    first = next(iter(results.values()))
    sections.append(Section("Commands", [CodeBlock(first.commands[:1])]))
    title = Section(
        "Comparison on several data sets", [f"Each was trained and evaluated by itself. {header}."], level=1
    )
    return [title, *(section for section in sections if section.blocks)]


def mean_table(results: Mapping[str, ComparisonResult], labels: Sequence[str]) -> Table:
    """Return mAP50-95 of every model on every data set, and the mean of those that have runs on all."""
    rows = []
    for label in labels:
        values = [
            next((s.metrics[PRIMARY_METRIC].points.mean() for s in of.scores if s.label == label), None)
            for of in results.values()
        ]
        known = [float(value) for value in values if value is not None]
        cells = [MISSING if value is None else f"{value:.3f}" for value in values]
        rows.append([label, *cells, f"{sum(known) / len(known):.3f}" if len(known) == len(values) else MISSING])
    return Table(header=["Model", *results, "Mean"], rows=rows)


def joint_tables(results: Mapping[str, ComparisonResult], joint: Sequence[JointComparison]) -> list[Table]:
    """Return per metric a table of the differences on each data set and of their mean; last, the random effects."""
    if not joint:
        return []
    tables = []
    p_title = "p (Holm)" if len(joint) > 1 else "p"
    for metric, title in METRIC_TITLES.items():
        key = (ALL, "", metric)
        rows = []
        for one in joint:
            cells = [interval_text(one.of_sets[name][key]) if name in one.of_sets else MISSING for name in results]
            verdict = [one.verdicts[key].decision] if key == PRIMARY_METRIC else []
            rows.append(
                [one.title, *cells, interval_text(one.differences[key]), p_value_text(one.verdicts[key]), *verdict]
            )
        ending = ["Joint verdict"] if key == PRIMARY_METRIC else []
        tables.append(Table(header=[title, *results, "Mean", p_title, *ending], rows=rows))
    rows = []
    for one in joint:
        effects = one.differences[PRIMARY_METRIC].random_effects
        if effects is None:
            rows.append([one.title, MISSING, MISSING, MISSING])
            continue
        rows.append(
            [
                one.title,
                interval_text(effects),
                f"{math.sqrt(effects.between_variance):.3f}",
                f"{effects.i_squared:.0%}",
            ]
        )
    tables.append(Table(header=["mAP50-95", "Random-effects mean", "Tau", "I²"], rows=rows))
    return tables
