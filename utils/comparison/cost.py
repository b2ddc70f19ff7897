"""What each model of a comparison costs: parameters, operations, training time, inference time, memory."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.fuse import fused
from models.summary import summarize
from utils.comparison.logs import log_of, peak_memory_gb, run_folder
from utils.comparison.plan import SUMMARY
from utils.errors import DetectorError
from utils.files import load_json
from utils.runtime import memory_format, to_device
from utils.weights.checkpoint import load_model

TIMED_ROUNDS = 40
WARM_UP_ROUNDS = 5


def inference_cost(
    checkpoints: Sequence[Path], sizes: Sequence[int], *, device: torch.device
) -> tuple[list[dict[str, float | None]], tuple[float, float]]:
    """Time one image through each model, the models taking turns so that a busy moment hits all alike.

    Each round begins with another one. Every model takes part twice, its second copy lying elsewhere in memory: how far
    the copies are apart is what the machine's noise makes of equal models.

    Args:
        checkpoints: one of each model.
        sizes: side of each model's square image in pixels.
        device: where to compute.

    Returns:
        For each: `inference_ms`, the median over both copies and forty rounds; `inference_ms_p95`, what 95 % of these
        stay below; both with batch norms folded and without NMS. `inference_memory_gb`, the model's own peak on CUDA,
        None elsewhere. And the share by which the medians, and the p95, of a model's copies differ at most.
    """
    networks = [to_device(fused(load_model(path)[0]), device) for path in (*checkpoints, *checkpoints)]
    generator = torch.Generator().manual_seed(0)
    images = [
        torch.rand(1, 3, size, size, generator=generator).to(device).contiguous(memory_format=memory_format(device))
        for size in (*sizes, *sizes)
    ]
    spent: list[list[float]] = [[] for _ in networks]
    peaks = [0] * len(networks)
    with torch.inference_mode():
        for number in range(WARM_UP_ROUNDS + TIMED_ROUNDS):
            for turn in np.roll(np.arange(len(networks)), -number).tolist():
                milliseconds, peak = timed_pass(networks[turn], images[turn], device)
                if number >= WARM_UP_ROUNDS:  # before, CUDA's libraries take their workspaces, which all models share
                    spent[turn].append(milliseconds)
                    peaks[turn] = max(peaks[turn], peak)
    count = len(checkpoints)
    copies = list(zip(spent[:count], spent[count:], strict=True))
    costs: list[dict[str, float | None]] = [
        {"inference_ms": median(a + b), "inference_ms_p95": _high(a + b), "inference_memory_gb": peak / 1e9 or None}
        for (a, b), peak in zip(copies, map(max, peaks[:count], peaks[count:]), strict=True)
    ]
    medians = max(abs(median(b) / median(a) - 1) for a, b in copies)
    return costs, (medians, max(abs(_high(b) / _high(a) - 1) for a, b in copies))


def _high(milliseconds: Sequence[float]) -> float:
    """Return what 95 % stay below."""
    return float(np.quantile(milliseconds, 0.95))


def timed_pass(network: nn.Module, image: Tensor, device: torch.device) -> tuple[float, int]:
    """Pass an image through a network.

    Args:
        network: in evaluation mode, on `device`.
        image: (1, 3, H, W) on `device`.
        device: where to compute; other networks may lie there too, and do not count.

    Returns:
        Milliseconds, and the bytes at the peak: of the network, the image and all between; 0 where it is not CUDA.
    """
    if device.type != "cuda":
        start = time.perf_counter()
        network(image)
        return 1000 * (time.perf_counter() - start), 0
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    standing = torch.cuda.memory_allocated(device)
    start = time.perf_counter()
    network(image)
    torch.cuda.synchronize(device)
    milliseconds = 1000 * (time.perf_counter() - start)
    own = sum(tensor.nbytes for tensor in (*network.parameters(), *network.buffers(), image))
    return milliseconds, torch.cuda.max_memory_allocated(device) - standing + own


def model_cost(checkpoints: Sequence[Path], *, image_size: int) -> dict[str, Any]:
    """Return what one model's runs cost.

    Args:
        checkpoints: best.pt of each run; what lies beside them tells time and memory, where it was kept.
        image_size: image side in pixels.
    """
    summary = summarize(load_model(checkpoints[0])[0], (image_size, image_size))
    seconds = [value for value in map(_training_seconds, checkpoints) if value is not None]
    folders = [folder for folder in map(run_folder, checkpoints) if folder is not None]
    memory = [value for value in (peak_memory_gb(log_of(folder)) for folder in folders) if value is not None]
    return {
        "parameters": summary.parameters,
        "gflops": summary.gflops,
        "sampling_gflops": summary.sampling_gflops,
        "image_size": image_size,
        "training_seconds": mean(seconds) if seconds else None,
        "training_memory_gb": max(memory) if memory else None,
    }


def _training_seconds(checkpoint: Path) -> float | None:
    """Return how long a run took, if its summary lies beside its weights."""
    folder = run_folder(checkpoint)
    if folder is None or not (folder / SUMMARY).is_file():
        return None
    try:
        value = load_json(folder / SUMMARY).get("training_seconds")
    except (DetectorError, AttributeError):
        return None
    return float(value) if isinstance(value, (int, float)) else None
