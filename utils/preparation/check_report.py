"""What the check writes: check.json, report.html with examples drawn, and the table in the terminal."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from utils.datasets.config import DataConfig
from utils.datasets.image_writing import write_image
from utils.document import Block, BulletList, Gallery, Image, Section, Table, first_of, table_to_text, to_html
from utils.errors import DataError
from utils.files import atomic_write
from utils.log import LOGGER
from utils.metrics.object_size import SIZES, size_bins
from utils.preparation.checks_classes import class_counts
from utils.preparation.example_images import draw_example
from utils.preparation.findings import Example, Finding, by_severity, spoils
from utils.preparation.kinds import SEVERITIES
from utils.preparation.survey import SplitSurvey

FORMAT_VERSION = 1
MAX_DRAWN = 8  # examples of one finding
MAX_WRITTEN = 12  # examples of one finding without an image
MAX_CLASSES = 60  # rows of the table of classes
MARKS = {"spoils": "SPOILS", "warning": "warning", "note": "note"}
STYLE = """
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(17rem, 100%), 1fr)); gap: .8rem 1rem;
  align-items: start; }
.gallery figure { margin: 0; min-width: 0; }
.gallery .scroll { background: none; }
.gallery figure img { display: block; width: 100%; max-width: 100%; }
.gallery figcaption { overflow-wrap: anywhere; }
@media (max-width: 45rem) { td.long { min-width: 7.5rem; } }
"""


def write_check(
    config: DataConfig, splits: Sequence[SplitSurvey], findings: Sequence[Finding], *, run_dir: Path, weights: str
) -> None:
    """Log the findings, and write check.json and report.html into the run's folder."""
    findings = by_severity(findings)
    if findings:
        LOGGER.info("\n" + table_to_text(_findings_table(findings)) + "\n")
    LOGGER.info(_verdict(findings))
    _write(
        run_dir / "check.json", json.dumps(_as_json(config, splits, findings, weights), indent=1, ensure_ascii=False)
    )
    sections = [
        Section(f"Check of {config.file.name}", [str(config.file.resolve()), _verdict(findings)], level=1),
        *([Section("Findings", [_findings_table(findings)])] if findings else []),
        *(_finding_section(number, finding, run_dir) for number, finding in enumerate(findings, start=1)),
        Section("Images", [_images_table(splits)]),
        Section(
            "Object sizes", ["COCO's sizes: small below 32² pixels of the image file, large from 96².", _sizes(splits)]
        ),
        Section("Classes", _classes(config, splits)),
    ]
    page = to_html(sections, title=f"Check of {config.file}", extra_style=STYLE)
    LOGGER.info(f"Report: {_write(run_dir / 'report.html', page)}")


def _write(path: Path, text: str) -> Path:
    """Write a text; bytes of file names that are not UTF-8 become question marks."""
    return atomic_write(path, text.encode("utf-8", "replace"))


def _verdict(findings: Sequence[Finding]) -> str:
    """Return one sentence that sums up the findings."""
    spoiling, warnings, notes = (sum(f.severity == severity for f in findings) for severity in SEVERITIES)
    rest = f"{_count(warnings, 'warning')} and {_count(notes, 'note')}"
    if spoiling:
        return f"{_count(spoiling, 'finding')} would spoil a result, beside {rest}. Correct these first."
    return f"Nothing found that would spoil a result; {rest}."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _findings_table(findings: Sequence[Finding]) -> Table:
    rows = [
        [f"{number}. {f.title}", MARKS[f.severity], f"{f.count:,}", ", ".join(f.splits) or "all"]
        for number, f in enumerate(findings, start=1)
    ]
    return Table(header=["Finding", "Severity", "Count", "Splits"], rows=rows)


def _finding_section(number: int, finding: Finding, run_dir: Path) -> Section:
    """Return a finding's section; the images of its examples are written to the run's folder."""
    blocks: list[Block] = [f"{finding.words}{f' What to do: {finding.fix}.' if finding.fix else ''}"]
    images: list[Image] = []
    texts: list[str] = []
    for example in finding.examples:
        caption = example.words
        name = Path(example.path).name
        if name and not example.other and name not in caption:
            caption = f"{f'{example.split}/' if example.split else ''}{name}: {caption}"
        if example.path and example.drawn and len(images) < MAX_DRAWN:
            file = run_dir / "examples" / f"{finding.kind}-{'-'.join((*finding.splits, str(len(images) + 1)))}.jpg"
            try:
                images.append(Image(write_image(file, draw_example(example)), caption))
                continue
            except DataError:  # changed since it was read
                pass
        texts.append(caption)
    if images:
        blocks.append(Gallery(images))
    if texts and not images:
        blocks.append(BulletList(first_of(texts, MAX_WRITTEN)))
    elif len(finding.examples) > len(images):
        blocks.append(f"And others; check.json lists {len(finding.examples)} examples.")
    return Section(f"{number}. {finding.title} ({finding.count:,})", blocks)


