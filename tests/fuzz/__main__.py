"""`python -m tests.fuzz`: run all kinds of mutated inputs, resumable, and report."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import torch

from tests.fuzz.isolation import ACCEPTED, FIND, REFUSED, Batch, run_batch
from tests.fuzz.kind import Bases, Kind
from tests.fuzz.kinds import KINDS


@dataclass
class Tally:
    """The results of one kind."""

    kind: str
    counts: dict[str, int] = field(default_factory=lambda: {ACCEPTED: 0, REFUSED: 0, FIND: 0})
    finds: list[tuple[int, str]] = field(default_factory=list)
    seconds: float = 0.0
    batches: set[int] = field(default_factory=set)  # by their first case

    def add(self, start: int, counts: dict[str, int], finds: list, seconds: float) -> None:
        """Add the results of a batch."""
        self.batches.add(start)
        self.seconds += seconds
        self.finds += [(int(index), reason) for index, reason in finds]
        for name, count in counts.items():
            self.counts[name] += count


def prepare(kind: Kind, folder: Path, *, quick: bool) -> Bases:
    """Return a kind's intact inputs, and evaluate some in this process, so that modules imported late are imported."""
    folder.mkdir(parents=True, exist_ok=True)
    bases = kind.prepare(folder, quick)
    here = os.getcwd()
    os.chdir(folder)
    for name in kind.warm_up:
        path = folder / name
        path.write_bytes(bases[name])
        kind.check(path)
    os.chdir(here)
    return bases


def run_kind(kind: Kind, bases: Bases, *, seed: int, cases: int, jobs: int, log: Path | None) -> Iterator[Tally]:
    """Evaluate the cases of a kind that the log does not have yet, and yield the tally after each batch."""
    tally = Tally(kind.name)
    for line in log.read_text().splitlines() if log and log.exists() else ():
        with contextlib.suppress(ValueError):  # an interrupted run may have cut one off
            tally.add(**json.loads(line))

    def evaluate(start: int) -> tuple[int, Batch]:
        indices = range(start, min(start + kind.batch, cases))
        make = lambda index: kind.case(index, seed=seed, bases=bases)  # noqa: E731
        return start, run_batch(indices, make, kind.check, kind.limits)

    todo = [start for start in range(0, cases, kind.batch) if start not in tally.batches]
    with ThreadPoolExecutor(jobs) as pool:
        results = pool.map(evaluate, todo) if jobs > 1 else map(evaluate, todo)
        for start, batch in results:
            counts = {name: sum(v.kind == name for v in batch.verdicts) for name in tally.counts}
            finds = [(verdict.index, verdict.reason) for verdict in batch.verdicts if verdict.kind == FIND]
            entry: dict[str, Any] = {"start": start, "counts": counts, "finds": finds, "seconds": batch.seconds}
            tally.add(**entry)
            if log:
                with log.open("a") as file:  # after a line that an interrupted run has not finished
                    file.write(
                        "\n" * (file.tell() > 0 and not log.read_bytes().endswith(b"\n")) + json.dumps(entry) + "\n"
                    )
            yield tally
    yield tally


def report(tallies: list[Tally], *, seed: int, wall: float) -> str:
    """Return a Markdown table of the results."""
    lines = ["| kind | cases | accepted | refused | finds | CPU seconds |", "|---|---|---|---|---|---|"]
    for tally in tallies:
        counts = tally.counts
        numbers = (sum(counts.values()), counts[ACCEPTED], counts[REFUSED], counts[FIND])
        lines.append(f"| {tally.kind} | {' | '.join(map(str, numbers))} | {tally.seconds:.0f} |")
    total, finds = sum(sum(t.counts.values()) for t in tallies), sum(t.counts[FIND] for t in tallies)
    seconds = sum(tally.seconds for tally in tallies)
    return "\n".join([*lines, "", f"seed {seed}: {total} cases, {finds} finds, {seconds:.0f} s of CPU, {wall:.0f} s"])


def main() -> int:
    """Run the command; the exit code is 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    names = [kind.name for kind in KINDS]
    parser.add_argument("--kinds", nargs="+", choices=names, default=names)
    parser.add_argument("--seed", type=int, default=int(os.environ.get("FUZZ_SEED", "0")))
    parser.add_argument("--cases", type=int, help="of each kind, instead of the full number")
    parser.add_argument("--quick", action="store_true", help="the cases of `make test`, from few intact inputs")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument("--out", type=Path, default=Path("runs/fuzz"), help="results; a second run continues them")
    parser.add_argument("--case", type=int, help="write one case of one kind into --out, and evaluate it")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    logging._srcfile = None  # as its HOWTO says: log lines are then not searched for their caller, which is an event
    out = arguments.out.resolve() / f"seed{arguments.seed}{'-quick' * arguments.quick}"
    out.mkdir(parents=True, exist_ok=True)
    start, tallies = time.monotonic(), []
    with tempfile.TemporaryDirectory(prefix="fuzz-bases-") as folder:
        os.environ["XDG_CACHE_HOME"] = str(Path(folder) / "cache")
        for kind in [kind for kind in KINDS if kind.name in arguments.kinds]:
            bases = prepare(kind, Path(folder) / kind.name, quick=arguments.quick)
            if arguments.case is not None:
                tallies.append(_one(kind, bases, arguments, out))
                continue
            cases = arguments.cases or (kind.quick if arguments.quick else kind.cases)
            log = None if arguments.quick else out / f"{kind.name}.jsonl"
            for tally in run_kind(kind, bases, seed=arguments.seed, cases=cases, jobs=arguments.jobs, log=log):
                _progress(tally, cases)
            print(file=sys.stderr)
            for index, reason in sorted(tally.finds):
                print(f"{kind.name} {index}: {reason}")
                with contextlib.suppress(Exception):  # it may not be possible to make the case
                    case = kind.case(index, seed=arguments.seed, bases=bases)
                    (out / f"{kind.name}-{index}-{case.name}").write_bytes(case.content)
            tallies.append(tally)
    text = report(tallies, seed=arguments.seed, wall=time.monotonic() - start)
    print(text)
    (out / "report.md").write_text(text + "\n")
    return int(any(tally.finds for tally in tallies))


def _one(kind: Kind, bases: Bases, arguments: argparse.Namespace, out: Path) -> Tally:
    case = kind.case(arguments.case, seed=arguments.seed, bases=bases)
    (out / f"{kind.name}-{case.index}-{case.name}").write_bytes(case.content)
    batch = run_batch([case.index], lambda _: case, kind.check, kind.limits)
    print(*batch.verdicts, sep="\n")
    tally = Tally(kind.name)
    tally.add(case.index, {batch.verdicts[0].kind: 1}, [], batch.seconds)
    return tally


def _progress(tally: Tally, cases: int) -> None:
    done, finds = sum(tally.counts.values()), tally.counts[FIND]
    print(
        f"\r{tally.kind}: {done} of {cases}, {finds} finds, {tally.seconds:.0f} s", end="", file=sys.stderr, flush=True
    )


if __name__ == "__main__":
    sys.exit(main())
