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
from utils.engine.report import SAMPLING_HEADING, ReportPicture, write_report
from utils.engine.report_examples import example_pictures
from utils.engine.report_sampling import SamplingPicture
from utils.files import atomic_write, dump_json
from utils.log import LOGGER, optional

PICTURE = "compare.png"
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
    sampling: Sequence[SamplingPicture] = (),
) -> Path | None:
    """Print the tables and the verdict, and write compare.md, compare.json and compare.png.

    A picture that cannot be written is a warning: the numbers stand beside it.

    Args:
        findings: of the comparison.
        options: of compare.py.
        checkpoints: of each model, one for each seed.
        val: the validation set.
        folder: where to write.
        sampling: pictures of where AKConv samples, which compare.md shows at its end.

    Returns:
        The picture, or None if it could not be written.
    """
    models, pairs = findings.models, findings.pairs
    tables = [accuracy_table(models), *([difference_table(pairs)] if pairs else []), cost_table(models, findings.costs)]
    LOGGER.info("\n" + "\n\n".join(tables) + "\n")
    for warning in findings.warnings:
        LOGGER.warning(warning)
    for pair in pairs:
        LOGGER.info(pair.words)
    parts = [markdown(findings).rstrip("\n")]
    if sampling:
        parts += [f"## {SAMPLING_HEADING}", *(picture.markdown(folder) for picture in sampling)]
    atomic_write(folder / "compare.md", "\n\n".join(parts) + "\n")
    results = [
        {
            "model": model.label,
            "seeds": model.seeds,
            "seed_numbers": list(model.seed_numbers),
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
    LOGGER.info(f"\nTable: {folder / 'compare.md'}")
    with optional():
        draw_comparison(findings, checkpoints, folder / PICTURE)
        LOGGER.info(f"Picture: {folder / PICTURE}")
        return folder / PICTURE
    return None


def write_pictured_report(
    findings: Findings,
    judged: Sequence[Sequence[Judgement]],
    *,
    names: Sequence[str],
    val: DatasetIndex,
    folder: Path,
    overview: Path | None,
    sampling: Sequence[SamplingPicture] = (),
) -> None:
    """Write report.html.

    Args:
        findings: of the comparison.
        judged: of each model, one for each seed.
        names: of the classes.
        val: the validation set.
        folder: where to write.
        overview: the picture of curves, differences and costs, if there is one.
        sampling: pictures of where AKConv samples.

    Raises:
        RunError: it cannot be written.
    """
    caption = "Accuracy and loss over epochs, differences with intervals, and accuracy against cost"
    seeds = {model.label: model.seed_numbers for model in findings.models}
    examples: list[ReportPicture] = []
    for pair, own in list(zip(findings.pairs, judged[1:], strict=bool(findings.pairs)))[:MOST_EXAMPLES]:
        labels = (pair.model, pair.baseline)
        model, baseline = _same_seed_first((own, judged[0]), [seeds[pair.model], seeds[pair.baseline]])
        examples += example_pictures(model, baseline, labels=labels, index=val, names=names)
    path = write_report(
        markdown(findings),
        title=f"Comparison: {', '.join(model.label for model in findings.models)}",
        overview=None
        if overview is None
        else ReportPicture(content=overview.read_bytes(), kind="png", caption=caption),
        examples=examples,
        sampling=[picture.embedded() for picture in sampling],
        path=folder / "report.html",
    )
    LOGGER.info(f"Report: {path}")


def _same_seed_first(
    judged: Sequence[Sequence[Judgement]], seeds: Sequence[Sequence[int | None]]
) -> list[Sequence[Judgement]]:
    """Put the judgements of the lowest seed that all models have first, where there is one."""
    shared = set.intersection(*(set(own) for own in seeds)) - {None}
    if not shared:
        return list(judged)
    first = min(seed for seed in shared if seed is not None)
    places = [own.index(first) for own in seeds]
    return [[own[place], *own[:place], *own[place + 1 :]] for own, place in zip(judged, places, strict=True)]
