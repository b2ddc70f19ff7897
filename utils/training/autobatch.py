"""--batch-size -1: the batch size that fills four fifths of a GPU's memory, extrapolated from a few small batches."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import numpy as np
import torch

from models.yolo import DetectionModel
from utils.errors import ConfigError
from utils.log import LOGGER
from utils.runtime import to_device

MEASURED_SIZES = (1, 2, 4, 8, 16)
MEMORY_FRACTION = 0.8
DEFAULT_SIZE = 16
MAX_SIZE = 1024


def largest_batch(sizes: Sequence[int], used: Sequence[float], *, budget: float, below: int = MAX_SIZE + 1) -> int:
    """Return the largest batch size within a memory budget in bytes, by a linear fit to the bytes used by some sizes.

    It is from 1 to 1024, and less than `below`, which does not fit; 16 if the memory does not grow with the size.
    """
    if len(sizes) < 2:
        return max(sizes)
    slope, intercept = np.polyfit(sizes, used, 1)
    size = (budget - intercept) // slope if slope > 0 else DEFAULT_SIZE
    return int(np.clip(size, 1, below - 1))


def choose_batch(model: DetectionModel, *, image_size: int, device: torch.device, amp: bool) -> int:
    """Return a batch size for a model: measured on CUDA, a ConfigError if a single image does not fit; 16 elsewhere."""
    if device.type != "cuda":
        LOGGER.warning(f"--batch-size -1 measures GPUs only; using {DEFAULT_SIZE} on {device.type}")
        return DEFAULT_SIZE
    total = torch.cuda.get_device_properties(device).total_memory
    reserved = torch.cuda.memory_reserved(device)
    sizes, used = measured_memory(lambda batch: _training_memory(model, batch, image_size, device, amp))
    if not sizes:
        what = f"a single image of {image_size} px does not fit into the GPU's {total / 1e9:.1f} GB"
        raise ConfigError("--batch-size -1", what, fix="use a smaller --imgsz or model, or free the GPU")
    below = MEASURED_SIZES[len(sizes)] if len(sizes) < len(MEASURED_SIZES) else MAX_SIZE + 1
    batch = largest_batch(sizes, used, budget=MEMORY_FRACTION * total - reserved, below=below)
    LOGGER.info(f"--batch-size {batch}: {MEMORY_FRACTION:.0%} of {total / 1e9:.1f} GB, measured with {list(sizes)}")
    return batch


def measured_memory(measure: Callable[[int], float]) -> tuple[list[int], list[float]]:
    """Measure growing batch sizes until one does not fit; return the sizes that do, and their memory in bytes."""
    used: list[float] = []
    with contextlib.suppress(torch.OutOfMemoryError):
        for size in MEASURED_SIZES:
            used.append(measure(size))
    return [*MEASURED_SIZES[: len(used)]], used


def _training_memory(model: DetectionModel, batch: int, image_size: int, device: torch.device, amp: bool) -> float:
    """Return the peak memory of a forward and backward pass in bytes; the model's state is restored."""
    network = to_device(model, device).train()
    state = {name: value.clone() for name, value in network.state_dict().items()}
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    try:
        with torch.autocast(device.type, enabled=amp):
            raw = network(torch.zeros(batch, 3, image_size, image_size, device=device))
        torch.stack([level.float().sum() for level in raw]).sum().backward()
        return float(torch.cuda.max_memory_reserved(device))
    finally:
        network.zero_grad(set_to_none=True)
        network.load_state_dict(state)
