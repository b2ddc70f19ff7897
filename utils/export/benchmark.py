"""The table of formats: size, mAP, and milliseconds, the formats taking turns within one run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from models.fuse import fused
from utils.benchmarks.timing import interleave
from utils.datasets.index import build_index
from utils.datasets.splits import evaluation_loader, open_data
from utils.errors import ConfigError
from utils.files import atomic_write, dump_json, make_run_dir
from utils.inference.exported_model import ModelMetadata
from utils.inference.model_loading import Model, open_weights
from utils.inference.nms import EVALUATION_NMS
from utils.log import LOGGER
from utils.options import ExportOptions
from utils.runtime import describe_environment, select_device, to_device
from utils.validation.evaluate import evaluate

PYTORCH = "pytorch"
BATCH = 16


@dataclass(frozen=True, kw_only=True)
class FormatRow:
    """One format: size in MB, mAP, and milliseconds for one image, without preparation and NMS outside the file."""

    format: str
    megabytes: float
    map50: float
    map50_95: float
    milliseconds_minimum: float
    milliseconds_median: float


def compare_formats(options: ExportOptions, written: Mapping[str, Path], description: ModelMetadata) -> list[FormatRow]:
    """Judge and time the checkpoint and its exports; print the table, write formats.md and formats.json.

    Raises:
        ConfigError: no data set is known, or it has other classes.
    """
    device = select_device(options.device)
    config = open_data(options.data or description.data or "shapes.yaml")
    if config.num_classes != len(description.names) and not description.single_class:
        what = f"has {config.num_classes} classes, but the model tells {len(description.names)}"
        raise ConfigError(config.file, what, fix="pass its --data")
    index = build_index(config, "val")
    paths = {PYTORCH: Path(options.weights), **written}
    networks = {name: open_weights(path, device)[0] for name, path in paths.items()}
    image = torch.rand(1, 3, description.image_size, description.image_size)
    actions = [_look(network, image.to(device), device) for network in networks.values()]
    timings = dict(zip(paths, interleave(actions, rounds=options.repeats, device=device), strict=True))
    rows = []
    for name, network in networks.items():
        loader = evaluation_loader(
            index,
            batch_size=BATCH,
            image_size=description.image_size,
            stride=description.stride,
            workers=0,
            single_class=description.single_class,
        )
        metrics = evaluate(network, loader, nms=EVALUATION_NMS, device=device).metrics
        rows.append(
            FormatRow(
                format=name,
                megabytes=_size(paths[name]) / 1e6,
                map50=metrics.map50,
                map50_95=metrics.map50_95,
                milliseconds_minimum=timings[name].minimum,
                milliseconds_median=timings[name].median,
            )
        )
    run_dir = make_run_dir(options.project, options.name)
    environment: dict[str, Any] = describe_environment(device)
    heading = (
        f"{environment['gpu'] or 'CPU'}, {environment['torch_threads']} threads, {description.image_size} px, batch 1; "
        f"{options.repeats} rounds in which all formats take turns. mAP on {config.file}.\n\n"
    )
    text = heading + table(rows)
    atomic_write(run_dir / "formats.md", text + "\n")
    dump_json(run_dir / "formats.json", {"environment": environment, "formats": [asdict(row) for row in rows]})
    LOGGER.info(f"\n{text}\n\nResults: {run_dir}")
    return rows


def table(rows: list[FormatRow]) -> str:
    """Return rows as a markdown table."""
    lines = ["| format | MB | mAP50 | mAP50-95 | ms, minimum | ms, median |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {r.format} | {r.megabytes:.1f} | {r.map50:.4f} | {r.map50_95:.4f} | {r.milliseconds_minimum:.1f} | "
        f"{r.milliseconds_median:.1f} |"
        for r in rows
    ]
    return "\n".join(lines)


def _look(network: Model, image: torch.Tensor, device: torch.device) -> Callable[[], object]:
    called = to_device(fused(network), device)

    def run() -> None:
        with torch.inference_mode():
            called(image)

    return run


def _size(path: Path) -> int:
    """Return the bytes of a file, or of a folder's files."""
    return path.stat().st_size if path.is_file() else sum(file.stat().st_size for file in path.iterdir())
