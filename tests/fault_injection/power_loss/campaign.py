"""Records the scenarios, draws the states, runs what follows in each, and counts.

All is kept in a folder: the recordings, because a second run of a scenario writes other times and temporary names, and
the verdicts. A campaign that was stopped goes on with them.
"""

import functools
import hashlib
import json
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.fault_injection.power_loss.disk import Disk, Tree, read_tree, tree_hash, write_tree
from tests.fault_injection.power_loss.recording import parse, record
from tests.fault_injection.power_loss.scenarios import Scenario, make_data, promised, set_up
from tests.fault_injection.power_loss.server import Server, cpu_seconds
from tests.fault_injection.power_loss.verdict import Results, as_read, evaluate, lost_when_said, results

MAPPED = "cache/Microsoft/"  # ONNX Runtime's own database, which it writes through memory; no command reads it
CHECKED = 0.02  # fraction of the other states of a class that are run too
State = tuple[Tree, int]  # what a crash leaves, and how many epochs had been reported as finished


@dataclass
class Report:
    """What was found in one scenario."""

    name: str
    operations: int = 0
    recordings: int = 1  # of the run, and of recoveries that lose power too
    generated: int = 0
    distinct: int = 0  # by all names and contents, and by what had been promised
    classes: int = 0  # by what commands read of them
    executed: int = 0  # distinct states that were run
    seconds: float = 0.0  # of processor time, those of a stopped campaign included
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Recorded:
    """A run: what was on disk before, each operation, and for each crash point the epochs that had been reported."""

    disk: Disk
    promised: list[int]
    results: Results  # of the whole run


@dataclass(frozen=True)
class Limits:
    """How much is done for each scenario; what is None is the scenario's."""

    states: int | None = None  # to be drawn; a quarter of it for each recovery
    checked: float = CHECKED
    recoveries: int | None = None  # that are recorded and lose power in turn
    executed: int | None = None  # at most, a sample of those that would be run


class _Drawn:
    """The states that were drawn, without those that were drawn before."""

    def __init__(self, rng: random.Random, checked: float) -> None:
        self._rng, self._checked = rng, checked
        self.generated = 0
        self.trees: set[tuple[str, int]] = set()
        self.classes: set[tuple[str, int]] = set()

    def add(self, states: Iterator[State]) -> list[State]:
        """Return the states to run: the first of each new class, and some of the others."""
        chosen = []
        for tree, epochs in states:
            self.generated += 1
            key = tree_hash(tree), epochs
            if key in self.trees:
                continue
            self.trees.add(key)
            kind = tree_hash(as_read(tree)), epochs
            if kind not in self.classes or self._rng.random() < self._checked:
                self.classes.add(kind)
                chosen.append((tree, epochs))
        return chosen


