"""benchmarks.py's work: what AKConv costs, layer by layer and in whole models, as ratios within one run."""

from __future__ import annotations

import gc
import multiprocessing
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from models.fuse import fused
from models.summary import count_flops
from utils.benchmarks.cases import (
    GATHERS,
    OURS,
    PLAIN,
    BenchmarkCase,
    layer_cases,
    model_cases,
    point_cases,
)
from utils.files import atomic_write, dump_json, make_run_dir
from utils.log import LOGGER
from utils.malloc import tune_malloc
from utils.options import BenchmarkOptions
from utils.plots.benchmark import plot_ratios
from utils.runtime import describe_environment, select_device, to_device

WARM_UP_ROUNDS = 2
METHODS = multiprocessing.get_all_start_methods()


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Milliseconds over the rounds of one run."""

    minimum: float
    median: float


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a table.

    Attributes:
        case: what was measured.
        variant: plain, AKConv, or four gathers.
        timings: per quantity, as `forward` or `training step`.
        parameters: of the layer or model.
        gflops: for one image, sampling counted.
        memory_mb: peak of a forward and backward pass, beyond what was there before.
    """

    case: str
    variant: str
    timings: dict[str, Timing]
    parameters: int
    gflops: float
    memory_mb: float


def interleave(actions: Sequence[Callable[[], object]], *, rounds: int, device: torch.device) -> list[Timing]:
    """Time actions, each once in every round, so that a busy moment hits all alike."""
    spent: list[list[float]] = [[] for _ in actions]
    for number in range(rounds + WARM_UP_ROUNDS):
        for action, times in zip(actions, spent, strict=True):
            start = time.perf_counter()
            action()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if number >= WARM_UP_ROUNDS:
                times.append(1000 * (time.perf_counter() - start))
    return [Timing(minimum=min(times), median=median(times)) for times in spent]


def _inference(subject: BenchmarkCase, module: nn.Module, image: Tensor) -> Callable[[], object]:
    network, image = to_device(fused(module), image.device), image.detach()

    def run() -> None:
        with subject.implementation(), torch.inference_mode():
            network(image)

    return run


def _training(subject: BenchmarkCase, module: nn.Module, image: Tensor, *, amp: bool) -> Callable[[], object]:
    """Return one forward and backward pass in training mode, gradients of the input included for a layer."""
    module.train()

    def run() -> None:
        with subject.implementation():
            with torch.autocast(image.device.type, enabled=amp):
                output = module(image)
            maps = output if isinstance(output, list) else [output]
            torch.stack([m.float().square().mean() for m in maps]).sum().backward()
        module.zero_grad()

    return run


def _rows(subjects: Sequence[BenchmarkCase], options: BenchmarkOptions, device: torch.device) -> list[Row]:
    """Measure subjects that are compared with each other."""
    whole = subjects[0].layer is None
    modules = [subject.module(device) for subject in subjects]
    timings: list[dict[str, Timing]] = [{} for _ in subjects]
    largest = options.batch_size if whole else options.layer_batch
    quantities: list[tuple[str, int, bool]] = [("forward", largest, False), ("forward + backward", largest, True)]
    if whole:
        quantities = [(f"inference, batch {batch}", batch, False) for batch in dict.fromkeys((1, largest))]
        quantities.append((f"training step, batch {largest}", largest, True))
    for quantity, batch, trained in quantities:
        actions = []
        for subject, module in zip(subjects, modules, strict=True):
            image = subject.image(batch, options.imgsz, device)
            if trained:
                actions.append(_training(subject, module, image, amp=options.amp))
            else:
                actions.append(_inference(subject, module, image))
        for timing, kept in zip(interleave(actions, rounds=options.repeats, device=device), timings, strict=True):
            kept[quantity] = timing
    rows = []
    for subject, module, timing_of in zip(subjects, modules, timings, strict=True):
        shape = subject.image(1, options.imgsz, torch.device("cpu")).shape
        rows.append(
            Row(
                case=subject.case,
                variant=subject.variant,
                timings=timing_of,
                parameters=sum(p.numel() for p in module.parameters()),
                gflops=count_flops(module, torch.empty(shape, device="meta"))[0] / 1e9,
                memory_mb=_peak_memory(subject, options),
            )
        )
    LOGGER.info(f"measured: {', '.join(dict.fromkeys(row.case for row in rows))}")
    return rows


def _peak_memory(subject: BenchmarkCase, options: BenchmarkOptions) -> float:
    """Return a training step's peak memory in MB, measured in a process of its own, so that nothing before counts."""
    context = multiprocessing.get_context("forkserver" if "forkserver" in METHODS else "spawn")
    # A server that has imported what takes seconds, and done nothing with it yet. From another folder than the
    # project's it does not find this module (Python 3.11 forgets to pass sys.path on), which then each process imports.
    context.set_forkserver_preload(["torch._dynamo", "matplotlib.pyplot", "pandas", "torchvision", __name__])
    with context.Pool(1) as pool:
        return float(pool.apply(peak_memory_of, (subject, options)))


