"""export.py's work: a checkpoint in other formats, each checked against PyTorch before a file is written."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from pathlib import Path

import torch

from models.modules.akconv import AKConv
from models.yolo import DetectionModel
from utils.errors import ConfigError
from utils.export.benchmark import compare_formats
from utils.export.formats import ExportForm, add_nms, to_onnx, to_openvino, to_torchscript
from utils.export.onnx_nms import EmbeddedNms
from utils.export.parity_check import HALF_TOLERANCE, TOLERANCE, Reference, check_difference, check_nms
from utils.files import atomic_write, atomic_write_folder
from utils.inference.exported_model import ModelMetadata, mark_trusted, open_onnx, open_openvino, open_torchscript
from utils.inference.model_loading import is_exported, open_network
from utils.log import LOGGER
from utils.options import ExportOptions
from utils.plugins import load_plugins
from utils.runtime import select_device

# Batch, and cells of the coarsest level, of the images an export is checked on; none was traced.
CHECKED = ((1, 5, 7), (3, 4, 9), (2, 10, 6), (1, 3, 3), (3, 7, 4))


def run_export(options: ExportOptions, given: Collection[str] = ()) -> dict[str, Path]:
    """Write a checkpoint in other formats, beside it.

    Args:
        options: the command's options.
        given: names of those that were given.

    Returns:
        Format -> file or folder.

    Raises:
        DetectorError: something in the input is wrong.
        RunError: an export differs from PyTorch; its file is not written.
    """
    device = select_device(options.device)
    load_plugins(options.plugins)
    if is_exported(options.weights):
        raise ConfigError("--weights", f"{options.weights} is an exported file", fix="pass the checkpoint, a .pt")
    opened = open_network(options.weights, device)
    model = opened.network
    if not isinstance(model, DetectionModel):
        raise TypeError("a checkpoint opens as a model")
    sides = options.imgsz if len(options.imgsz) == 2 else options.imgsz * 2
    if "imgsz" not in given:
        sides = (opened.description.image_size,) * 2
    own = opened.description
    description = ModelMetadata(
        names=own.names,
        stride=own.stride,
        image_size=max(sides),
        data=own.data,
        single_class=own.single_class,
        device=device.type,
    )
    sizes = _checked_sizes(own.stride, (options.batch_size, *sides))
    reference = Reference(ExportForm(model, half=False).eval(), sizes)
    written: dict[str, Path] = {}
    for name in dict.fromkeys(options.include):
        written[name] = _export(name, model, description, options, reference)
    if options.benchmark:
        compare_formats(options, written, description)
    return written


def _export(
    name: str, model: DetectionModel, description: ModelMetadata, options: ExportOptions, reference: Reference
) -> Path:
    """Make one format, check it, and write it."""
    stem = Path(options.weights).with_suffix("")
    device = select_device(options.device) if name == "torchscript" else torch.device("cpu")
    form = ExportForm(model, half=options.half).eval().to(device)
    tolerance = HALF_TOLERANCE if options.half else TOLERANCE
    check = partial(check_difference, name, reference, device=device, tolerance=tolerance, verbose=options.verbose)
    if name == "torchscript":
        path = stem.with_suffix(".torchscript")
        data = to_torchscript(form, description)
        check(open_torchscript(data, device, where=path))
        atomic_write(path, data)
        mark_trusted(data)
    elif name == "onnx":
        path = stem.with_suffix(".onnx")
        # From opset 19 on AKConv is one operator, DeformConv, which ONNX Runtime does a third faster, but not in half
        # precision.
        aware = any(isinstance(layer, AKConv) for layer in model.modules())
        opset = options.opset or (19 if aware and not options.half else 17)
        data = to_onnx(form, description, opset=opset, simplify=options.simplify)
        check(open_onnx(data, device, where=path))
        if options.nms:
            nms = EmbeddedNms(
                conf_threshold=options.conf_thres,
                iou_threshold=options.iou_thres,
                max_per_class=options.topk_per_class,
                max_detections=options.topk_all,
                agnostic=options.agnostic_nms,
            )
            plain = open_onnx(data, device, where=path)
            data = add_nms(data, description, nms)
            check_nms(plain, open_onnx(data, device, where=path), nms, reference)
        atomic_write(path, data)
    else:
        path = stem.parent / f"{stem.name}_openvino_model"
        parts = to_openvino(form, description)
        check(open_openvino(parts[".xml"], parts[".bin"], where=path))
        atomic_write_folder(path, [(f"{stem.name}{suffix}", data) for suffix, data in parts.items()])
    size = sum(file.stat().st_size for file in ([path] if path.is_file() else path.iterdir()))
    LOGGER.info(f"{name}: {path}, {size / 1e6:.1f} MB")
    return path


def _checked_sizes(stride: int, asked: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Return the shapes (B, 3, H, W) to check: five never traced, and the one asked for."""
    batch, *sides = asked
    rounded = [-(-side // stride) * stride for side in sides]
    return [*((b, 3, rows * stride, columns * stride) for b, rows, columns in CHECKED), (batch, 3, *rounded)]
