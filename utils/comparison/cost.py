"""What each model of a comparison costs: parameters, operations, training time, inference time, memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import mean
from typing import Any

import torch
from torch import Tensor, nn

from models.fuse import fused
from models.summary import summarize
from utils.benchmarks.timing import Timing, interleave
from utils.comparison.trained_runs import TrainedRuns
from utils.runtime import memory_format, to_device
from utils.weights.checkpoint import load_model

ROUNDS = 40
WARM_UP_ROUNDS = 5  # in which CUDA libraries allocate workspaces


def measure_costs(
    models: Sequence[TrainedRuns], image_sizes: Sequence[int], *, device: torch.device
) -> tuple[list[dict[str, Any]], tuple[float, float]]:
    """Measure the first run of each model; training time and memory are those of all runs, as far as known.

    The costs are by the keys of `COST_COLUMNS`, and with them comes the noise of the times, see `time_networks`.
    """
    networks = [load_model(model.runs[0].path)[0] for model in models]
    fused_networks, copies = ([to_device(fused(network), device) for network in networks] for _ in range(2))
    generator = torch.Generator().manual_seed(0)
    images = [torch.rand(1, 3, size, size, generator=generator) for size in image_sizes]
    images = [image.to(device).contiguous(memory_format=memory_format(device)) for image in images]
    times, noise = time_networks(fused_networks, copies, images, device=device)
    costs = []
    for index, (model, size) in enumerate(zip(models, image_sizes, strict=True)):
        summary = summarize(networks[index], (size, size))
        seconds = [run.training_seconds for run in model.runs if run.training_seconds is not None]
        memory = [run.peak_memory_gb for run in model.runs if run.peak_memory_gb is not None]
        cost = {
            "parameters": summary.parameters,
            "gflops": summary.gflops,
            "sampling_gflops": summary.sampling_gflops,
            "image_size": size,
            "training_seconds": mean(seconds) if seconds else None,
            "training_memory_gb": max(memory) if memory else None,
            **times[index],
            "inference_memory_gb": forward_memory_gb(fused_networks[index], images[index], device),
        }
        costs.append(cost)
    return costs, noise


def time_networks(
    networks: Sequence[nn.Module],
    copies: Sequence[nn.Module],
    images: Sequence[Tensor],
    *,
    device: torch.device,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[list[dict[str, float]], tuple[float, float]]:
    """Time networks in evaluation mode that take turns, each on a (1, 3, H, W) image of its own.

    The copies are the same networks at other places in memory. Of each network the median and the 95th percentile of
    the milliseconds over both copies are returned, and as noise the largest relative difference between copies in both.
    """
    actions = list(map(partial, (*networks, *copies), (*images, *images)))
    with torch.inference_mode():
        timings = interleave(actions, rounds=ROUNDS, warm_up=WARM_UP_ROUNDS, device=device, rotate=True, clock=clock)
    pairs = list(zip(timings[: len(networks)], timings[len(networks) :], strict=True))
    pooled = [Timing((*first.milliseconds, *second.milliseconds)) for first, second in pairs]
    costs = [{"inference_ms": timing.median, "inference_ms_p95": timing.p95} for timing in pooled]
    return costs, (
        max(abs(second.median / first.median - 1) for first, second in pairs),
        max(abs(second.p95 / first.p95 - 1) for first, second in pairs),
    )


def forward_memory_gb(network: nn.Module, image: Tensor, device: torch.device) -> float | None:
    """Return the peak memory of a forward pass in GB: network, image and activations; None if not on CUDA.

    Other networks on the device do not count.
    """
    if device.type != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    with torch.inference_mode():
        network(image)
    torch.cuda.synchronize(device)
    fixed = sum(tensor.nbytes for tensor in (*network.parameters(), *network.buffers(), image))
    return (torch.cuda.max_memory_allocated(device) - before + fixed) / 1e9
