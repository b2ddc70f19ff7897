"""Starts train.py as a user does, sends it signals at seeded moments, and compares what it leaves behind."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.helpers.training_runs import ROOT
from utils.files import load_json
from utils.weights.checkpoint import content_hash, load_checkpoint

PARTS = ("model", "ema", "optimizer", "gradients")
TIMEOUT = 900  # seconds; no process of these tests takes as long


def fingerprints(run: Path) -> dict[str, str]:
    """Hashes of everything a run leaves for its next epoch, and its results."""
    content = load_checkpoint(run / "weights/last.pt")
    best = content_hash(load_checkpoint(run / "weights/best.pt")["ema"])
    return {part: content_hash(content[part]) for part in PARTS} | {
        "best": best,
        "rows": (run / "results.csv").read_text(),
    }


def start(folder: Path, *arguments: object, prefix: tuple[str, ...] = (sys.executable,)) -> subprocess.Popen[str]:
    """Start train.py in a new process group."""
    return subprocess.Popen(
        [*prefix, str(ROOT / "train.py"), *map(str, arguments)],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    """Wait until a run ends successfully, and return its warnings."""
    _, stderr = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, stderr[-3000:]
    assert not orphans(process.pid)
    return stderr


def train_arguments(data: Path, recipe: Path, *, epochs: int, workers: int = 0) -> tuple[object, ...]:
    """Arguments for a model that draws random numbers while it trains, unless a later --cfg replaces it."""
    return (
        *(
            "--cfg",
            recipe.with_name("dropout.yaml"),
            "--data",
            data,
            "--hyp",
            recipe,
            "--epochs",
            epochs,
            "--imgsz",
            64,
        ),
        *("--batch-size", 4, "--device", "cpu", "--workers", workers, "--noplots"),
    )


def torchrun(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *arguments)


def orphans(group: int) -> list[str]:
    """Process ids of a group that still exist, except zombies."""
    alive = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            alive.append(stat.parent.name)
    return alive


def children(parent: int) -> set[int]:
    """Process ids of the children that run train.py: ranks of torchrun, or data loader workers."""
    pids = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
            command = (stat.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if int(fields[1]) == parent and b"train.py" in command:
            pids.add(int(stat.parent.name))
    return pids


def lock_holder(run: Path) -> int:
    """Id of the process that holds a run's folder, or held it last; 0 before the first."""
    try:
        return int((run / ".lock").read_text().removeprefix("pid "))
    except (OSError, ValueError):
        return 0


def seconds_per_epoch(run: Path) -> float:
    """Mean duration of an epoch of a finished run."""
    rows = load_checkpoint(run / "weights/last.pt")["progress"]["rows"]
    return float(load_json(run / "summary.json")["training_seconds"]) / len(rows)


def moments(times: int, epoch: float) -> Iterator[float]:
    """Seeded delays in seconds after a process has locked its run's folder: up to two and a half epochs."""
    rng = random.Random(0)
    for _ in range(times):
        yield rng.uniform(0.0, 2.5 * epoch)


def wait_for_lock(run: Path, process: subprocess.Popen[str], *, holder: int) -> None:
    """Wait until a process holds the folder of a run."""
    deadline = time.monotonic() + TIMEOUT
    while lock_holder(run) != holder and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)


def wait_for_handler(process: subprocess.Popen[str]) -> None:
    """Wait until a program handles SIGTERM, which it does while it trains."""
    deadline = time.monotonic() + TIMEOUT
    while process.poll() is None and time.monotonic() < deadline:
        status = Path(f"/proc/{process.pid}/status").read_text()
        caught = int(status.split("SigCgt:")[1].split()[0], 16)
        if caught >> (signal.SIGTERM - 1) & 1:
            return
        time.sleep(0.01)


def interrupt_repeatedly(
    folder: Path, arguments: tuple[object, ...], number: signal.Signals, *, times: int, epoch: float
) -> None:
    """Start a run, send it a signal `times` times and resume it each time, then let it finish.

    One signal in four arrives before the program has locked the run's folder; not so of Ctrl-C, which a program started
    by a shell in the background ignores until it trains. All later signals must end the program.
    """
    run = folder / "runs/train/exp"
    early = random.Random(1)
    for moment in moments(times, epoch):
        process = start(folder, *start_or_resume(run, arguments))
        expected = {-number if number == signal.SIGKILL else 128 + number}
        if number != signal.SIGINT and early.random() < 0.25:
            time.sleep(early.uniform(0.0, 3.0))
            expected |= {-number}
        elif number == signal.SIGKILL:
            wait_for_lock(run, process, holder=process.pid)
            time.sleep(moment)
        else:
            wait_for_handler(process)
            time.sleep(moment)
        os.killpg(process.pid, number)
        _, stderr = process.communicate(timeout=TIMEOUT)
        assert not orphans(process.pid)
        assert process.returncode, "the run finished before all signals were sent"
        assert process.returncode in expected, stderr[-2000:]
    finish(start(folder, *start_or_resume(run, arguments)))


def start_or_resume(run: Path, arguments: tuple[object, ...]) -> tuple[object, ...]:
    """Arguments that start a run, or resume it once it is saved."""
    saved = any((run / "weights" / name).exists() for name in ("last.pt", "last.bak.pt"))
    return ("--resume", "--noplots") if saved else (*arguments, "--exist-ok")