def peak_memory_of(subject: BenchmarkCase, options: BenchmarkOptions) -> float:
    """Take two training steps and return the peak memory in MB beyond that before them."""
    tune_malloc()
    device = select_device(options.device)
    batch = options.batch_size if subject.layer is None else options.layer_batch
    image = subject.image(batch, options.imgsz, device)
    step = _training(subject, subject.module(device), image, amp=options.amp)
    gc.collect()
    before = _resident_mb(device, peak=False)
    step()
    step()
    return _resident_mb(device, peak=True) - before


def _resident_mb(device: torch.device, *, peak: bool) -> float:
    """Return the memory in use, or the most ever used, in MB: allocated on CUDA, resident on the CPU."""
    if device.type == "cuda":
        used = torch.cuda.max_memory_allocated(device) if peak else torch.cuda.memory_allocated(device)
        return used / 1e6
    key = "VmHWM" if peak else "VmRSS"
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1000 for line in lines if line.startswith(key))


def _plain_of(row: Row, rows: Sequence[Row]) -> Row:
    """Return the plain row of the same case, or else the first of all."""
    return next((r for r in rows if r.variant == PLAIN and r.case == row.case), rows[0])


def ratio_table(rows: Sequence[Row]) -> str:
    """Return a markdown table: medians, and in brackets their ratio to plain and that of the minima."""
    keys = list(rows[0].timings)
    head = ["case", "variant", *(f"{key}, ms" for key in keys), "peak memory, MB", "parameters", "GFLOPs"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        plain = _plain_of(row, rows)
        cells = []
        for key, timing in row.timings.items():
            ratios = timing.median / plain.timings[key].median, timing.minimum / plain.timings[key].minimum
            cells.append(f"{timing.median:.2f} ({ratios[0]:.2f}, {ratios[1]:.2f})")
        cells.append(f"{row.memory_mb:.0f} ({row.memory_mb / plain.memory_mb:.2f})")
        cells += [f"{row.parameters:,}", f"{row.gflops:.3f}"]
        lines.append("| " + " | ".join([row.case, row.variant, *cells]) + " |")
    return "\n".join(lines)


def run_benchmark(options: BenchmarkOptions) -> Path:
    """Measure what the options ask for; print tables, write benchmark.md, benchmark.json and benchmark.png.

    Returns:
        The run's folder.
    """
    device = select_device(options.device)
    run_dir = make_run_dir(options.project, options.name)
    environment = describe_environment(device)
    asked = {
        "models": (f"Whole models, {options.imgsz} px", model_cases()),
        "layers": (f"Layers, batch {options.layer_batch}", layer_cases()),
        "points": (f"One layer by its number of points, batch {options.layer_batch}", point_cases()),
    }
    parts = {
        title: [row for subjects in groups for row in _rows(subjects, options, device)]
        for part, (title, groups) in asked.items()
        if options.suite in ("all", part)
    }
    heading = (
        f"# Cost of AKConv\n\n{environment['gpu'] or 'CPU'}, {environment['cpu_count']} cores, "
        f"{environment['torch_threads']} threads, torch {environment['torch']}; medians of {options.repeats} rounds in "
        f"which all variants take turns, channels last. In brackets the ratio to the plain convolution or model: of "
        f"medians, of minima.\n"
    )
    text = heading + "".join(f"\n## {title}\n\n{ratio_table(rows)}\n" for title, rows in parts.items())
    atomic_write(run_dir / "benchmark.md", text)
    content: dict[str, Any] = {"options": asdict(options), "environment": environment}
    content["parts"] = {title: [asdict(row) for row in rows] for title, rows in parts.items()}
    dump_json(run_dir / "benchmark.json", content)
    plot_ratios({title: _ratios(rows) for title, rows in parts.items()}, run_dir / "benchmark.png")
    LOGGER.info(f"\n{text}\nResults: {run_dir}")
    return run_dir


def _ratios(rows: Sequence[Row]) -> list[tuple[str, dict[str, float]]]:
    """Return each row's label and ratios to plain, the plain rows themselves left out."""
    ratios = []
    for row in rows:
        plain = _plain_of(row, rows)
        if row is not plain:
            label = row.case if row.variant == OURS or GATHERS in row.case else f"{row.case} ({row.variant})"
            values = {key: t.median / plain.timings[key].median for key, t in row.timings.items()}
            ratios.append((label, values))
    return ratios
