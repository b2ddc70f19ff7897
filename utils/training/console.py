"""What train.py prints: a row for each epoch under a heading, and what came of it."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import torch

from utils.losses.detection import COMPONENTS


def headline() -> str:
    """Return the heading of the epoch rows."""
    names = ("Epoch", "Memory", *(f"{name}_loss" for name in COMPONENTS), "Instances", "Size")
    return "\n" + "".join(f"{name:>11}" for name in names)


def epoch_row(
    epoch: int, epochs: int, means: Mapping[str, float], *, instances: int | None, size: int, device: torch.device
) -> str:
    """Return one epoch's row: its number, memory, mean losses, instances of the batch, image side."""
    cells = [f"{epoch}/{epochs - 1}", memory_in_use(device)]
    cells += [f"{means[name]:.4g}" for name in COMPONENTS]
    cells += [str(instances) if instances is not None else "", str(size)]
    return "".join(f"{cell:>11}" for cell in cells)


def epoch_time(*, total: float, waited: float, left: float) -> str:
    """Return how long an epoch took, which share of its training waited for data, and what is left."""
    advice = "; more --workers or --cache would help" if waited > 0.2 else ""
    return f"{total:.1f} s, {waited:.0%} of training waiting for data{advice}, {span(left)} left".rjust(77)


def memory_in_use(device: torch.device) -> str:
    """Return the memory in use: reserved on CUDA, else this process's peak, in GB."""
    memory = torch.cuda.memory_reserved(device) / 1e9 if device.type == "cuda" else peak_memory_gb(device)
    return "-" if memory is None else f"{memory:.3g}G"


def peak_memory_gb(device: torch.device) -> float | None:
    """Return the peak memory of this process in GB: reserved on CUDA, else resident; None where it is unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) / 1e9
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes on macOS, in kilobytes elsewhere
    return peak / (1e9 if sys.platform == "darwin" else 1e6)


def span(seconds: float) -> str:
    """Return a duration as h:mm:ss or m:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
