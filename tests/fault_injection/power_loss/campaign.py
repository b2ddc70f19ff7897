"""Records the scenarios, draws the states, runs what follows in each, and counts."""

import functools
import hashlib
import json
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.fault_injection.power_loss.disk import Disk, Tree, read_tree, tree_hash, write_tree
from tests.fault_injection.power_loss.recording import record
from tests.fault_injection.power_loss.scenarios import Scenario, make_data, promised, set_up
from tests.fault_injection.power_loss.server import Server
from tests.fault_injection.power_loss.verdict import Results, as_read, evaluate, lost_when_said, results

MAPPED = "cache/Microsoft/"  # ONNX Runtime's own database, which it writes through memory; no command reads it
CHECKED = 0.02  # fraction of the other states of a class that are run too


@dataclass
class Report:
    """What was found in one scenario."""

    name: str
    operations: int = 0
    generated: int = 0
    distinct: int = 0  # by all names and contents, and by what had been promised
    classes: int = 0  # by what commands read of them
    executed: int = 0
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Recorded:
    """A scenario's run: what was on disk before, each operation, and its results."""

    disk: Disk
    promised: list[int]
    expected: Results
    older: Results


class Campaign:
    """The scenarios in a working folder; a log of verdicts lets a campaign that was stopped go on."""

    def __init__(self, work: Path, *, seed: int, log: Path | None = None) -> None:
        self.server, self.seed, self._log = Server(work), seed, log
        make_data(self.server)
        self._verdicts: dict[str, str] = {}
        if log is not None and log.exists():
            self._verdicts = dict(json.loads(line) for line in log.read_text().splitlines())

    def record(self, scenario: Scenario) -> Recorded:
        """Record a scenario; its operations must make the tree that it left."""
        server = self.server
        server.empty()
        set_up(server, scenario)
        before = read_tree(server.root)
        trace = server.work / "trace"
        code, operations = record(functools.partial(server.in_child, scenario.command), server.root, server.said, trace)
        if code:
            raise RuntimeError(f"{scenario.name}: exit code {code}: {server.said.read_text()[-2000:]}")
        disk, after = Disk(before, operations), read_tree(server.root)
        replayed = disk.final_tree()
        missing = {name for name in {*after, *replayed} if after.get(name, 0) != replayed.get(name, 0)}
        if missing := {name for name in missing if not name.startswith(MAPPED)}:
            raise RuntimeError(f"{scenario.name}: not all operations were recorded: {sorted(missing)}")
        return Recorded(disk, promised(operations, scenario), results(after), results(before))

    def states(self, scenario: Scenario, recorded: Recorded, count: int) -> Iterator[tuple[Tree, int]]:
        """Draw at least `count` states, evenly over the crash points, with the number of epochs reported by then.

        A crash point at which all is on disk has one state.
        """
        rng, disk = random.Random(f"{self.seed} {scenario.name}"), recorded.disk
        settled = [disk.is_settled(end) for end in range(len(disk.operations) + 1)]
        share = max(-(-count // max(settled.count(False), 1)), 3)
        for end, only_one in enumerate(settled):
            for tree in disk.states(end, rng, 1 if only_one else share):
                yield tree, recorded.promised[end]

    def run(self, scenario: Scenario, *, count: int | None = None, checked: float = CHECKED) -> Report:
        """Run what follows a crash in a state of each class, and in some of the others."""
        started = _cpu_seconds()
        report, recorded = Report(scenario.name), self.record(scenario)
        disk = recorded.disk
        report.operations = len(disk.operations)
        final, flushed = disk.final_tree(), disk.flushed_tree(len(disk.operations) + 1)
        report.problems += [f"not flushed at the end: {name}" for name in lost_when_said(flushed, final)]
        chosen, trees, classes = random.Random(self.seed), set(), set()
        for tree, epochs in self.states(scenario, recorded, count or scenario.states):
            report.generated += 1
            key = tree_hash(tree)
            if (key, epochs) in trees:
                continue
            trees.add((key, epochs))
            kind = tree_hash(as_read(tree)), epochs
            if kind in classes and chosen.random() >= checked:
                continue
            classes.add(kind)
            report.executed += 1
            problem = self._verdict(scenario, recorded, tree, epochs)
            if problem and problem not in report.problems:
                report.problems.append(problem)
        report.distinct, report.classes = len(trees), len(classes)
        report.seconds = round(_cpu_seconds() - started, 1)
        return report

    def _verdict(self, scenario: Scenario, recorded: Recorded, tree: Tree, epochs: int) -> str:
        """Return what is wrong after a crash that leaves a tree, from the log if it is known."""
        key = hashlib.sha256(
            f"{scenario} {tree_hash(tree)} {epochs} {sorted(recorded.expected.items())}".encode()
        ).hexdigest()
        if key not in self._verdicts:
            self.server.empty()
            write_tree(self.server.root, tree)
            self._verdicts[key] = evaluate(self.server, scenario, epochs, recorded.expected, recorded.older)
            if self._log is not None:
                with self._log.open("a") as log:
                    log.write(json.dumps([key, self._verdicts[key]]) + "\n")
        return self._verdicts[key]


def _cpu_seconds() -> float:
    """Return the processor time of this process and its children."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system
