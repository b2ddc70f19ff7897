"""What the check of a data set finds: typed findings with examples that a report can draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from utils.datasets.config import SPLITS
from utils.preparation.kinds import KINDS, SEVERITIES, Severity

MAX_LISTED = 200  # examples of one finding in the JSON file


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A box to draw on an image."""

    box: Sequence[float]  # x1, y1, x2, y2 normalized by the image's size; may lie beyond the image
    text: str = ""  # label beside the box
    class_id: int = 0  # chooses the colour


@dataclass(frozen=True, kw_only=True)
class Example:
    """One place where a finding shows."""

    words: str  # what is found there, with its value
    path: str = ""  # the image, label file or folder; "" if the finding is about the whole set
    split: str = ""
    marks: tuple[Mark, ...] = ()  # drawn on the image
    other: str = ""  # the second image of a pair
    drawn: bool = True  # whether `path` is an image that can be decoded


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One kind of fault with all places where it shows."""

    kind: str  # one of `KINDS`, such as `leak-identical`
    severity: Severity
    words: str  # sentences: what is wrong, with its figures, and what it does to a result
    fix: str  # what to do, in the imperative
    count: int  # how many images, rows, files or classes
    splits: tuple[str, ...]  # the splits concerned
    examples: Sequence[Example]  # the worst first, at most `MAX_LISTED`
    details: dict[str, Any] = field(default_factory=dict)  # further figures, for the JSON file

    @property
    def title(self) -> str:
        """A few words."""
        return KINDS[self.kind].title


def found(
    kind: str,
    examples: Sequence[Example],
    *,
    words: str = "",
    severity: Severity | None = None,
    count: int | None = None,
    splits: Sequence[str] | None = None,
    details: dict[str, Any] | None = None,
) -> list[Finding]:
    """Return the finding of a kind; none without examples.

    Args:
        kind: one of `KINDS`, which has the title and what to do.
        examples: the worst first; those beyond `MAX_LISTED` are left out.
        words: sentences, if not those of the kind.
        severity: if not that of the kind.
        count: how many there are; by default one for each example.
        splits: the splits concerned; by default those of the examples.
        details: further figures.
    """
    if not examples:
        return []
    if splits is None:
        splits = [split for split in SPLITS if any(example.split == split for example in examples)]
    return [
        Finding(
            kind=kind,
            severity=severity or KINDS[kind].severity,
            words=words or KINDS[kind].words,
            fix=KINDS[kind].fix,
            count=len(examples) if count is None else count,
            splits=tuple(splits),
            examples=examples[:MAX_LISTED],
            details=details or {},
        )
    ]


def by_severity(findings: Sequence[Finding]) -> list[Finding]:
    """Return the findings with the worst first, in a stable order within each severity."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def spoils(findings: Sequence[Finding]) -> bool:
    """Return whether any finding would spoil a result."""
    return any(finding.severity == "spoils" for finding in findings)


def joined(names: Sequence[str], limit: int = 8) -> str:
    """Return names as `a, b and 3 more`."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
