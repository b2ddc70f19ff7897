"""compare.py's work: train several models alike, and set their accuracy beside their cost."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd
import torch

from models.config import load_model_config
from models.fuse import fused
from utils.engine.checkpoint import load_model
from utils.engine.options import CompareOptions, TrainOptions
from utils.engine.plugins import load_plugins
from utils.engine.runtime import describe_environment, place, select_device
from utils.engine.trainer import plain
from utils.engine.training_run import SUMMARY, run_training
from utils.errors import ConfigError
from utils.files import atomic_write, dump_json, load_json, load_yaml
from utils.log import LOGGER
from utils.plots.comparison import plot_comparison

TIMED_ROUNDS = 30
WARM_UP_ROUNDS = 5
FREE_OPTIONS = frozenset(("project", "name", "exist_ok", "resume", "device", "workers"))


@dataclass(frozen=True, kw_only=True)
class Column:
    """One number of the comparison.

    Attributes:
        key: in the JSON.
        title: in the table.
        form: how the number is written.
        relative: whether the difference is a share of the baseline rather than a subtraction.
    """

    key: str
    title: str
    form: str
    relative: bool = False


COLUMNS = (
    Column(key="parameters", title="Parameters", form="{:,.0f}", relative=True),
    Column(key="gflops", title="GFLOPs", form="{:.2f}", relative=True),
    Column(key="precision", title="P", form="{:.3f}"),
    Column(key="recall", title="R", form="{:.3f}"),
    Column(key="map50", title="mAP50", form="{:.3f}"),
    Column(key="map50_95", title="mAP50-95", form="{:.3f}"),
    Column(key="training_seconds", title="Training s", form="{:.0f}", relative=True),
    Column(key="inference_ms", title="Inference ms", form="{:.1f}", relative=True),
)


def run_comparison(options: CompareOptions) -> Path:
    """Train every model that is not trained yet, and write table, JSON and picture.

    Returns:
        The comparison's folder.

    Raises:
        DetectorError: something in the input is wrong, or a run failed; finished runs are kept for the next call.
    """
    load_plugins(options.plugins)
    for cfg in options.cfg:
        load_model_config(cfg)  # a wrong name is told before the first hour of training
    folder = Path(options.project) / options.name
    labels = _labels(options.cfg)
    run_dirs = [
        _finished_run(options, cfg, folder / f"{label}-seed{options.seed}")
        for cfg, label in zip(options.cfg, labels, strict=True)
    ]
    device = select_device(options.device)
    results = [{"model": label, **load_json(run / SUMMARY)} for label, run in zip(labels, run_dirs, strict=True)]
    size = int(results[0]["image_size"])
    timings = inference_milliseconds([run / "weights" / "best.pt" for run in run_dirs], size=size, device=device)
    for result, milliseconds in zip(results, timings, strict=True):
        result["inference_ms"] = milliseconds
    _write(folder, options, results, run_dirs, device)
    return folder


def _labels(cfgs: Sequence[str]) -> list[str]:
    """Return a distinct short name for each config."""
    labels: list[str] = []
    for cfg in cfgs:
        stem = Path(cfg).stem
        count = sum(label == stem or label.startswith(f"{stem}-again") for label in labels)
        labels.append(stem if not count else f"{stem}-again{count}")
    return labels


def _finished_run(options: CompareOptions, cfg: str, run_dir: Path) -> Path:
    """Train one model, go on where an earlier call stopped, or take the run that is finished already.

    Raises:
        ConfigError: the folder holds a run with other settings.
    """
    wanted = TrainOptions(
        cfg=cfg,
        data=options.data,
        hyp=options.hyp,
        epochs=options.epochs,
        batch_size=options.batch_size,
        imgsz=options.imgsz,
        device=options.device,
        optimizer=options.optimizer,
        workers=options.workers,
        cos_lr=options.cos_lr,
        seed=options.seed,
        no_amp=options.no_amp,
        plugins=options.plugins,
        project=str(run_dir.parent),
        name=run_dir.name,
        exist_ok=True,
    )
    last = run_dir / "weights" / "last.pt"
    if (run_dir / "opt.yaml").is_file():
        present = load_yaml(run_dir / "opt.yaml")
        differing = [
            key for key, value in plain(asdict(wanted)).items() if key not in FREE_OPTIONS and present.get(key) != value
        ]
        if differing:
            flags = ", ".join("--" + key.replace("_", "-") for key in differing)
            raise ConfigError(run_dir, f"holds a run with other settings ({flags})", fix="choose another --name")
        if (run_dir / SUMMARY).is_file():
            LOGGER.info(f"{run_dir}: finished already")
            return run_dir
    LOGGER.info(f"\n{run_dir.name}: training {cfg}")
    if last.is_file():
        resumed = TrainOptions(resume=str(last), device=options.device, workers=options.workers)
        run_training(resumed, ("resume", "device", "workers"))
    else:
        run_training(wanted)
    return run_dir


def inference_milliseconds(checkpoints: Sequence[Path], *, size: int, device: torch.device) -> list[float]:
    """Time one picture through each model, the models taking turns so that a busy moment hits all alike.

    Args:
        checkpoints: best.pt of each run.
        size: side of the square picture in pixels.
        device: where to compute.

    Returns:
        The median of thirty rounds for each, batch norms folded, without NMS.
    """
    networks = [place(fused(load_model(path)[0]), device) for path in checkpoints]
    picture = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0)).to(device)
    picture = picture.contiguous(memory_format=torch.channels_last)
    spent: list[list[float]] = [[] for _ in networks]
    with torch.inference_mode():
        for number in range(WARM_UP_ROUNDS + TIMED_ROUNDS):
            for network, times in zip(networks, spent, strict=True):
                start = time.perf_counter()
                network(picture)
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                if number >= WARM_UP_ROUNDS:
                    times.append(1000 * (time.perf_counter() - start))
    return [median(times) for times in spent]


def comparison_table(results: Sequence[dict[str, Any]]) -> str:
    """Return the results as a markdown table: a row for each model, then each one's difference from the first."""
    rows = [["Model", *(column.title for column in COLUMNS)]]
    rows += [[str(r["model"]), *(column.form.format(r[column.key]) for column in COLUMNS)] for r in results]
    baseline = results[0]
    for result in results[1:]:
        cells = []
        for column in COLUMNS:
            change = result[column.key] - baseline[column.key]
            cells.append(f"{change / baseline[column.key]:+.1%}" if column.relative else f"{change:+.3f}")
        rows.append([f"{result['model']} - {baseline['model']}", *cells])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| "
        + " | ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        + " |"
        for row in rows
    ]
    rule = "|" + "|".join(("-" * (w + 2)) if i == 0 else "-" * (w + 1) + ":" for i, w in enumerate(widths)) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def _write(
    folder: Path,
    options: CompareOptions,
    results: Sequence[dict[str, Any]],
    run_dirs: Sequence[Path],
    device: torch.device,
) -> None:
    """Write compare.md, compare.json and compare.png, and print the table."""
    table = comparison_table(results)
    environment = describe_environment(device)
    heading = (
        f"# Comparison\n\n{options.data}, {results[0]['image_size']} px, {options.epochs} epochs, batch "
        f"{options.batch_size}, {options.hyp}, seed {options.seed}, on {environment['gpu'] or 'CPU'} with "
        f"{environment['torch_threads']} threads. Same data order and augmentation for all. One run each: a difference "
        f"smaller than the luck of the seed means nothing.\n\n"
    )
    atomic_write(folder / "compare.md", heading + table + "\n")
    dump_json(
        folder / "compare.json",
        {"options": plain(asdict(options)), "environment": environment, "results": list(results)},
    )
    histories = [pd.read_csv(run / "results.csv") for run in run_dirs]
    plot_comparison(
        [str(result["model"]) for result in results],
        {
            "mAP50": [history["metrics/mAP_0.5"].tolist() for history in histories],
            "mAP50-95": [history["metrics/mAP_0.5:0.95"].tolist() for history in histories],
            "training box loss": [history["train/box_loss"].tolist() for history in histories],
        },
        {
            "parameters": [result["parameters"] for result in results],
            "GFLOPs, sampling counted": [result["gflops"] for result in results],
            "inference, ms a picture": [result["inference_ms"] for result in results],
            "training, s": [result["training_seconds"] for result in results],
        },
        folder / "compare.png",
    )
    LOGGER.info(f"\n{table}\n\nTable: {folder / 'compare.md'}\nPicture: {folder / 'compare.png'}")
