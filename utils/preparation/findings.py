"""What the check of a data set finds: typed findings with examples that a report can draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Severity = Literal["spoils", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("spoils", "warning", "note")  # the worst first
MAX_LISTED = 200  # examples of one finding in the JSON file


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A box to draw on an image."""

    box: tuple[float, float, float, float]  # x1, y1, x2, y2 normalized by the image's size; may lie beyond the image
    text: str = ""  # label beside the box
    class_id: int = 0  # chooses the colour


@dataclass(frozen=True, kw_only=True)
class Example:
    """One place where a finding shows."""

    path: str  # the image, label file or folder; "" if the finding is about the whole set
    words: str  # what is found there, with its value
    split: str = ""
    marks: tuple[Mark, ...] = ()  # drawn on the image
    other: str = ""  # the second image of a pair
    drawn: bool = True  # whether `path` is an image that can be decoded


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One kind of fault with all places where it shows."""

    kind: str  # stable identifier, such as `leak-identical`
    severity: Severity
    title: str  # a few words
    words: str  # sentences: what is wrong, with its figures, and what it does to a result
    fix: str = ""  # what to do, in the imperative
    count: int  # how many images, rows, files or classes
    splits: tuple[str, ...] = ()  # the splits concerned
    examples: Sequence[Example] = ()  # the worst first, at most `MAX_LISTED`
    details: dict[str, Any] = field(default_factory=dict)  # further figures, for the JSON file


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
