"""`export.py --benchmark`: file size, mAP and latency of a checkpoint and its exports, timed in interleaved rounds."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch

from utils.benchmarks.timing import interleave
from utils.datasets.index import build_index
from utils.datasets.splits import evaluation_loader
from utils.export.int8 import open_data_for
from utils.files import atomic_write, dump_json, make_run_dir
from utils.inference.detector import prepare
from utils.inference.metadata import ModelMetadata
from utils.inference.model_loading import open_weights
from utils.inference.nms import EVALUATION_NMS
from utils.log import LOGGER
from utils.options import ExportOptions
from utils.runtime import describe_environment, select_device
from utils.validation.evaluate import evaluate

BATCH_SIZE = 16


def compare_formats(options: ExportOptions, paths: Mapping[str, Path], metadata: ModelMetadata) -> None:
    """Evaluate and time a checkpoint and its exports; log the table, and write formats.md and formats.json.

    `paths` are those of the files by format. Latency is in milliseconds per image, without preprocessing and NMS
    outside the graph.

    Raises:
        ConfigError: the data set is unknown, or has other classes.
    """
    device = select_device(options.device)
    config = open_data_for(metadata, options.data)
    index = build_index(config, "val")
    size = metadata.image_size
    fixed_hw = (options.static[0], options.static[1]) if options.static else None
    detectors = [open_weights(path, device)[0] for path in paths.values()]
    LOGGER.info(f"Timing {', '.join(paths)} in {options.repeats} rounds, then evaluating each on {len(index)} images")
    image = torch.rand(1, 3, *(fixed_hw or (size, size))).to(device)
    with torch.inference_mode():
        actions = [partial(prepare(detector, device=device), image) for detector in detectors]
        timings = interleave(actions, rounds=options.repeats, device=device)
    rows = []
    for (name, path), detector, timing in zip(paths.items(), detectors, timings, strict=True):
        loader = evaluation_loader(
            index,
            batch_size=BATCH_SIZE,
            image_size=size,
            stride=metadata.stride,
            workers=0,
            single_class=metadata.single_class,
            fixed_hw=fixed_hw,
        )
        metrics = evaluate(detector, loader, nms=EVALUATION_NMS, device=device).metrics
        rows.append(
            {
                "format": name,
                "megabytes": stored_bytes(path) / 1e6,
                "map50": metrics.map50,
                "map50_95": metrics.map50_95,
                "milliseconds_minimum": timing.minimum,
                "milliseconds_median": timing.median,
            }
        )
    run_dir = make_run_dir(options.project, options.name)
    environment = describe_environment(device)
    pixels = " x ".join(map(str, fixed_hw or (size,)))
    lines = [
        f"{environment['gpu'] or 'CPU'}, {environment['torch_threads']} threads, {pixels} px, batch 1; "
        f"{options.repeats} interleaved rounds. mAP on {config.file}.\n",
        "| format | MB | mAP50 | mAP50-95 | ms, minimum | ms, median |",
        "|---|---|---|---|---|---|",
    ]
    row = "| {format} | {megabytes:.1f} | {map50:.4f} | {map50_95:.4f} | {milliseconds_minimum:.1f} | "
    lines += [(row + "{milliseconds_median:.1f} |").format_map(values) for values in rows]
    text = "\n".join(lines)
    atomic_write(run_dir / "formats.md", text + "\n")
    dump_json(run_dir / "formats.json", {"environment": environment, "formats": rows})
    LOGGER.info(f"\n{text}\n\nResults: {run_dir}")


def stored_bytes(path: Path) -> int:
    """Return the size of a file, or of a folder's files."""
    return sum(file.stat().st_size for file in (path.iterdir() if path.is_dir() else [path]))
