"""Some cases of every kind, every input that once went wrong, and the harness itself."""

import ctypes
import json
import os
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.fuzz import isolation
from tests.fuzz.__main__ import prepare, run_kind
from tests.fuzz.isolation import ACCEPTED, FIND, REFUSED, Case, Limits, Verdict, WrongResultError, run_batch
from tests.fuzz.kind import Kind, no_bases
from tests.fuzz.kinds import KINDS
from utils.errors import DataError

CORPUS = Path(__file__).parent / "corpus"
SEED = 20261201  # another than that of `make fuzz`


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_mutated_inputs_are_read_right_or_refused_in_one_line(kind: Kind, tmp_path: Path) -> None:
    bases = prepare(kind, tmp_path / "bases", quick=True)
    *_, tally = run_kind(kind, bases, seed=SEED, cases=kind.quick, jobs=1, log=None)
    assert tally.finds == []
    assert tally.counts[ACCEPTED] + tally.counts[REFUSED] == kind.quick
    assert tally.counts[ACCEPTED] and tally.counts[REFUSED], "the cases are too harmless or too wild"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_inputs_that_once_went_wrong(kind: Kind) -> None:
    files = sorted((CORPUS / kind.name).glob("*"))
    cases = [Case(index, file.name, file.read_bytes()) for index, file in enumerate(files)]
    batch = run_batch(range(len(cases)), cases.__getitem__, kind.check, kind.limits)
    assert [(files[v.index].name, v.reason) for v in batch.verdicts if v.kind == FIND] == []
    assert len(batch.verdicts) == len(files)


def test_each_corpus_file_belongs_to_a_kind() -> None:
    folders = {file.parent.name for file in CORPUS.rglob("*") if file.is_file()}
    assert folders <= {kind.name for kind in KINDS}
    assert all(file.stat().st_size < 60_000 for file in CORPUS.rglob("*"))


def test_a_case_depends_on_nothing_but_its_seed_and_index() -> None:
    kind = next(kind for kind in KINDS if kind.name == "labels")
    first, again = ([kind.case(index, seed=3, bases={}) for index in range(20)] for _ in range(2))
    assert first == again
    assert len({case.content for case in first}) > 15
    assert first != [kind.case(index, seed=4, bases={}) for index in range(20)]


def refuse(what: str, where: str = "") -> Callable[[Path], None]:
    def check(path: Path) -> None:
        raise DataError(where or path, what, fix="correct it")

    return check


def raising(error: BaseException) -> Callable[[Path], None]:
    def check(path: Path) -> None:
        raise error

    return check


def write_outside(path: Path) -> None:
    path.parent.with_name("outside").write_text("x")


def use_memory(path: Path) -> None:
    np.ones(2**24)


def take_time(path: Path) -> None:
    end = time.process_time() + 0.6
    while time.process_time() < end:
        pass


HARMFUL: dict[str, Callable[[Path], object]] = {
    "a crash": lambda path: ctypes.string_at(0),
    "an exit": lambda path: sys.exit(2),
    "another exception": raising(ValueError("x")),
    "a wrong result": raising(WrongResultError("x")),
    "a wrong assertion": raising(AssertionError("x")),
    "no memory": lambda path: np.ones(2**40),
    "much memory": use_memory,
    "much time": take_time,
    "an error without the file": refuse("is wrong", "somewhere"),
    "code": lambda path: compile("1 + 1", "data", "exec"),  # what every way of running text as code begins with
    "a program": lambda path: subprocess.run(["true"], check=False),
    "a connection": lambda path: socket.create_connection(("127.0.0.1", 9)),
    "a file elsewhere": write_outside,
    "a warning of Python": lambda path: warnings.warn("x", stacklevel=1),
    "a message of a library": lambda path: os.write(2, b"Corrupt JPEG data"),
}
LIMITS = Limits(seconds=0.5, megabytes=100)


@pytest.mark.parametrize("name", HARMFUL)
def test_harm_is_found_and_the_other_cases_are_evaluated(name: str) -> None:
    def check(path: Path) -> None:
        if path.read_bytes() == b"harmful":
            HARMFUL[name](path)

    cases = [Case(index, "case.txt", b"harmful" if index == 1 else b"") for index in range(3)]
    batch = run_batch(range(3), cases.__getitem__, check, LIMITS)
    assert [verdict.kind for verdict in batch.verdicts] == [ACCEPTED, FIND, ACCEPTED], batch.verdicts
    assert batch.verdicts[1].index == 1 and batch.verdicts[1].reason


def test_a_hang_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "WALL_SECONDS", 0.5)
    batch = run_batch([0], lambda index: Case(index, "case.txt", b""), lambda path: time.sleep(60), LIMITS)
    assert batch.verdicts == [Verdict(0, FIND, "no answer within 0.5 s")]


def test_a_refusal_is_none_of_that() -> None:
    batch = run_batch([7], lambda index: Case(index, "case.txt", b""), refuse("is wrong\nin two lines" * 200), LIMITS)
    (verdict,) = batch.verdicts
    assert (verdict.index, verdict.kind) == (7, REFUSED) and "case.txt" in verdict.reason


def test_an_interrupted_run_continues(tmp_path: Path) -> None:
    kind = Kind(
        name="dummy",
        cases=10,
        quick=10,
        batch=4,
        prepare=no_bases,
        mutate=lambda bases, rng: ("case.txt", rng.randbytes(3)),
        check=lambda path: refuse("odd")(path) if path.read_bytes()[0] % 2 else None,
    )
    log = tmp_path / "dummy.jsonl"
    whole = list(run_kind(kind, {}, seed=1, cases=10, jobs=1, log=None))[-1]
    assert sum(whole.counts.values()) == 10 and whole.counts[FIND] == 0 and whole.counts[REFUSED] > 0
    next(run_kind(kind, {}, seed=1, cases=10, jobs=1, log=log))
    with log.open("a") as file:
        file.write('{"start": 4, "cou')  # cut off
    *_, tally = run_kind(kind, {}, seed=1, cases=10, jobs=2, log=log)
    assert tally.counts == whole.counts
    assert [json.loads(line)["start"] for line in log.read_text().splitlines() if line.endswith("}")] == [0, 4, 8]
