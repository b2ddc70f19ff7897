"""What a comparison leaves behind: results.json, compare.md, images, report.html, and lines on the screen."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from utils.comparison.figures import draw_comparison
from utils.comparison.html import ReportFigures, ReportImage, write_report
from utils.comparison.report import ComparisonResult, markdown, nothing_to_compare
from utils.comparison.report_examples import FOLDER as EXAMPLES
from utils.comparison.report_examples import example_images
from utils.comparison.report_sampling import sampling_images
from utils.comparison.statistics import PRIMARY_METRIC, Pair, model_json, pair_json
from utils.comparison.tables import accuracy_table, cost_table, difference_table
from utils.datasets.index import DatasetIndex
from utils.detection.sampling_plots import FOLDER as SAMPLING
from utils.files import atomic_write, dump_json
from utils.log import LOGGER, optional
from utils.metrics.evaluated_set import EvaluatedSet
from utils.options import CompareOptions

IMAGE = "compare.png"
OVERVIEW = "Accuracy and loss over epochs, differences with intervals, and accuracy against cost"
MOST_EXAMPLES = 4  # models whose images are shown beside the baseline's


def command_line() -> str:
    """Return the line that was given."""
    return f"python {Path(sys.argv[0]).name} {shlex.join(sys.argv[1:])}"


def write_results(
    findings: ComparisonResult,
    options: CompareOptions,
    *,
    checkpoints: Sequence[Sequence[Path]],
    val: DatasetIndex,
    folder: Path,
) -> None:
    """Print the tables and the verdict, and write results.json, and compare.md as yet without images.

    So the numbers are there whatever becomes of the images.

    Args:
        findings: of the comparison.
        options: of compare.py.
        checkpoints: of each model, one for each seed.
        val: the validation set.
        folder: where to write.

    Raises:
        RunError: a file cannot be written.
    """
    models, pairs = findings.models, findings.pairs
    tables = [accuracy_table(models), *([difference_table(pairs)] if pairs else []), cost_table(models, findings.costs)]
    LOGGER.info("\n" + "\n\n".join(tables) + "\n")
    for warning in findings.warnings:
        LOGGER.warning(warning)
    for pair in pairs:
        LOGGER.info(pair.words)
    if not pairs:
        LOGGER.info(nothing_to_compare(models))
    results = [
        {
            "model": model.label,
            "seeds": model.runs,
            "seed_numbers": list(model.seeds),
            "checkpoints": [str(path) for path in own],
            **cost,
            **{figure: float(model.metrics["all", "", figure].points.mean()) for figure in ("map50", "map50_95")},
            "figures": model_json(model),
        }
        for model, own, cost in zip(models, checkpoints, findings.costs, strict=True)
    ]
    content = {
        "options": asdict(options),
        "environment": findings.environment,
        "validation": {"split": options.task, "images": len(val), "objects": len(val.labels)},
        "resamples": findings.resamples,
        "results": results,
        "comparisons": [pair_json(pair) for pair in pairs],
        "correction": "Holm" if len(pairs) > 1 else None,
        "warnings": list(findings.warnings),
        "failed": [{"run": f.run.folder.name, "exit_code": f.exit_code, "reason": f.reason} for f in findings.failed],
        "commands": list(findings.commands),
    }
    dump_json(folder / "results.json", content)
    atomic_write(folder / "compare.md", markdown(findings, folder))


def draw_figures(
    findings: ComparisonResult,
    judged: Sequence[Sequence[EvaluatedSet]],
    *,
    checkpoints: Sequence[Sequence[Path]],
    names: Sequence[str],
    val: DatasetIndex,
    folder: Path,
) -> ReportFigures:
    """Draw compare.png, `examples/` and `sampling/`; what cannot be drawn is a warning, and left out.

    Args:
        findings: of the comparison.
        judged: of each model, one for each seed.
        checkpoints: of each model, one for each seed.
        names: of the classes.
        val: the validation set.
        folder: where to write.
    """
    models, chosen = findings.models, _surest(findings.pairs)
    few = len(chosen) < len(findings.pairs)
    note = f"Of the {len(chosen)} models whose differences are surest." if few else ""
    overview: list[ReportImage] = []
    examples: list[ReportImage] = []
    sampling: list[ReportImage] = []
    with optional():
        draw_comparison(findings, checkpoints, folder / IMAGE)
        overview.append(ReportImage(path=folder / IMAGE, caption=OVERVIEW))
    with optional():
        seeds = {model.label: model.seeds for model in models}
        for number in chosen:
            pair = findings.pairs[number]
            examples += example_images(
                judged[1 + number],
                judged[0],
                labels=(pair.model, pair.baseline),
                seeds=(seeds[pair.model], seeds[pair.baseline]),
                index=val,
                names=names,
                folder=folder,
            )
    with optional():
        best = [own[int(m.metrics[PRIMARY_METRIC].points.argmax())] for m, own in zip(models, checkpoints, strict=True)]
        sampling += sampling_images([m.label for m in models], best, val=val, names=names, folder=folder)
    return ReportFigures(overview=overview, examples=examples, examples_note=note, sampling=sampling)


def _surest(pairs: Sequence[Pair]) -> list[int]:
    """Return the places of a few models whose differences are surest, in the order of all."""
    order = sorted(range(len(pairs)), key=lambda number: pairs[number].differences[PRIMARY_METRIC].p_value)
    return sorted(order[:MOST_EXAMPLES])


def write_reports(findings: ComparisonResult, images: ReportFigures, *, folder: Path) -> None:
    """Write compare.md and report.html with images, and remove those of an earlier judgement.

    Args:
        findings: of the comparison.
        images: below the folder.
        folder: where to write.

    Raises:
        RunError: a report cannot be written.
    """
    text = markdown(findings, folder, images)
    LOGGER.info(f"\nTable: {atomic_write(folder / 'compare.md', text)}")
    _remove_older(folder, images)
    title = f"Comparison: {', '.join(model.label for model in findings.models)}"
    path = write_report(text, title=title, images=images.all(), path=folder / "report.html")
    LOGGER.info(f"Report: {path}")


def _remove_older(folder: Path, images: ReportFigures) -> None:
    """Remove the images of a comparison's folder that no report links to any more."""
    shown = {image.path for image in images.all()}
    present = [folder / IMAGE, *folder.glob(f"{EXAMPLES}/*.jpg"), *folder.glob(f"{SAMPLING}/*.jpg")]
    for path in present:
        if path not in shown:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
