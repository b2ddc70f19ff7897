"""Starting train.py as a user does, striking it at seeded moments, and comparing what it leaves behind."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.test_end_to_end import ROOT
from utils.files import load_json
from utils.weights.checkpoint import content_hash, load_checkpoint

PARTS = ("model", "ema", "optimizer", "gradients")
SECONDS = 900  # no process of these tests takes as long


def fingerprints(run: Path) -> dict[str, str]:
    """Hashes of all that a run leaves behind for the next epoch, and of its results."""
    content = load_checkpoint(run / "weights/last.pt")
    best = content_hash(load_checkpoint(run / "weights/best.pt")["ema"])
    return {part: content_hash(content[part]) for part in PARTS} | {
        "best": best,
        "rows": (run / "results.csv").read_text(),
    }


def start(folder: Path, *words: object, prefix: tuple[str, ...] = (sys.executable,)) -> subprocess.Popen[str]:
    """Start train.py in a process group of its own."""
    return subprocess.Popen(
        [*prefix, str(ROOT / "train.py"), *map(str, words)],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for a run to end well, and return its warnings."""
    _, complaint = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, complaint[-3000:]
    assert not orphans(process.pid)
    return complaint


def words_of(data: Path, recipe: Path, *, epochs: int, workers: int = 0) -> tuple[object, ...]:
    return (
        *("--cfg", "yolov5n-akconv.yaml", "--data", data, "--hyp", recipe, "--epochs", epochs, "--imgsz", 64),
        *("--batch-size", 4, "--device", "cpu", "--workers", workers, "--noplots"),
    )


def torchrun(*more: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *more)


def orphans(group: int) -> list[str]:
    """Processes of a group that are still there and no zombies."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append(stat.parent.name)
    return found


def children(parent: int) -> set[int]:
    """Data processes of a run: children that run python's own code, not its resource tracker."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
            command = (stat.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if int(fields[1]) == parent and b"train.py" in command:
            found.add(int(stat.parent.name))
    return found


def holder(run: Path) -> int:
    """The process that holds a run's folder, or did last; 0 for none yet."""
    try:
        return int((run / ".lock").read_text().removeprefix("pid "))
    except (OSError, ValueError):
        return 0


def seconds_an_epoch(run: Path) -> float:
    """What a finished run took for an epoch."""
    rows = load_checkpoint(run / "weights/last.pt")["progress"]["rows"]
    return float(load_json(run / "summary.json")["training_seconds"]) / len(rows)


def moments(times: int, epoch: float) -> Iterator[float]:
    """Seeded moments, in seconds after a process has taken its run's folder: up to two and a half epochs."""
    rng = random.Random(0)
    for _ in range(times):
        yield rng.uniform(0.0, 2.5 * epoch)


def until_held(run: Path, process: subprocess.Popen[str], *, by: int) -> None:
    """Wait until process `by` holds the folder of a run."""
    deadline = time.monotonic() + SECONDS
    while holder(run) != by and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)


def until_listening(process: subprocess.Popen[str]) -> None:
    """Wait until a program takes SIGTERM as a wish to save, which it does as long as it trains."""
    deadline = time.monotonic() + SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        status = Path(f"/proc/{process.pid}/status").read_text()
        caught = int(status.split("SigCgt:")[1].split()[0], 16)
        if caught >> (signal.SIGTERM - 1) & 1:
            return
        time.sleep(0.01)


def survive(folder: Path, words: tuple[object, ...], number: signal.Signals, *, times: int, epoch: float) -> None:
    """Start a run, strike it `times` times, each time going on with it, then let it end.

    One strike in four comes while the program starts, before it has taken the run's folder; not so of Ctrl-C, which a
    program that a shell started in the background ignores until it trains. Later ones must be heeded.
    """
    run = folder / "runs/train/exp"
    early = random.Random(1)
    for moment in moments(times, epoch):
        process = start(folder, *again(run, words))
        allowed = {-number if number == signal.SIGKILL else 128 + number}
        if number != signal.SIGINT and early.random() < 0.25:
            time.sleep(early.uniform(0.0, 3.0))
            allowed |= {-number}
        elif number == signal.SIGKILL:
            until_held(run, process, by=process.pid)
            time.sleep(moment)
        else:
            until_listening(process)
            time.sleep(moment)
        os.killpg(process.pid, number)
        _, complaint = process.communicate(timeout=SECONDS)
        assert not orphans(process.pid)
        assert process.returncode, "the run ended before it was struck as often as asked"
        assert process.returncode in allowed, complaint[-2000:]
    finish(start(folder, *again(run, words)))


def again(run: Path, words: tuple[object, ...]) -> tuple[object, ...]:
    """The words that start a run, or go on with it once something was saved."""
    saved = any((run / "weights" / name).exists() for name in ("last.pt", "last.bak.pt"))
    return ("--resume", "--noplots") if saved else (*words, "--exist-ok")
