"""Run export.py: convert a checkpoint to other formats, each checked against PyTorch before it is written."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import torch

from models.yolo import DetectionModel
from utils.errors import ConfigError
from utils.export.benchmark import compare_formats, stored_bytes
from utils.export.formats import to_openvino, to_torchscript
from utils.export.ncnn import ncnn_folder
from utils.export.onnx_file import write_onnx
from utils.export.parity_check import HALF_TOLERANCE, Reference, check_parity
from utils.files import atomic_write
from utils.folders import atomic_write_folder
from utils.inference.exported_model import mark_trusted, open_openvino, open_torchscript
from utils.inference.metadata import ModelMetadata
from utils.inference.model_loading import is_exported, open_weights
from utils.inference.ncnn_model import open_ncnn
from utils.inference.onnx_conversion import ExportWrapper
from utils.inference.parity import TOLERANCE
from utils.log import LOGGER
from utils.options import ExportOptions
from utils.plugins import load_plugins
from utils.runtime import select_device

# Batch size, and height and width in cells of the coarsest level, of the images for the check; none was traced.
CHECKED_SHAPES = ((1, 5, 7), (3, 4, 9), (2, 10, 6), (1, 3, 3), (3, 7, 4))
NCNN_TOLERANCE = 1e-3  # its exp and its 3x3 convolutions are less precise than the other formats'
STATIC_CHECKS = 3  # batches of the only shape


def run_export(options: ExportOptions, given: Collection[str] = ()) -> list[dict[str, Path]]:
    """Export each checkpoint and return the file or folder of each format for it.

    Unless `imgsz` is among the `given` names of options, the checkpoint's image size is used.

    Raises:
        DetectorError: an input is invalid.
        RunError: an export differs from PyTorch; its file is not written.
    """
    load_plugins(options.plugins)
    if options.static and "imgsz" in given:
        raise ConfigError("--imgsz", "is not possible with --static, which is the size", fix="leave --imgsz out")
    for weights in filter(is_exported, options.weights):
        raise ConfigError("--weights", f"{weights} is an exported file", fix="pass the checkpoint, a .pt")
    for name in options.include:
        if name in options.ELSEWHERE:
            LOGGER.warning(f"--include {name} is skipped, it is not supported: {options.ELSEWHERE[name]}")
    return [_export_checkpoint(weights, options, given) for weights in options.weights]


def _export_checkpoint(weights: str, options: ExportOptions, given: Collection[str]) -> dict[str, Path]:
    """Export one checkpoint and return the file or folder of each format."""
    device = select_device(options.device)
    model, metadata = cast(tuple[DetectionModel, ModelMetadata], open_weights(weights))
    sides = options.static or ((options.imgsz * 2)[:2] if "imgsz" in given else (metadata.image_size,) * 2)
    if options.static and any(side % metadata.stride for side in sides):
        what = f"must be multiples of the stride {metadata.stride} (got {sides[0]} {sides[1]})"
        fix = f"pass --static {' '.join(str(-(-side // metadata.stride) * metadata.stride) for side in sides)}"
        raise ConfigError("--static", what, fix=fix)
    metadata = replace(metadata, image_size=max(sides), device=device.type)
    stride = metadata.stride
    requested = (options.batch_size, *(-(-side // stride) for side in sides))
    checked = [requested] * STATIC_CHECKS if options.static else [*CHECKED_SHAPES, requested]
    shapes = [(b, 3, rows * stride, columns * stride) for b, rows, columns in checked]
    reference = Reference(ExportWrapper(model, half=False).eval(), shapes)
    stem = Path(weights).with_suffix("")
    names = [name for name in dict.fromkeys(options.include) if name in options.FORMATS]
    written = {name: _export(name, stem, model, metadata, options, reference) for name in names}
    if options.benchmark:
        compare_formats(options, {"pytorch": Path(weights), **written}, metadata)
    return written


def _export(
    name: str, stem: Path, model: DetectionModel, metadata: ModelMetadata, options: ExportOptions, reference: Reference
) -> Path:
    """Convert to one format, check the result, and write it as a file or folder whose name begins with `stem`."""
    device = select_device(options.device) if name == "torchscript" else torch.device("cpu")
    wrapper = ExportWrapper(model, half=options.half).eval().to(device)
    tolerance = HALF_TOLERANCE if options.half else TOLERANCE
    LOGGER.info(f"{name}: converting and checking")
    check = partial(check_parity, name, device=device, tolerance=tolerance, verbose=options.verbose)
    if name == "torchscript":
        path = stem.with_suffix(".torchscript")
        data = to_torchscript(wrapper, metadata)
        check(reference, open_torchscript(data, device, path=path))
        atomic_write(path, data)
        mark_trusted(data)
    elif name == "onnx":
        path = write_onnx(stem, model, metadata, options, reference, check)
    elif name == "ncnn":
        path = stem.parent / f"{stem.name}_ncnn_model"
        cpu = replace(metadata, device="cpu")
        with ncnn_folder(model, cpu, form=options.akconv_form, half=options.half) as folder:
            check(reference, open_ncnn(folder, path=path), tolerance=max(tolerance, NCNN_TOLERANCE))
            atomic_write_folder(path, [(file.name, file.read_bytes()) for file in sorted(folder.iterdir())])
    else:
        path = stem.parent / f"{stem.name}_openvino_model"
        parts = to_openvino(wrapper, metadata)
        check(reference, open_openvino(parts[".xml"], parts[".bin"], path=path))
        atomic_write_folder(path, [(f"{stem.name}{suffix}", data) for suffix, data in parts.items()])
    LOGGER.info(f"{name}: {path}, {stored_bytes(path) / 1e6:.1f} MB")
    return path
