"""Runs struck from outside: killed, asked to stop, short of a data process or of one of two ranks."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.helpers.target_process import (
    children,
    fingerprints,
    finish,
    holder,
    moments,
    orphans,
    seconds_an_epoch,
    start,
    survive,
    torchrun,
    words_of,
)
from tests.test_end_to_end import ROOT
from utils.weights.checkpoint import load_checkpoint

pytestmark = pytest.mark.slow

LeftAlone = Callable[[int], Path]


def strikes(few: int, many: int) -> pytest.MarkDecorator:
    """The short form and, under `make test-long`, the whole; the epochs are more than come between so many strikes."""
    return pytest.mark.parametrize(
        ("times", "epochs"), [(few, 3 + 2 * few), pytest.param(many, 3 * many, marks=pytest.mark.long)]
    )


@strikes(1, 50)
def test_killed_anywhere_it_ends_with_the_same_bits(
    times: int, epochs: int, left_alone: LeftAlone, data: Path, recipe: Path, tmp_path: Path
) -> None:
    whole = left_alone(epochs)
    words = words_of(data, recipe, epochs=epochs)
    survive(tmp_path, words, signal.SIGKILL, times=times, epoch=seconds_an_epoch(whole))
    run = tmp_path / "runs/train/exp"
    assert fingerprints(run) == fingerprints(whole)
    assert not list(run.rglob("*.tmp"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@strikes(1, 20)
def test_asked_to_stop_it_saves_and_goes_on(
    number: signal.Signals, times: int, epochs: int, left_alone: LeftAlone, data: Path, recipe: Path, tmp_path: Path
) -> None:
    whole = left_alone(epochs)
    words = words_of(data, recipe, epochs=epochs, workers=2)
    # Each saves in the middle of an epoch: sooner struck, a run of so many epochs lasts as long as it must.
    survive(tmp_path, words, number, times=times, epoch=seconds_an_epoch(whole) / 2)
    assert fingerprints(tmp_path / "runs/train/exp") == fingerprints(whole)


@strikes(1, 20)
def test_killed_data_processes_are_started_anew(
    times: int, epochs: int, left_alone: LeftAlone, data: Path, recipe: Path, tmp_path: Path
) -> None:
    whole = left_alone(epochs)
    process = start(tmp_path, *words_of(data, recipe, epochs=epochs, workers=2))
    killed: set[int] = set()
    rows = tmp_path / "runs/train/exp/results.csv"

    def epochs_done() -> int:
        return rows.read_text().count("\n") if rows.exists() else 0

    def hunt() -> None:
        for moment in moments(times, seconds_an_epoch(whole) / 2):
            done = epochs_done()
            while process.poll() is None and epochs_done() == done:  # five deaths with no batch between end a run
                time.sleep(0.01)
            time.sleep(moment)
            while process.poll() is None and not (alive := children(process.pid) - killed):
                time.sleep(0.01)
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):  # the run ended meanwhile
                    os.kill(min(alive), signal.SIGKILL)
                    killed.add(min(alive))

    hunter = threading.Thread(target=hunt)
    hunter.start()
    finish(process)
    hunter.join()
    assert len(killed) == times
    assert fingerprints(tmp_path / "runs/train/exp") == fingerprints(whole)


def test_two_processes_do_what_one_does(data: Path, recipe: Path, tmp_path: Path) -> None:
    words = (*words_of(data, recipe, epochs=2), "--optimizer", "SGD")
    runs = {}
    for name, prefix, more in (("one", (sys.executable,), ()), ("two", torchrun(), ("--sync-bn",))):
        process = start(tmp_path, *words, *more, "--name", name, prefix=prefix)
        finish(process)
        runs[name] = load_checkpoint(tmp_path / "runs/train" / name / "weights/last.pt")
    assert sorted(path.name for path in (tmp_path / "runs/train").iterdir()) == ["one", "two"]
    one, two = runs["one"], runs["two"]
    assert len(two["gradients"]) == 2
    # In single precision, on maps of two by two cells, rounding grows at every step; how exactly two processes agree is
    # shown in float64 in tests/utils/test_distributed.py.
    before = torch.cat([value.flatten() for value in one["model"].values() if value.is_floating_point()])
    after = torch.cat([value.flatten() for value in two["model"].values() if value.is_floating_point()])
    assert (before - after).norm() / before.norm() < 5e-3
    for row, other in zip(one["progress"]["rows"], two["progress"]["rows"], strict=True):
        for part in ("box", "obj", "cls"):
            assert row[f"train/{part}_loss"] == pytest.approx(other[f"train/{part}_loss"], rel=5e-3)


def struck_rank(process: subprocess.Popen[str], run: Path, before: int, moment: float, rng: random.Random) -> int:
    """Kill one of two ranks some time after the first has taken the run's folder; return the first's number."""
    deadline = time.monotonic() + 200
    while (leader := holder(run)) == before or leader not in children(process.pid):
        assert process.poll() is None and time.monotonic() < deadline, "the ranks were not started anew"
        time.sleep(0.01)
    time.sleep(moment)
    ranks = sorted(children(process.pid))
    assert process.poll() is None and len(ranks) == 2, "the run ended before it was struck as often as asked"
    os.kill(rng.choice(ranks), signal.SIGKILL)
    return leader


@pytest.mark.parametrize("times", [pytest.param(times, marks=pytest.mark.long) for times in (3, 20)])
def test_a_killed_rank_is_made_good_by_a_restart(times: int, data: Path, recipe: Path, tmp_path: Path) -> None:
    words = words_of(data, recipe, epochs=3 + 2 * times)
    runs = {name: tmp_path / "runs/train" / name for name in ("calm", "struck")}
    finish(start(tmp_path, *words, "--name", "calm", prefix=torchrun()))
    process = start(tmp_path, *words, "--name", "struck", prefix=torchrun("--max-restarts", str(times)))
    leader, rng = 0, random.Random(2)
    for moment in moments(times, seconds_an_epoch(runs["calm"])):
        leader = struck_rank(process, runs["struck"], leader, moment, rng)
    finish(process)
    assert fingerprints(runs["struck"]) == fingerprints(runs["calm"])


@pytest.mark.long
def test_a_dead_rank_ends_the_run_within_a_minute(data: Path, recipe: Path, tmp_path: Path) -> None:
    process = start(tmp_path, *words_of(data, recipe, epochs=500), prefix=torchrun())
    last = tmp_path / "runs/train/exp/weights/last.pt"
    deadline = time.monotonic() + 200
    while not last.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    ranks = children(process.pid)
    os.kill(max(ranks), signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode and len(ranks) == 2
    assert not any(Path(f"/proc/{rank}").exists() for rank in ranks) and not orphans(process.pid)
    assert load_checkpoint(last)["progress"]["epoch"] >= 1


def test_many_runs_at_once_choose_many_folders(tmp_path: Path) -> None:
    program = "import sys; from utils.files import make_run_dir; sys.stdin.read(); print(make_run_dir('p', 'exp'))"
    wanted = [sys.executable, "-c", program]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    runs = [subprocess.Popen(wanted, cwd=tmp_path, env=environment, stdin=pipe, stdout=pipe) for _ in range(64)]
    time.sleep(1.0)
    for run in runs:  # most have imported by now, and go on as soon as there is nothing more to read
        run.stdin.close()  # type: ignore[union-attr]
    folders = {run.stdout.read().decode().strip() for run in runs}  # type: ignore[union-attr]
    assert all(run.wait() == 0 for run in runs)
    assert len(folders) == 64 and {str(p.relative_to(tmp_path)) for p in (tmp_path / "p").iterdir()} == folders
