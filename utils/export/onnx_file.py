"""`--include onnx`: the file that the options ask for, of any or of one size, decoded or raw, in float or int8."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch

from models.sampling.onnx_static import Form, fixed_sizes
from models.yolo import DetectionModel
from utils.export.edge_wrapper import EdgeWrapper
from utils.export.formats import add_nms
from utils.export.int8 import open_data_for, quantize_and_compare
from utils.export.parity_check import Reference, check_nms
from utils.files import atomic_write, dump_json
from utils.inference.exported_model import ExportedModel, open_onnx
from utils.inference.metadata import ModelMetadata
from utils.inference.nms import NmsSettings
from utils.inference.onnx_conversion import ExportWrapper, default_opset, to_onnx
from utils.inference.onnx_session import require_package
from utils.log import LOGGER
from utils.options import ExportOptions

CPU = torch.device("cpu")
STATIC_OPSETS: dict[Form, int] = {"gather": 12, "deform": 19}
INT8_OPSET = 13  # the first with scales for each channel
COMPUTING_SHAPES = frozenset(("Shape", "Size", "Range", "Where", "ConstantOfShape", "Expand", "NonZero"))


def write_onnx(
    stem: Path,
    model: DetectionModel,
    metadata: ModelMetadata,
    options: ExportOptions,
    reference: Reference,
    check: Callable[[Reference, ExportedModel], None],
) -> Path:
    """Convert a model to ONNX, check the result with `check`, and write the file, whose name begins with `stem`."""
    path = stem.with_name(f"{stem.name}{_suffix(options)}.onnx")
    config = open_data_for(metadata, options.data) if options.int8 else None  # before minutes of work
    edge = bool(options.static or options.raw_heads)
    if edge:
        shape = (options.batch_size, options.static[0], options.static[1]) if options.static else None
        wrapper: ExportWrapper = EdgeWrapper(model, shape=shape, raw_heads=options.raw_heads).eval()
        if options.raw_heads:
            metadata = replace(metadata, heads=cast(EdgeWrapper, wrapper).heads())
    else:
        wrapper = ExportWrapper(model, half=options.half).eval()
    form = cast(Form, options.akconv_form or "gather")
    opset = options.opset or (STATIC_OPSETS[form] if options.static else default_opset(model, half=options.half))
    if config is not None:
        opset = max(opset, INT8_OPSET)
    with fixed_sizes(form) if options.static else nullcontext():
        data = to_onnx(wrapper, metadata, opset=opset, simplify=options.simplify or bool(options.static))
    exported = open_onnx(data, CPU, path=path)
    check(reference, exported)
    if options.static:
        _log_operators(data)
    if config is not None:
        data = quantize_and_compare(data, metadata, config, path=path)
    if options.nms:
        nms = NmsSettings(
            conf_threshold=options.conf_thres,
            iou_threshold=options.iou_thres,
            max_detections=options.topk_all,
            agnostic=options.agnostic_nms,
        )
        per_class = options.topk_per_class
        data = add_nms(data, metadata, nms, max_per_class=per_class)
        check_nms(exported, open_onnx(data, CPU, path=path), nms, reference, max_per_class=per_class)
    atomic_write(path, data)
    if metadata.heads:
        heads = {"names": metadata.names, "anchors": metadata.heads.anchors, "strides": metadata.heads.strides}
        dump_json(path.with_suffix(".json"), heads)
        LOGGER.info(f"onnx: anchors and strides for utils/inference/raw_heads.py: {path.with_suffix('.json')}")
    return path


def _suffix(options: ExportOptions) -> str:
    """Return the suffix that distinguishes a file of one size, of raw maps, or in int8 from the usual one."""
    height_by_width = "x".join(map(str, options.static))
    return "".join(f"_{part}" for part in (height_by_width, "raw" * options.raw_heads, "int8" * options.int8) if part)


def operators(data: bytes) -> list[str]:
    """Return the names of the operators in an ONNX file, sorted."""
    model = require_package("onnx", "--static").load_model_from_string(data)
    return sorted({node.op_type for node in model.graph.node})


def _log_operators(data: bytes) -> None:
    """Log the operators of a file of one size; warn if some compute shapes, as those of a user's module may."""
    names = operators(data)
    LOGGER.info(f"onnx: {len(names)} operators: {', '.join(names)}")
    if left := COMPUTING_SHAPES & set(names):
        LOGGER.warning(f"onnx: {', '.join(sorted(left))} could not be folded into constants")