class Campaign:
    """The scenarios in a working folder, which keeps recordings and verdicts."""

    def __init__(self, work: Path, *, seed: int) -> None:
        self.server, self.seed = Server(work), seed
        self._recordings, self._log = work / "recordings", work / "verdicts.jsonl"
        if not self._recordings.exists():
            make_data(self.server)
            self._recordings.mkdir()
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        self._verdicts: dict[str, tuple[str, float]] = {}  # by what was run: the problem, and the seconds that it took
        for key, problem, seconds in map(json.loads, lines):
            self._verdicts[key] = problem, seconds

    def record(self, scenario: Scenario) -> Recorded:
        """Record a scenario's run."""
        set_up_root = functools.partial(set_up, self.server, scenario)
        recorded = self._record(scenario.name, set_up_root, scenario.command, scenario, 0)
        if recorded is None:
            raise RuntimeError(f"{scenario.name}: {self.server.said.read_text()[-2000:]}")
        return recorded

    def record_recovery(self, scenario: Scenario, state: State, number: int) -> Recorded | None:
        """Record the command that follows a crash; None if it is refused, as nothing was lost."""
        tree, epochs = state
        set_up_root = functools.partial(write_tree, self.server.root, tree)
        for command in filter(None, (scenario.after, scenario.again)):
            recorded = self._record(f"{scenario.name}, crash {number}", set_up_root, command, scenario, epochs)
            if recorded is not None:
                return recorded
        return None

    def _record(
        self, name: str, set_up_root: Callable[[], None], command: str, scenario: Scenario, epochs: int
    ) -> Recorded | None:
        """Record a command, or read its recording; its operations must make the tree that it leaves."""
        server, folder = self.server, self._recordings / name
        before, done = folder / "before", folder / "results.json"
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            before.mkdir(parents=True)
            server.empty()
            set_up_root()
            tree = read_tree(server.root)
            write_tree(before, tree)
            trace = folder / "trace"
            code = record(functools.partial(server.in_child, command), server.root, trace)
            if code == 2:
                return None
            if code:
                raise RuntimeError(f"{name}: exit code {code}: {server.said.read_text()[-2000:]}")
            after = read_tree(server.root)
            replayed = Disk(tree, parse(trace.read_text(), server.root, server.said)).final_tree()
            wrong = {name for name in {*after, *replayed} if after.get(name, 0) != replayed.get(name, 0)}
            if wrong := {name for name in wrong if not name.startswith(MAPPED)}:
                raise RuntimeError(f"{name}: not all operations were recorded: {sorted(wrong)}")
            done.write_text(json.dumps(results(after)))
        operations = parse((folder / "trace").read_text(), server.root, server.said)
        points = [max(epochs, reported) for reported in promised(operations, scenario)]
        return Recorded(Disk(read_tree(before), operations), points, json.loads(done.read_text()))

    def states(self, name: str, recorded: Recorded, count: int) -> Iterator[State]:
        """Draw at least `count` states, evenly over the crash points.

        A crash point at which all is on disk has one state.
        """
        rng, disk = random.Random(f"{self.seed} {name}"), recorded.disk
        settled = [disk.is_settled(end) for end in range(len(disk.operations) + 1)]
        share = max(-(-count // max(settled.count(False), 1)), 3)
        for end, only_one in enumerate(settled):
            for tree in disk.states(end, rng, 1 if only_one else share):
                yield tree, recorded.promised[end]

    def run(self, scenario: Scenario, limits: Limits) -> Report:
        """Run what follows a crash in a state of each class, and in some of the others."""
        count, started, logged = limits.states or scenario.states, cpu_seconds(), 0.0
        recorded = self.record(scenario)
        report = Report(scenario.name, operations=len(recorded.disk.operations))
        final, flushed = recorded.disk.final_tree(), recorded.disk.flushed_tree(len(recorded.disk.operations) + 1)
        report.problems += [f"not flushed at the end: {name}" for name in lost_when_said(flushed, final)]
        older = results(read_tree(self._recordings / scenario.name / "before"))
        drawn, rng = _Drawn(random.Random(self.seed), limits.checked), random.Random(self.seed)
        states = drawn.add(self.states(scenario.name, recorded, count))
        recoveries = scenario.recoveries if limits.recoveries is None else limits.recoveries
        for number, state in enumerate(rng.sample(states, min(recoveries, len(states)))):
            recovery = self.record_recovery(scenario, state, number)
            if recovery is not None:
                report.recordings += 1
                report.operations += len(recovery.disk.operations)
                states += drawn.add(self.states(f"{scenario.name} {number}", recovery, count // 4))
        if limits.executed is not None:
            states = rng.sample(states, min(limits.executed, len(states)))
        for state in states:
            problem, seconds = self._verdict(scenario, state, recorded.results, older)
            logged += seconds
            if problem and problem not in report.problems:
                report.problems.append(problem)
        report.generated, report.distinct = drawn.generated, len(drawn.trees)
        report.classes, report.executed = len(drawn.classes), len(states)
        report.seconds = round(cpu_seconds() - started + logged, 1)
        return report

    def _verdict(self, scenario: Scenario, state: State, expected: Results, older: Results) -> tuple[str, float]:
        """Return what is wrong after a crash that leaves a state; the seconds are 0 unless they were spent earlier."""
        tree, epochs = state
        about = [
            scenario.after,
            scenario.again,
            tree_hash(tree),
            epochs,
            sorted(expected.items()),
            sorted(older.items()),
        ]
        key = hashlib.sha256(json.dumps(about).encode()).hexdigest()
        if key in self._verdicts:
            return self._verdicts[key]
        started = cpu_seconds()
        self.server.empty()
        write_tree(self.server.root, tree)
        problem = evaluate(self.server, scenario, epochs, expected, older)
        self._verdicts[key] = problem, round(cpu_seconds() - started, 3)
        with self._log.open("a") as log:
            log.write(json.dumps([key, *self._verdicts[key]]) + "\n")
        return problem, 0.0
