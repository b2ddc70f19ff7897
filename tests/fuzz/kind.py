"""What a kind of input is: how many cases, how one is made, and how it is evaluated."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fuzz.isolation import Case, Limits

Bases = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of input."""

    name: str
    cases: int  # of a full run
    quick: int  # of `make test`
    batch: int  # cases of one process
    prepare: Callable[[Path, bool], Bases]  # intact inputs by name, made in a folder; fewer if quick
    mutate: Callable[[Bases, random.Random], tuple[str, bytes]]  # file name and content of a case
    check: Callable[[Path], None]  # see `tests.fuzz.isolation.Check`
    warm_up: tuple[str, ...] = ()  # of the bases, those to be evaluated before any case, so that late imports are over
    limits: Limits = field(default_factory=Limits)

    def case(self, index: int, *, seed: int, bases: Bases) -> Case:
        """Return the n-th case of a seed."""
        rng = random.Random(f"{seed}/{self.name}/{index}")
        name, content = self.mutate(bases, rng)
        return Case(index, name, content)


def no_bases(folder: Path, quick: bool) -> Bases:
    """Return no intact inputs, for a kind that makes its own."""
    return {}
