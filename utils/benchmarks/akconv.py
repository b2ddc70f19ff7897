"""The cost of AKConv, layer by layer and in whole models, as ratios within one run: benchmarks.py."""

from __future__ import annotations

import gc
import multiprocessing
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.fuse import fused
from models.summary import count_flops
from utils.benchmarks.cases import (
    AKCONV,
    FOUR_GATHERS,
    INFERENCE_SIZES,
    PLAIN,
    BenchmarkCase,
    inference_cases,
    layer_cases,
    model_cases,
    point_cases,
)
from utils.benchmarks.timing import Timing, interleave
from utils.files import atomic_write, dump_json, make_run_dir
from utils.log import LOGGER
from utils.malloc import tune_malloc
from utils.options import BenchmarkOptions
from utils.plots.benchmark import plot_ratios
from utils.runtime import describe_environment, select_device, to_device


@dataclass(frozen=True, kw_only=True)
class BenchmarkResult:
    """One row of a table."""

    case: str  # name of the layer or model
    variant: str  # plain, AKConv, or four gathers
    timings: dict[str, Timing]  # by quantity, such as `forward` or `training step`
    parameters: int  # of the layer or model
    gflops: float  # for one image, including sampling
    memory_mb: float | None = None  # peak memory of a forward and backward pass beyond the memory before it


def _inference(case: BenchmarkCase, module: nn.Module, image: Tensor) -> Callable[[], object]:
    network, image = to_device(fused(module), image.device), image.detach()

    def run() -> None:
        with case.implementation(), torch.inference_mode():
            network(image)

    return run


def _training(case: BenchmarkCase, module: nn.Module, image: Tensor, *, amp: bool) -> Callable[[], object]:
    """Return a forward and backward pass in training mode, for a layer including the gradient of its input."""
    module.train()

    def run() -> None:
        with case.implementation():
            with torch.autocast(image.device.type, enabled=amp):
                output = module(image)
            maps = output if isinstance(output, list) else [output]
            torch.stack([m.float().square().mean() for m in maps]).sum().backward()
        module.zero_grad()

    return run


def _measure(cases: Sequence[BenchmarkCase], options: BenchmarkOptions, device: torch.device) -> list[BenchmarkResult]:
    """Measure cases that are compared with each other."""
    whole = cases[0].layer is None
    modules = [case.module(device) for case in cases]
    timings: list[dict[str, Timing]] = [{} for _ in cases]
    if whole:
        largest = options.batch_size
        quantities = [(f"inference, batch {batch}", batch, False) for batch in dict.fromkeys((1, largest))]
        quantities.append((f"training step, batch {largest}", largest, True))
    else:
        quantities = [("forward", options.layer_batch, False), ("forward + backward", options.layer_batch, True)]
    for quantity, batch, trained in quantities:
        images = [case.image(batch, options.imgsz, device) for case in cases]
        actions = [
            _training(case, module, image, amp=options.amp) if trained else _inference(case, module, image)
            for case, module, image in zip(cases, modules, images, strict=True)
        ]
        for timing, kept in zip(interleave(actions, rounds=options.repeats, device=device), timings, strict=True):
            kept[quantity] = timing
    results = [_result(*row, options) for row in zip(cases, modules, timings, strict=True)]
    return [replace(row, memory_mb=_peak_memory(case, options)) for row, case in zip(results, cases, strict=True)]


def _measure_inference(
    cases: Sequence[BenchmarkCase], options: BenchmarkOptions, device: torch.device
) -> list[BenchmarkResult]:
    """Measure whole models on one image of each size, with one thread and with all."""
    modules = [case.module(device) for case in cases]
    timings: list[dict[str, Timing]] = [{} for _ in cases]
    every = torch.get_num_threads()
    for size in INFERENCE_SIZES:
        image = cases[0].image(1, size, device)
        actions = [_inference(case, module, image) for case, module in zip(cases, modules, strict=True)]
        for threads in dict.fromkeys((1, every)):
            torch.set_num_threads(threads)
            measured = interleave(actions, rounds=options.repeats, device=device, rotate=True)
            for timing, kept in zip(measured, timings, strict=True):
                kept[f"{size} px, {threads} thread{'s' if threads > 1 else ''}"] = timing
    torch.set_num_threads(every)
    return [_result(*row, options) for row in zip(cases, modules, timings, strict=True)]


def _result(
    case: BenchmarkCase, module: nn.Module, timings: dict[str, Timing], options: BenchmarkOptions
) -> BenchmarkResult:
    return BenchmarkResult(
        case=case.name,
        variant=case.variant,
        timings=timings,
        parameters=sum(p.numel() for p in module.parameters()),
        gflops=count_flops(module, case.image(1, options.imgsz, torch.device("meta")))[0] / 1e9,
    )


def _peak_memory(case: BenchmarkCase, options: BenchmarkOptions) -> float:
    """Return a training step's peak memory in MB, measured in a new process to exclude earlier allocations."""
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    # The fork server preloads the slow imports. Outside the project's folder it does not find this module, since Python
    # 3.11 does not pass sys.path on; then each process imports it.
    context.set_forkserver_preload(["torch._dynamo", "matplotlib.pyplot", "pandas", "torchvision", __name__])
    with context.Pool(1) as pool:
        return float(pool.apply(peak_memory_of, (case, options)))


