"""benchmarks.py's work: what AKConv costs, layer by layer and in whole models, as ratios within one run."""

from __future__ import annotations

import gc
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from models.common import Conv
from models.config import ModelConfig, load_model_config
from models.fuse import fused
from models.modules.akconv import AKConv
from models.resampling.choose import VARIABLE
from models.summary import count_flops
from models.yolo import DetectionModel
from utils.engine.options import BenchmarkOptions
from utils.engine.runtime import describe_environment, memory_format, place, select_device
from utils.files import atomic_write, dump_json, make_run_dir
from utils.log import LOGGER
from utils.plots.benchmark import plot_ratios

# Input and output channels, side of the map at 640 px, stride, points: where yolov5n-AKConv uses AKConv.
LAYERS = (
    (16, 32, 160, 2, 3),
    (32, 64, 80, 2, 3),
    (64, 128, 40, 2, 3),
    (128, 256, 20, 2, 3),
    (64, 64, 40, 1, 3),
    (256, 128, 10, 1, 1),
)
SWEPT_LAYER = (64, 128, 40, 2)
SWEPT_POINTS = (1, 2, 3, 5, 7, 9, 11, 13)
PAPER_POINTS = (3, 5, 9)
PLAIN, OURS, GATHERS = "plain", "AKConv", "four gathers"


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Milliseconds over the rounds of one run."""

    minimum: float
    median: float


@dataclass(frozen=True, kw_only=True)
class Row:
    """One case of the benchmark.

    Attributes:
        case: what was measured.
        variant: plain, AKConv, or four gathers.
        timings: per quantity, as `forward` or `training step`.
        parameters: of the layer or model.
        gflops: for one picture, sampling counted.
        memory_mb: peak beyond what was there before; 0 where not measured.
    """

    case: str
    variant: str
    timings: dict[str, Timing]
    parameters: int
    gflops: float
    memory_mb: float = 0.0


@contextmanager
def _implementation(variant: str) -> Iterator[None]:
    """Let AKConv run by four gathers for the yardstick, and by what it chooses itself otherwise."""
    before = os.environ.get(VARIABLE)
    if variant == GATHERS:
        os.environ[VARIABLE] = "gathers"
    try:
        yield
    finally:
        os.environ.pop(VARIABLE, None)
        if before is not None:
            os.environ[VARIABLE] = before


def take_turns(
    actions: Sequence[tuple[str, Callable[[], object]]], *, rounds: int, device: torch.device
) -> list[Timing]:
    """Time actions of (variant, function), each once in every round, so that a busy moment hits all alike."""
    spent: list[list[float]] = [[] for _ in actions]
    for number in range(rounds + 2):  # two to warm up
        for (variant, action), times in zip(actions, spent, strict=True):
            with _implementation(variant):
                start = time.perf_counter()
                action()
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                if number >= 2:
                    times.append(1000 * (time.perf_counter() - start))
    return [Timing(minimum=min(times), median=median(times)) for times in spent]


def _inference(module: nn.Module, picture: Tensor) -> Callable[[], object]:
    network = place(fused(module), picture.device)

    def run() -> None:
        with torch.inference_mode():
            network(picture)

    return run


def _training(module: nn.Module, picture: Tensor, *, amp: bool) -> Callable[[], object]:
    """Return one forward and backward pass in training mode, gradients of the input included for a layer."""
    module.train()

    def run() -> None:
        with torch.autocast(picture.device.type, enabled=amp):
            output = module(picture)
        maps = output if isinstance(output, list) else [output]
        torch.stack([m.float().square().mean() for m in maps]).sum().backward()
        module.zero_grad()

    return run


def _layer_rows(options: BenchmarkOptions, device: torch.device) -> list[Row]:
    """Measure single layers against the convolution each replaces."""
    cases = [*LAYERS, *((*SWEPT_LAYER, points) for points in SWEPT_POINTS)]
    rows: list[Row] = []
    for channels, out, side, stride, points in dict.fromkeys(cases):
        kernel = 3 if points > 1 or stride > 1 else 1
        picture = torch.randn(options.layer_batch, channels, side, side, device=device)
        picture = picture.contiguous(memory_format=memory_format(device)).requires_grad_()
        built = {
            PLAIN: place(Conv(channels, out, kernel, stride), device),
            OURS: place(_moving(AKConv(channels, out, points, stride)), device),
        }
        built[GATHERS] = built[OURS]
        forward = take_turns(
            [(v, _inference(m, picture.detach())) for v, m in built.items()], rounds=options.rounds, device=device
        )
        both = take_turns(
            [(v, _training(m, picture, amp=options.amp)) for v, m in built.items()],
            rounds=options.rounds,
            device=device,
        )
        case = f"{channels} -> {out}, {side} px, stride {stride}, N {points}"
        for (variant, module), f, b in zip(built.items(), forward, both, strict=True):
            rows.append(_row(case, variant, module, picture.shape, {"forward": f, "forward + backward": b}))
        LOGGER.info(_line(rows[-3:]))
    return rows


def _moving(layer: AKConv) -> AKConv:
    """Give a fresh layer's offsets some spread, as after training; at zero all reads would be whole pixels."""
    nn.init.normal_(layer.p_conv.weight, std=0.05)
    return layer


def _row(case: str, variant: str, module: nn.Module, shape: Sequence[int], timings: dict[str, Timing]) -> Row:
    flops, _ = count_flops(module, torch.empty(1, *shape[1:], device="meta"))
    parameters = sum(p.numel() for p in module.parameters())
    return Row(case=case, variant=variant, timings=timings, parameters=parameters, gflops=flops / 1e9)


