"""Sentences of a methods section in several languages, filled with values; one without a value it needs is empty.

They are in sentences.en.txt and sentences.zh.txt, one a line after its key.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

JOINERS = {"en": (" ", ", ", " and "), "zh": ("", "、", "、")}  # of sentences, of items, of the last two items


@functools.cache
def sentences(lang: str) -> dict[str, str]:
    """Return the sentences of a language by key."""
    lines = Path(__file__).with_suffix(f".{lang}.txt").read_text(encoding="utf-8").splitlines()
    return {key: text for key, text in (line.split(": ", 1) for line in lines)}


@dataclass(frozen=True)
class Writer:
    """Writes sentences in a language."""

    lang: str

    def __call__(self, key: str, /, *items: object, **values: object) -> str:
        """Return a sentence with values in its braces; empty if one of them is missing, None or empty."""
        text = sentences(self.lang)[key]
        known = {name: value for name, value in values.items() if value not in (None, "")}
        try:
            return "" if None in items or "" in items else text.format(*items, **known)
        except KeyError:
            return ""

    def listed(self, items: Iterable[object]) -> str:
        """Return items as in a sentence."""
        _, separator, before_last = JOINERS[self.lang]
        *others, last = [*map(str, items)] or [""]
        return before_last.join(filter(None, (separator.join(others), last)))

    def remark(self, text: str, remark: str) -> str:
        """Return a text with a remark in brackets, unless it is empty."""
        return self("brackets", text, remark) or text

    def paragraph(self, *sentences: str) -> str:
        """Return one text of all sentences that are not empty."""
        return JOINERS[self.lang][0].join(filter(None, sentences))
