"""--batch-size -1: the batch that fills a GPU's memory to four fifths, found by training steps on a few small ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from models.yolo import DetectionModel
from utils.errors import ConfigError
from utils.log import LOGGER
from utils.runtime import to_device

TRIED = (1, 2, 4, 8, 16)
SHARE = 0.8
FALLBACK = 16
LARGEST = 1024


def fitting_batch(sizes: Sequence[int], used: Sequence[float], *, budget: float, below: int = LARGEST + 1) -> int:
    """Return the batch whose memory, on a straight line through the measured ones, stays within a budget.

    Args:
        sizes: batch sizes that were tried and fitted, at least one.
        used: memory of each, in bytes.
        budget: in bytes.
        below: the smallest size known not to fit.

    Returns:
        From 1 to 1024, and less than `below`; 16 if memory did not grow with the batch, so that nothing can be told.
    """
    if len(sizes) < 2:
        return max(sizes)
    slope, start = np.polyfit(sizes, used, 1)
    wanted = (budget - start) // slope if slope > 0 else FALLBACK
    return int(np.clip(wanted, 1, below - 1))


def choose_batch(model: DetectionModel, *, image_size: int, device: torch.device, amp: bool) -> int:
    """Return a batch size for a model: measured on CUDA, 16 elsewhere, where memory is not the limit.

    Raises:
        ConfigError: not even one image fits.
    """
    if device.type != "cuda":
        LOGGER.warning(f"--batch-size -1 measures a GPU; on {device.type} {FALLBACK} is used")
        return FALLBACK
    total = torch.cuda.get_device_properties(device).total_memory
    taken = torch.cuda.memory_reserved(device)
    sizes, used = measured_memory(lambda batch: _training_memory(model, batch, image_size, device, amp))
    if not sizes:
        what = f"a single image of {image_size} px does not fit into the GPU's {total / 1e9:.1f} GB"
        raise ConfigError("--batch-size -1", what, fix="use a smaller --imgsz or model, or end what else uses the GPU")
    below = TRIED[len(sizes)] if len(sizes) < len(TRIED) else LARGEST + 1
    batch = fitting_batch(sizes, used, budget=SHARE * total - taken, below=below)
    LOGGER.info(f"--batch-size {batch}: {SHARE:.0%} of {total / 1e9:.1f} GB, measured with {list(sizes)}")
    return batch


def measured_memory(measure: Callable[[int], float]) -> tuple[list[int], list[float]]:
    """Measure growing batches until one no longer fits; return sizes and bytes of those that did."""
    sizes: list[int] = []
    used: list[float] = []
    for size in TRIED:
        try:
            used.append(measure(size))
        except torch.OutOfMemoryError:
            break
        sizes.append(size)
    return sizes, used


def _training_memory(model: DetectionModel, batch: int, image_size: int, device: torch.device, amp: bool) -> float:
    """Return the peak memory of a forward and backward pass, in bytes. Batch statistics are put back."""
    network = to_device(model, device).train()
    kept = {name: value.clone() for name, value in network.state_dict().items()}
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    try:
        with torch.autocast(device.type, enabled=amp):
            raw = network(torch.zeros(batch, 3, image_size, image_size, device=device))
        torch.stack([level.float().sum() for level in raw]).sum().backward()
        return float(torch.cuda.max_memory_reserved(device))
    finally:
        network.zero_grad(set_to_none=True)
        network.load_state_dict(kept)