def peak_memory_of(case: BenchmarkCase, options: BenchmarkOptions) -> float:
    """Run two training steps and return the peak memory in MB beyond the memory before them."""
    tune_malloc()
    device = select_device(options.device)
    batch = options.batch_size if case.layer is None else options.layer_batch
    image = case.image(batch, options.imgsz, device)
    step = _training(case, case.module(device), image, amp=options.amp)
    gc.collect()
    before = _resident_mb(device, peak=False)
    step()
    step()
    return _resident_mb(device, peak=True) - before


def _resident_mb(device: torch.device, *, peak: bool) -> float:
    """Return the current or peak memory in MB: allocated on CUDA, resident on the CPU."""
    if device.type == "cuda":
        return (torch.cuda.max_memory_allocated if peak else torch.cuda.memory_allocated)(device) / 1e6
    key = "VmHWM" if peak else "VmRSS"
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1000 for line in lines if line.startswith(key))


def _baseline_of(row: BenchmarkResult, rows: Sequence[BenchmarkResult]) -> BenchmarkResult:
    """Return the plain result of the same case, or else the first of all, which is plain."""
    return next((r for r in rows if r.variant == PLAIN and r.case == row.case), rows[0])


def ratio_table(rows: Sequence[BenchmarkResult]) -> str:
    """Return a Markdown table of medians, with the ratios of medians and of minima to the baseline in brackets."""
    keys = list(rows[0].timings)
    memory = ["peak memory, MB"] if rows[0].memory_mb else []
    head = ["case", "variant", *(f"{key}, ms" for key in keys), *memory, "parameters", "GFLOPs"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        baseline = _baseline_of(row, rows)
        cells = []
        for key, timing in row.timings.items():
            ratios = timing.median / baseline.timings[key].median, timing.minimum / baseline.timings[key].minimum
            cells.append(f"{timing.median:.2f} ({ratios[0]:.2f}, {ratios[1]:.2f})")
        if row.memory_mb and baseline.memory_mb:
            cells.append(f"{row.memory_mb:.0f} ({row.memory_mb / baseline.memory_mb:.2f})")
        cells += [f"{row.parameters:,}", f"{row.gflops:.3f}"]
        lines.append("| " + " | ".join([row.case, row.variant, *cells]) + " |")
    return "\n".join(lines)


def run_benchmark(options: BenchmarkOptions) -> Path:
    """Run the benchmarks, print tables, and write benchmark.md, benchmark.json and benchmark.png; return the folder."""
    device = select_device(options.device)
    run_dir = make_run_dir(options.project, options.name)
    environment = describe_environment(device)
    suites = {
        "models": (f"Whole models, {options.imgsz} px", model_cases()),
        "layers": (f"Layers, batch {options.layer_batch}", layer_cases()),
        "points": (f"One layer by its number of points, batch {options.layer_batch}", point_cases()),
    }
    chosen = [part for suite, part in suites.items() if options.suite in ("all", suite)]
    measure = _measure
    if options.suite == "inference":
        chosen, measure = [("Folded models, one image", [inference_cases()])], _measure_inference
    groups = [(title, cases) for title, of_part in chosen for cases in of_part]
    results: dict[str, list[BenchmarkResult]] = {title: [] for title, _ in chosen}
    start = time.perf_counter()
    for done, (title, cases) in enumerate(groups, 1):
        results[title] += measure(cases, options, device)
        minutes = (time.perf_counter() - start) / done * (len(groups) - done) / 60
        names = ", ".join(dict.fromkeys(case.name for case in cases))
        LOGGER.info(f"measured: {names} ({done} of {len(groups)}, about {minutes:.1f} min left)")
    heading = (
        f"# Cost of AKConv\n\n{environment['gpu'] or environment['processor']}, {environment['cpu_count']} cores, "
        f"{environment['torch_threads']} threads, torch {environment['torch']}; medians of {options.repeats} "
        f"interleaved rounds, channels last. In brackets the ratios of medians and of minima to the plain convolution "
        f"or model.\n"
    )
    text = heading + "".join(f"\n## {title}\n\n{ratio_table(rows)}\n" for title, rows in results.items())
    atomic_write(run_dir / "benchmark.md", text)
    tables = {title: [_as_dict(row) for row in rows] for title, rows in results.items()}
    content = {"options": asdict(options), "environment": environment, "parts": tables}
    dump_json(run_dir / "benchmark.json", content)
    plot_ratios({title: _ratios(rows) for title, rows in results.items()}, run_dir / "benchmark.png")
    LOGGER.info(f"\n{text}\nResults: {run_dir}")
    return run_dir


def _ratios(rows: Sequence[BenchmarkResult]) -> list[tuple[str, dict[str, float]]]:
    """Return the label of each row but the baselines, and its ratios to the baseline."""
    ratios = []
    for row in rows:
        if (baseline := _baseline_of(row, rows)) is not row:
            label = row.case if row.variant == AKCONV or FOUR_GATHERS in row.case else f"{row.case} ({row.variant})"
            ratios.append((label, {key: t.median / baseline.timings[key].median for key, t in row.timings.items()}))
    return ratios


def _as_dict(row: BenchmarkResult) -> dict[str, Any]:
    timings = {key: {"minimum": timing.minimum, "median": timing.median} for key, timing in row.timings.items()}
    return {**asdict(row), "timings": timings}
