"""`export.py --benchmark`: file size, mAP and latency of a checkpoint and its exports, timed in interleaved rounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from utils.benchmarks.timing import interleave
from utils.datasets.index import build_index
from utils.datasets.splits import evaluation_loader, open_data
from utils.errors import ConfigError
from utils.files import atomic_write, dump_json, make_run_dir
from utils.inference.detector import Detector, prepare
from utils.inference.exported_model import ModelMetadata
from utils.inference.model_loading import open_weights
from utils.inference.nms import EVALUATION_NMS
from utils.log import LOGGER
from utils.options import ExportOptions
from utils.runtime import describe_environment, select_device
from utils.validation.evaluate import evaluate

PYTORCH = "pytorch"
BATCH = 16


@dataclass(frozen=True, kw_only=True)
class FormatRow:
    """One format: file size in MB, mAP, and milliseconds per image without preprocessing and NMS outside the graph."""

    format: str
    megabytes: float
    map50: float
    map50_95: float
    milliseconds_minimum: float
    milliseconds_median: float


def compare_formats(options: ExportOptions, written: Mapping[str, Path], metadata: ModelMetadata) -> list[FormatRow]:
    """Evaluate and time the checkpoint and its exports; log the table, and write formats.md and formats.json.

    Raises:
        ConfigError: the data set is unknown, or has other classes.
    """
    device = select_device(options.device)
    config = open_data(options.data or metadata.data or "shapes.yaml")
    if config.num_classes != len(metadata.names) and not metadata.single_class:
        what = f"has {config.num_classes} classes, but the model has {len(metadata.names)}"
        raise ConfigError(config.file, what, fix="pass its --data")
    index = build_index(config, "val")
    paths = {PYTORCH: Path(options.weights), **written}
    detectors = {name: open_weights(path, device)[0] for name, path in paths.items()}
    image = torch.rand(1, 3, metadata.image_size, metadata.image_size)
    actions = [_forward_pass(detector, image.to(device), device) for detector in detectors.values()]
    timings = dict(zip(paths, interleave(actions, rounds=options.repeats, device=device), strict=True))
    rows = []
    for name, detector in detectors.items():
        loader = evaluation_loader(
            index,
            batch_size=BATCH,
            image_size=metadata.image_size,
            stride=metadata.stride,
            workers=0,
            single_class=metadata.single_class,
        )
        metrics = evaluate(detector, loader, nms=EVALUATION_NMS, device=device).metrics
        rows.append(
            FormatRow(
                format=name,
                megabytes=_file_size(paths[name]) / 1e6,
                map50=metrics.map50,
                map50_95=metrics.map50_95,
                milliseconds_minimum=timings[name].minimum,
                milliseconds_median=timings[name].median,
            )
        )
    run_dir = make_run_dir(options.project, options.name)
    environment = describe_environment(device)
    header = (
        f"{environment['gpu'] or 'CPU'}, {environment['torch_threads']} threads, {metadata.image_size} px, batch 1; "
        f"{options.repeats} interleaved rounds. mAP on {config.file}.\n\n"
    )
    text = header + table(rows)
    atomic_write(run_dir / "formats.md", text + "\n")
    dump_json(run_dir / "formats.json", {"environment": environment, "formats": [asdict(row) for row in rows]})
    LOGGER.info(f"\n{text}\n\nResults: {run_dir}")
    return rows


def table(rows: list[FormatRow]) -> str:
    """Return rows as a Markdown table."""
    lines = ["| format | MB | mAP50 | mAP50-95 | ms, minimum | ms, median |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {r.format} | {r.megabytes:.1f} | {r.map50:.4f} | {r.map50_95:.4f} | {r.milliseconds_minimum:.1f} | "
        f"{r.milliseconds_median:.1f} |"
        for r in rows
    ]
    return "\n".join(lines)


def _forward_pass(detector: Detector, image: torch.Tensor, device: torch.device) -> Callable[[], object]:
    prepared = prepare(detector, device=device)

    def run() -> None:
        with torch.inference_mode():
            prepared(image)

    return run


def _file_size(path: Path) -> int:
    """Return the bytes of a file, or of a folder's files."""
    return path.stat().st_size if path.is_file() else sum(file.stat().st_size for file in path.iterdir())
