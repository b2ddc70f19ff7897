"""What a comparison leaves behind: compare.md, compare.json, compare.png, report.html, and lines on the screen."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from utils.datasets.index import DatasetIndex
from utils.engine.comparison import model_json, pair_json
from utils.engine.comparison_pictures import draw_comparison
from utils.engine.comparison_tables import Findings, accuracy_table, cost_table, difference_table, markdown
from utils.engine.judgements import Judgement
from utils.engine.options import CompareOptions
from utils.engine.report import ReportPicture, write_report
from utils.engine.report_examples import example_pictures
from utils.files import atomic_write, dump_json
from utils.log import LOGGER

MOST_EXAMPLES = 3  # models whose pictures are shown beside the baseline's


def own_command() -> str:
    """Return the line that was given."""
    return f"python {Path(sys.argv[0]).name} {shlex.join(sys.argv[1:])}"


def write_findings(
    findings: Findings,
    options: CompareOptions,
    *,
    checkpoints: Sequence[Sequence[Path]],
    val: DatasetIndex,
    folder: Path,
) -> None:
    """Write compare.md, compare.json and compare.png, and print the tables and the verdict.

    Args:
        findings: of the comparison.
        options: of compare.py.
        checkpoints: of each model, one for each seed.
        val: the validation set.
        folder: where to write.
    """
    models, pairs = findings.models, findings.pairs
    atomic_write(folder / "compare.md", markdown(findings))
    results = [
        {
            "model": model.label,
            "seeds": model.seeds,
            "checkpoints": [str(path) for path in own],
            **cost,
            **{figure: float(model.figures["all", "", figure].points.mean()) for figure in ("map50", "map50_95")},
            "figures": model_json(model),
        }
        for model, own, cost in zip(models, checkpoints, findings.costs, strict=True)
    ]
    content = {
        "options": asdict(options),
        "environment": findings.environment,
        "validation": {"pictures": len(val), "objects": len(val.labels)},
        "resamples": findings.resamples,
        "results": results,
        "comparisons": [pair_json(pair) for pair in pairs],
        "correction": "Holm" if len(pairs) > 1 else None,
        "warnings": list(findings.warnings),
        "failed": [{"run": f.run.folder.name, "exit_code": f.exit_code, "reason": f.reason} for f in findings.failed],
        "commands": list(findings.commands),
    }
    dump_json(folder / "compare.json", content)
    draw_comparison(findings, checkpoints, folder / "compare.png")
    tables = [accuracy_table(models), *([difference_table(pairs)] if pairs else []), cost_table(models, findings.costs)]
    LOGGER.info("\n" + "\n\n".join(tables) + "\n")
    for warning in findings.warnings:
        LOGGER.warning(warning)
    for pair in pairs:
        LOGGER.info(pair.words)
    LOGGER.info(f"\nTable: {folder / 'compare.md'}\nPicture: {folder / 'compare.png'}")


def write_pictured_report(
    findings: Findings, judged: Sequence[Sequence[Judgement]], *, names: Sequence[str], val: DatasetIndex, folder: Path
) -> None:
    """Write report.html.

    Args:
        findings: of the comparison, whose compare.png is written already.
        judged: of each model, one for each seed.
        names: of the classes.
        val: the validation set.
        folder: where to write.
    """
    picture = (folder / "compare.png").read_bytes()
    caption = "Accuracy and loss over epochs, differences with intervals, and accuracy against cost"
    examples: list[ReportPicture] = []
    for pair, own in list(zip(findings.pairs, judged[1:], strict=bool(findings.pairs)))[:MOST_EXAMPLES]:
        labels = (pair.model, pair.baseline)
        examples += example_pictures(own, judged[0], labels=labels, index=val, names=names)
    path = write_report(
        markdown(findings),
        title=f"Comparison: {', '.join(model.label for model in findings.models)}",
        overview=ReportPicture(content=picture, kind="png", caption=caption),
        examples=examples,
        path=folder / "report.html",
    )
    LOGGER.info(f"Report: {path}")
