"""What train.py prints: a row for each epoch under a heading, and what came of it."""

from __future__ import annotations

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
    if device.type == "cuda":
        return f"{torch.cuda.memory_reserved(device) / 1e9:.3g}G"
    try:
        import resource
    except ImportError:  # Windows
        return "-"
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.3g}G"


def span(seconds: float) -> str:
    """Return a duration as h:mm:ss or m:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
