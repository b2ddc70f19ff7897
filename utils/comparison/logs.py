"""What the files of a training say from outside: epochs done, memory taken, and the reason it ended."""

from __future__ import annotations

import re
from pathlib import Path

MEMORY_CELL = re.compile(r"^\s*\d+/\d+\s+([\d.]+(?:e[+-]?\d+)?)G\s", re.MULTILINE)
TRANSFERRED = re.compile(r"^Transferred \d+/\d+ items \(([\d.]+%) of the parameters\) from ", re.MULTILINE)


def run_folder(checkpoint: Path) -> Path | None:
    """Return the folder of the run that wrote a checkpoint; None if it does not lie in the `weights` of one."""
    parent = checkpoint.resolve().parent
    return parent.parent if parent.name == "weights" and parent.parent.name else None


def log_of(folder: Path) -> Path:
    """Return where a comparison keeps what a run says: beside the run's folder."""
    return folder.with_name(f"{folder.name}.log")


def epochs_done(folder: Path) -> int:
    """Return how many epochs a run's results.csv holds."""
    try:
        return max((folder / "results.csv").read_bytes().count(b"\n") - 1, 0)
    except OSError:
        return 0


def last_error(log: Path) -> str:
    """Return the error that a log ends with, or else its last line."""
    try:
        lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:
        return "no output"
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    told = [line for line in lines if line]
    return (errors or told or ["no output"])[-1]


def transferred_share(log: Path) -> str:
    """Return the share of its parameters that a training said it took from other weights; empty if it did not."""
    try:
        found = TRANSFERRED.search(log.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return ""
    return found[1] if found else ""


def peak_memory_gb(log: Path) -> float | None:
    """Return the most memory that a training said it took, in GB: reserved on CUDA, else of the whole process."""
    try:
        cells = MEMORY_CELL.findall(log.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None
    return max(map(float, cells)) if cells else None