def _images_table(splits: Sequence[SplitSurvey]) -> Table:
    """Return numbers and sizes of the images of each split."""
    rows = []
    for split in splits:
        sizes = split.sizes_hw[split.decoded]
        height, width = np.median(sizes, axis=0).astype(int) if len(sizes) else (0, 0)
        different = len(np.unique(sizes, axis=0)) if len(sizes) else 0
        labelled = int((split.counts > 0).sum())
        counts = (len(split.paths), labelled, len(split.paths) - labelled, len(split.rows))
        per_image = len(split.rows) / max(len(split.paths), 1)
        rows.append([split.name, *(f"{c:,}" for c in counts), f"{per_image:.1f}", f"{width}x{height}", str(different)])
    header = ["Split", "Images", "With objects", "Without", "Objects", "Objects per image", "Median size", "Sizes"]
    return Table(header=header, rows=rows)


def _sizes(splits: Sequence[SplitSurvey]) -> Table:
    """Return the fractions of COCO's sizes in each split."""
    rows = []
    for split in splits:
        counts = size_counts(split)
        rows.append([split.name, *(f"{count:,} ({count / max(counts.sum(), 1):.1%})" for count in counts)])
    return Table(header=["Split", *SIZES], rows=rows)


def size_counts(split: SplitSurvey) -> np.ndarray:
    """Return (3,) numbers of objects of COCO's sizes in a split."""
    areas = split.sides_wh().clip(0).prod(1)[split.decoded[split.image_of_row]]
    return np.bincount(size_bins(areas), minlength=len(SIZES))


def _classes(config: DataConfig, splits: Sequence[SplitSurvey]) -> list[Block]:
    """Return objects and fractions of each class in each split, those whose fractions differ most first."""
    counts = class_counts(splits, config.num_classes)
    fractions = counts / counts.sum(1, keepdims=True).clip(1)
    spread = np.ptp(fractions, axis=0)
    order = np.argsort(-spread, kind="stable")
    rows = [
        [
            config.names[i],
            str(i),
            *(f"{n:,} ({fraction:.1%})" for n, fraction in zip(counts[:, i], fractions[:, i], strict=True)),
            f"{spread[i]:.1%}",
        ]
        for i in order[:MAX_CLASSES]
    ]
    blocks: list[Block] = ["Objects, and their fraction of the split; classes whose fractions differ most come first."]
    blocks.append(Table(header=["Class", "Id", *(split.name for split in splits), "Largest difference"], rows=rows))
    if len(order) > MAX_CLASSES:
        blocks.append(f"And {len(order) - MAX_CLASSES} more classes; check.json has all.")
    return blocks


def _as_json(
    config: DataConfig, splits: Sequence[SplitSurvey], findings: Sequence[Finding], weights: str
) -> dict[str, Any]:
    """Return the content of check.json; docs/data.md documents it."""
    counts = class_counts(splits, config.num_classes)
    return {
        "version": FORMAT_VERSION,
        "data": str(config.file.resolve()),
        "weights": weights or None,
        "spoils": spoils(findings),
        "findings": [
            {
                **{key: getattr(f, key) for key in ("kind", "severity", "title", "words", "fix", "count", "splits")},
                "examples": [_example_json(example) for example in f.examples],
                "details": f.details,
            }
            for f in findings
        ],
        "splits": {
            split.name: {
                "images": len(split.paths),
                "images_with_objects": int((split.counts > 0).sum()),
                "objects": len(split.rows),
                "objects_by_class": dict(zip(_unique(config.names), counts[position].tolist(), strict=True)),
                "objects_by_size": dict(zip(SIZES, size_counts(split).tolist(), strict=True)),
            }
            for position, split in enumerate(splits)
        },
    }


def _unique(names: Sequence[str]) -> list[str]:
    """Return the names as keys; repeated ones get their id."""
    times = Counter(names)
    return [name if times[name] == 1 else f"{name} ({i})" for i, name in enumerate(names)]


def _example_json(example: Example) -> dict[str, Any]:
    return {
        **{key: getattr(example, key) for key in ("path", "other", "split", "words")},
        "boxes": [{"xyxy_normalized": list(mark.box), "text": mark.text} for mark in example.marks],
    }
