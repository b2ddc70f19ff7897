"""Runs whose processes get signals: SIGKILL, SIGTERM and SIGINT, to the program, a worker, or one of two ranks."""

import contextlib
import os
import random
import signal
import socket
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
    interrupt_repeatedly,
    lock_holder,
    moments,
    orphans,
    seconds_per_epoch,
    start,
    torchrun,
    train_arguments,
)
from tests.helpers.training_runs import ROOT
from utils.weights.checkpoint import load_checkpoint

pytestmark = pytest.mark.slow

Uninterrupted = Callable[[int], Path]


def signals(few: int, many: int) -> pytest.MarkDecorator:
    """Numbers of signals, the second for `make test-long`, and more epochs than pass until all are sent."""
    return pytest.mark.parametrize(
        ("times", "epochs"), [(few, 3 + 2 * few), pytest.param(many, 3 * many, marks=pytest.mark.long)]
    )


@signals(1, 50)
def test_a_run_killed_anywhere_ends_with_the_same_bits(
    times: int, epochs: int, uninterrupted: Uninterrupted, data: Path, recipe: Path, tmp_path: Path
) -> None:
    expected = uninterrupted(epochs)
    arguments = train_arguments(data, recipe, epochs=epochs)
    interrupt_repeatedly(tmp_path, arguments, signal.SIGKILL, times=times, epoch=seconds_per_epoch(expected))
    run = tmp_path / "runs/train/exp"
    assert fingerprints(run) == fingerprints(expected)
    assert not list(run.rglob("*.tmp"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@signals(1, 20)
def test_a_stopped_run_saves_and_resumes_to_the_same_bits(
    number: signal.Signals,
    times: int,
    epochs: int,
    uninterrupted: Uninterrupted,
    data: Path,
    recipe: Path,
    tmp_path: Path,
) -> None:
    expected = uninterrupted(epochs)
    arguments = train_arguments(data, recipe, epochs=epochs, workers=2)
    # Each saves within an epoch; signals in the first half of the range leave enough epochs for all of them.
    interrupt_repeatedly(tmp_path, arguments, number, times=times, epoch=seconds_per_epoch(expected) / 2)
    assert fingerprints(tmp_path / "runs/train/exp") == fingerprints(expected)


@signals(1, 20)
def test_killed_workers_are_restarted(
    times: int, epochs: int, uninterrupted: Uninterrupted, data: Path, recipe: Path, tmp_path: Path
) -> None:
    expected = uninterrupted(epochs)
    process = start(tmp_path, *train_arguments(data, recipe, epochs=epochs, workers=2))
    killed: set[int] = set()
    rows = tmp_path / "runs/train/exp/results.csv"

    def epochs_done() -> int:
        return rows.read_text().count("\n") if rows.exists() else 0

    def kill_workers() -> None:
        for moment in moments(times, seconds_per_epoch(expected) / 2):
            done = epochs_done()
            while process.poll() is None and epochs_done() == done:  # five deaths without a batch in between end a run
                time.sleep(0.01)
            time.sleep(moment)
            while process.poll() is None and not (alive := children(process.pid) - killed):
                time.sleep(0.01)
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):  # the run ended meanwhile
                    os.kill(min(alive), signal.SIGKILL)
                    killed.add(min(alive))

    killer = threading.Thread(target=kill_workers)
    killer.start()
    finish(process)
    killer.join()
    assert len(killed) == times
    assert fingerprints(tmp_path / "runs/train/exp") == fingerprints(expected)


def test_two_processes_train_like_one(data: Path, recipe: Path, tmp_path: Path) -> None:
    # Dropout would draw other masks for the parts of a batch than for the whole.
    arguments = (*train_arguments(data, recipe, epochs=2), "--cfg", "yolov5n-akconv.yaml", "--optimizer", "SGD")
    runs = {}
    for name, prefix, more in (("one", (sys.executable,), ()), ("two", torchrun(), ("--sync-bn",))):
        process = start(tmp_path, *arguments, *more, "--name", name, prefix=prefix)
        finish(process)
        runs[name] = load_checkpoint(tmp_path / "runs/train" / name / "weights/last.pt")
    assert sorted(path.name for path in (tmp_path / "runs/train").iterdir()) == ["one", "two"]
    one, two = runs["one"], runs["two"]
    assert len(two["gradients"]) == 2
    # In single precision on 2 x 2 maps rounding errors grow with every step; tests/utils/test_distributed.py compares
    # two processes with one in float64.
    before = torch.cat([value.flatten() for value in one["model"].values() if value.is_floating_point()])
    after = torch.cat([value.flatten() for value in two["model"].values() if value.is_floating_point()])
    assert (before - after).norm() / before.norm() < 5e-3
    for row, other in zip(one["progress"]["rows"], two["progress"]["rows"], strict=True):
        for part in ("box", "obj", "cls"):
            assert row[f"train/{part}_loss"] == pytest.approx(other[f"train/{part}_loss"], rel=5e-3)


def kill_rank(process: subprocess.Popen[str], run: Path, before: int, moment: float, rng: random.Random) -> int:
    """Kill one of two ranks some time after the main one has locked the run's folder; return the main one's id."""
    deadline = time.monotonic() + 200
    while (main := lock_holder(run)) == before or main not in children(process.pid):
        assert process.poll() is None and time.monotonic() < deadline, "the ranks were not restarted"
        time.sleep(0.01)
    time.sleep(moment)
    ranks = sorted(children(process.pid))
    assert process.poll() is None and len(ranks) == 2, "the run finished before all ranks were killed"
    os.kill(rng.choice(ranks), signal.SIGKILL)
    return main


@pytest.mark.parametrize("times", [pytest.param(times, marks=pytest.mark.long) for times in (3, 20)])
def test_torchrun_restarts_a_killed_rank(times: int, data: Path, recipe: Path, tmp_path: Path) -> None:
    arguments = train_arguments(data, recipe, epochs=3 + 2 * times)
    runs = {name: tmp_path / "runs/train" / name for name in ("uninterrupted", "killed")}
    finish(start(tmp_path, *arguments, "--name", "uninterrupted", prefix=torchrun()))
    process = start(tmp_path, *arguments, "--name", "killed", prefix=torchrun("--max-restarts", str(times)))
    main, rng = 0, random.Random(2)
    for moment in moments(times, seconds_per_epoch(runs["uninterrupted"])):
        main = kill_rank(process, runs["killed"], main, moment, rng)
    finish(process)
    assert fingerprints(runs["killed"]) == fingerprints(runs["uninterrupted"])


@pytest.mark.long
def test_a_dead_rank_ends_the_run_within_a_minute(data: Path, recipe: Path, tmp_path: Path) -> None:
    process = start(tmp_path, *train_arguments(data, recipe, epochs=500), prefix=torchrun())
    last = tmp_path / "runs/train/exp/weights/last.pt"
    deadline = time.monotonic() + 200
    while not last.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    ranks = children(process.pid)
    os.kill(max(ranks), signal.SIGKILL)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode and len(ranks) == 2
    lines = stderr.splitlines()
    assert sum(line.startswith("error: ") for line in lines) == 1  # of the rank that lived
    assert not any(line.startswith("[rank") for line in lines)  # no traceback of it
    assert not any(Path(f"/proc/{rank}").exists() for rank in ranks) and not orphans(process.pid)
    assert load_checkpoint(last)["progress"]["epoch"] >= 1


@pytest.mark.long
def test_a_rank_killed_on_one_of_two_nodes_is_restarted(data: Path, recipe: Path, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{probe.getsockname()[1]}"
    node = (sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend")
    node += ("c10d", "--rdzv-id", "two", "--rdzv-endpoint", endpoint, "--max-restarts", "2")
    arguments = train_arguments(data, recipe, epochs=8)
    nodes = [start(tmp_path, *arguments, "--project", tmp_path / "runs/train", prefix=node) for _ in range(2)]
    last = tmp_path / "runs/train/exp/weights/last.pt"
    deadline = time.monotonic() + 200
    while not last.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    with_rank_1 = [pid for process in nodes for pid in children(process.pid) if b"\0RANK=1\0" in environment(pid)]
    os.kill(with_rank_1[0], signal.SIGKILL)
    for process in nodes:
        finish(process)
    assert (last.parent.parent / "summary.json").exists()
    assert [path.name for path in (tmp_path / "runs/train").iterdir()] == ["exp"]


def environment(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


def test_concurrent_runs_choose_different_folders(tmp_path: Path) -> None:
    program = "import sys; from utils.files import make_run_dir; sys.stdin.read(); print(make_run_dir('p', 'exp'))"
    command = [sys.executable, "-c", program]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    runs = [subprocess.Popen(command, cwd=tmp_path, env=environment, stdin=pipe, stdout=pipe) for _ in range(64)]
    time.sleep(1.0)
    for run in runs:  # most have imported by now, and continue as soon as their input ends
        run.stdin.close()  # type: ignore[union-attr]
    folders = {run.stdout.read().decode().strip() for run in runs}  # type: ignore[union-attr]
    assert all(run.wait() == 0 for run in runs)
    assert len(folders) == 64 and {str(p.relative_to(tmp_path)) for p in (tmp_path / "p").iterdir()} == folders
