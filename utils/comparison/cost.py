"""What each model of a comparison costs: parameters, operations, file size, training and inference time, memory."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import mean
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.fuse import fused
from models.summary import summarize
from models.yolo import DetectionModel
from utils.benchmarks.timing import Timing, interleave
from utils.comparison.trained_runs import TrainedRuns
from utils.datasets.images import read_image
from utils.datasets.letterbox import letterbox
from utils.inference.nms import NmsSettings, non_max_suppression
from utils.runtime import memory_format, scale_pixels, to_device
from utils.weights.checkpoint import checkpoint_bytes, describe_model, load_model, weights_of

ROUNDS = 40
WARM_UP_ROUNDS = 5  # in which CUDA libraries allocate workspaces
TIMED_IMAGES = 8  # of the split, in turns
DETECTION_NMS = NmsSettings()  # with detect.py's thresholds


def measure_costs(
    models: Sequence[TrainedRuns], image_sizes: Sequence[int], paths: Sequence[str], *, device: torch.device
) -> tuple[list[dict[str, Any]], tuple[float, float]]:
    """Measure the first run of each model; training time and memory are those of all runs, as far as known.

    Images of the split, at `paths`, are timed. The costs are by the keys of
    `COST_COLUMNS`, and with them comes the noise of the times, see `time_networks`.
    """
    loaded = [load_model(model.runs[0].path) for model in models]
    networks = [network for network, _ in loaded]
    fused_networks, copies = ([to_device(fused(network), device) for network in networks] for _ in range(2))
    chosen = np.unique(np.linspace(0, len(paths) - 1, TIMED_IMAGES).astype(int))
    images = [read_image(paths[index]) for index in chosen]
    times, noise = time_networks(fused_networks, copies, image_sizes, images, device=device)
    costs = []
    for index, (model, size) in enumerate(zip(models, image_sizes, strict=True)):
        network, names = loaded[index]
        summary = summarize(network, (size, size))
        seconds = [run.training_seconds for run in model.runs if run.training_seconds is not None]
        memory = [run.peak_memory_gb for run in model.runs if run.peak_memory_gb is not None]
        image = torch.zeros(1, 3, size, size, device=device).contiguous(memory_format=memory_format(device))
        cost = {
            "parameters": summary.parameters,
            "gflops": summary.gflops,
            "sampling_gflops": summary.sampling_gflops,
            "image_size": size,
            "file_mb_fp32": file_mb(network, names, torch.float32),
            "file_mb_fp16": file_mb(network, names, torch.float16),
            "training_seconds": mean(seconds) if seconds else None,
            "training_memory_gb": max(memory) if memory else None,
            **times[index],
            "inference_memory_gb": forward_memory_gb(fused_networks[index], image, device),
        }
        costs.append(cost)
    return costs, noise


def file_mb(network: DetectionModel, names: tuple[str, ...], dtype: torch.dtype) -> float:
    """Return the size in MB (1e6 bytes) of a checkpoint with nothing but the model: config, class names and weights."""
    weights = {name: t.to(dtype) if t.is_floating_point() else t for name, t in weights_of(network).items()}
    return len(checkpoint_bytes({**describe_model(network, names), "ema": weights})) / 1e6


@dataclass
class _Pipeline:
    """A network that detects in one image after another; each phase continues with the last result of the previous."""

    network: nn.Module
    size: int  # of the square that images are letterboxed into
    images: Sequence[np.ndarray]  # (H, W, 3) uint8, decoded
    device: torch.device
    calls: int = 0
    batch: Tensor = field(init=False)
    predictions: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.preprocess()
        self.infer()

    def preprocess(self) -> None:
        """Letterbox the next image, move it to the device and scale its pixels."""
        image, _ = letterbox(self.images[self.calls % len(self.images)], (self.size, self.size))
        self.batch = scale_pixels(torch.from_numpy(image[None]).permute(0, 3, 1, 2), self.device)
        self.calls += 1

    def infer(self) -> None:
        """Predict."""
        self.predictions = self.network(self.batch)[0]

    def suppress(self) -> None:
        """Apply non-maximum suppression."""
        non_max_suppression(self.predictions, DETECTION_NMS)


def time_networks(
    networks: Sequence[nn.Module],
    copies: Sequence[nn.Module],
    image_sizes: Sequence[int],
    images: Sequence[np.ndarray],
    *,
    device: torch.device,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[list[dict[str, float]], tuple[float, float]]:
    """Time networks in evaluation mode that take turns on decoded (H, W, 3) images, one image at a time.

    The copies are the same networks at other places in memory. Of each network the median milliseconds of each
    phase over both copies are returned, the 95th percentile of inference, and the images per second that follow from
    the medians. The noise is the largest relative difference between copies in median and 95th percentile of inference.
    """
    with torch.inference_mode():
        pipelines = [
            _Pipeline(network, size, images, device)
            for of_copy in (networks, copies)
            for network, size in zip(of_copy, image_sizes, strict=True)
        ]
        phases = [
            [pipeline.preprocess for pipeline in pipelines],
            [pipeline.infer for pipeline in pipelines],
            [pipeline.suppress for pipeline in pipelines],
        ]
        actions = [action for of_pipeline in zip(*phases, strict=True) for action in of_pipeline]
        timings = interleave(actions, rounds=ROUNDS, warm_up=WARM_UP_ROUNDS, device=device, rotate=True, clock=clock)
    count = 3 * len(networks)
    pairs = list(zip(timings[:count], timings[count:], strict=True))
    pooled = [Timing((*first.milliseconds, *second.milliseconds)) for first, second in pairs]
    costs = []
    for preprocess, inference, nms in zip(pooled[::3], pooled[1::3], pooled[2::3], strict=True):
        costs.append(
            {
                "preprocess_ms": preprocess.median,
                "inference_ms": inference.median,
                "inference_ms_p95": inference.p95,
                "nms_ms": nms.median,
                "fps_network": 1000 / inference.median,
                "fps_end_to_end": 1000 / (preprocess.median + inference.median + nms.median),
            }
        )
    return costs, (
        max(abs(second.median / first.median - 1) for first, second in pairs[1::3]),
        max(abs(second.p95 / first.p95 - 1) for first, second in pairs[1::3]),
    )


def forward_memory_gb(network: nn.Module, image: Tensor, device: torch.device) -> float | None:
    """Return the peak memory of a forward pass in GB: network, image and activations; None if on neither CUDA nor CPU.

    It is what PyTorch allocates. Other networks do not count, and neither do the libraries and scratch memory of
    kernels on the CPU.
    """
    fixed = sum(tensor.nbytes for tensor in (*network.parameters(), *network.buffers(), image))
    with torch.inference_mode():
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            before = torch.cuda.memory_allocated(device)
            network(image)
            torch.cuda.synchronize(device)
            return (torch.cuda.max_memory_allocated(device) - before + fixed) / 1e9
        return (_peak_allocated(partial(network, image)) + fixed) / 1e9 if device.type == "cpu" else None


def _peak_allocated(action: Callable[[], object]) -> int:
    """Return the most bytes that PyTorch has allocated on the CPU at a time during an action."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else the profiler writes to the console
    with torch.autograd.profiler.profile(profile_memory=True) as profile:
        action()
    results = profile.kineto_results
    changes = [event.nbytes() for event in results.events() if event.name() == "[memory]"] if results else []
    return int(np.cumsum([0, *changes]).max())