def _with_points(config: ModelConfig, points: int) -> ModelConfig:
    """Return a config with another number of points in every AKConv row."""
    layers = tuple(
        replace(layer, args=(layer.args[0], points, *layer.args[2:])) if layer.module == "AKConv" else layer
        for layer in config.layers
    )
    return replace(config, layers=layers)


def model_configs() -> dict[str, tuple[str, ModelConfig]]:
    """Return the whole models to measure: name -> variant and config."""
    ours, paper = load_model_config("yolov5n-AKConv.yaml"), load_model_config("yolov5n-AKConv-paper.yaml")
    return {
        "yolov5n": (PLAIN, load_model_config("yolov5n.yaml")),
        "yolov5n-AKConv": (OURS, ours),
        **{f"paper's placement, N {n}": (OURS, _with_points(paper, n)) for n in PAPER_POINTS},
        "yolov5n-AKConv by four gathers": (GATHERS, ours),
    }


def _model_rows(options: BenchmarkOptions, device: torch.device) -> list[Row]:
    """Measure whole models: inference at batch 1 and at the training batch, a training step, peak memory."""
    configs = model_configs()
    models = {name: place(_moving_model(config), device) for name, (_, config) in configs.items()}
    timings: dict[str, dict[str, Timing]] = {name: {} for name in models}
    for batch in dict.fromkeys((1, options.batch_size)):
        picture = _picture(batch, options.imgsz, device)
        actions = [(configs[name][0], _inference(model, picture)) for name, model in models.items()]
        for name, timing in zip(models, take_turns(actions, rounds=options.rounds, device=device), strict=True):
            timings[name][f"inference, batch {batch}"] = timing
    picture = _picture(options.batch_size, options.imgsz, device)
    steps = [(configs[name][0], _training(model, picture, amp=options.amp)) for name, model in models.items()]
    for name, timing in zip(models, take_turns(steps, rounds=options.rounds, device=device), strict=True):
        timings[name][f"training step, batch {options.batch_size}"] = timing
    rows = []
    for name, model in models.items():
        row = _row(name, configs[name][0], model, (1, 3, options.imgsz, options.imgsz), timings[name])
        rows.append(replace(row, memory_mb=_peak_memory(name, options)))
    return rows


def _moving_model(config: ModelConfig) -> DetectionModel:
    model = DetectionModel(config)
    for module in model.modules():
        if isinstance(module, AKConv):
            _moving(module)
    return model


def _picture(batch: int, size: int, device: torch.device) -> Tensor:
    picture = torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(0)).to(device)
    return picture.contiguous(memory_format=memory_format(device))


def _peak_memory(name: str, options: BenchmarkOptions) -> float:
    """Return a training step's peak memory in MB, measured in a process of its own, so that nothing before counts."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return float(pool.apply(peak_memory_of, (name, options)))


def peak_memory_of(name: str, options: BenchmarkOptions) -> float:
    """Take two training steps of a model and return the peak memory in MB beyond that before them."""
    device = select_device(options.device)
    variant, config = model_configs()[name]
    step = _training(
        place(_moving_model(config), device), _picture(options.batch_size, options.imgsz, device), amp=options.amp
    )
    gc.collect()
    before = _resident_mb(device, peak=False)
    with _implementation(variant):
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


def _line(rows: Sequence[Row]) -> str:
    """Say one layer's ratios to the plain convolution."""
    plain = next(row for row in rows if row.variant == PLAIN)
    parts = [
        f"{row.variant} " + ", ".join(f"{t.median / plain.timings[key].median:.2f}" for key, t in row.timings.items())
        for row in rows
        if row.variant != PLAIN
    ]
    return f"{plain.case}: {'; '.join(parts)} of the plain convolution (forward, forward + backward)"


def ratio_table(rows: Sequence[Row]) -> str:
    """Return a markdown table: medians, and in brackets their ratio to the plain row of the case, or else the first."""
    keys = list(rows[0].timings)
    head = ["case", "variant", *(f"{key}, ms" for key in keys), "parameters", "GFLOPs"]
    if rows[0].memory_mb:
        head.append("peak memory of a step, MB")
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        plain = next((r for r in rows if r.variant == PLAIN and r.case == row.case), rows[0])
        cells = [f"{t.median:.2f} ({t.median / plain.timings[key].median:.2f})" for key, t in row.timings.items()]
        cells += [f"{row.parameters:,}", f"{row.gflops:.3f}"]
        if row.memory_mb:
            cells.append(f"{row.memory_mb:.0f} ({row.memory_mb / plain.memory_mb:.2f})")
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
    parts = {}
    if options.part in ("all", "models"):
        parts[f"Whole models, {options.imgsz} px"] = _model_rows(options, device)
    if options.part in ("all", "layers"):
        parts[f"Layers, batch {options.layer_batch}"] = _layer_rows(options, device)
    heading = (
        f"# Cost of AKConv\n\n{environment['gpu'] or 'CPU'}, {environment['torch_threads']} threads, torch "
        f"{environment['torch']}; medians of {options.rounds} rounds in which all variants take turns, channels last. "
        f"In brackets the ratio to the plain convolution or model.\n"
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
        plain = next((r for r in rows if r.variant == PLAIN and r.case == row.case), rows[0])
        if row is not plain:
            label = row.case if row.variant == OURS or GATHERS in row.case else f"{row.case} ({row.variant})"
            values = {key: t.median / plain.timings[key].median for key, t in row.timings.items()}
            ratios.append((label, values))
    return ratios
