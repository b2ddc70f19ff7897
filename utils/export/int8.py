"""`export.py --int8`: static quantization of an ONNX file by ONNX Runtime, and the mAP that it costs."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from utils.datasets.batching import collate_arrays
from utils.datasets.config import DataConfig
from utils.datasets.dataset import DetectionDataset
from utils.datasets.index import build_index
from utils.datasets.splits import evaluation_loader, evaluation_plan, open_data
from utils.errors import ConfigError
from utils.inference.exported_model import open_onnx
from utils.inference.metadata import INPUT, ModelMetadata
from utils.inference.nms import EVALUATION_NMS
from utils.inference.onnx_conversion import serialize
from utils.inference.onnx_session import require_package
from utils.log import LOGGER
from utils.validation.evaluate import evaluate

CALIBRATION_IMAGES = 32
MAX_LOSS = 0.005  # of mAP50-95; a warning is logged above it
BATCH_SIZE = 16  # of the evaluation
SILU_LIMIT, SILU_MINIMUM = "silu_limit", -8.0
QUANTIZED = ("Conv", "Clip", "MatMul", "Add", "Mul", "Sigmoid", "Concat", "MaxPool", "Resize")
SAMPLING = ("Floor", "DeformConv")  # operators that only AKConv's sampling has
CPU = torch.device("cpu")


def open_data_for(metadata: ModelMetadata, name: str) -> DataConfig:
    """Open the data set of a model, by default the one it was trained on; ConfigError if its classes differ."""
    config = open_data(name or metadata.data or "shapes.yaml")
    if config.num_classes != len(metadata.names) and not metadata.single_class:
        what = f"has {config.num_classes} classes, but the model has {len(metadata.names)}"
        raise ConfigError(config.file, what, fix="pass its --data")
    return config


def quantize(data: bytes, metadata: ModelMetadata, images: Iterable[np.ndarray]) -> bytes:
    """Quantize an ONNX file of opset 13 or later to int8, with scales for each channel of the weights.

    Activations get the range that they have on `images`, (B, 3, H, W) float32 in [0, 1]. `nodes_in_float` stay as
    they are. A missing onnxruntime or onnx raises a ConfigError.
    """
    require_package("onnxruntime", "--int8")
    quantization = importlib.import_module("onnxruntime.quantization")
    onnx = require_package("onnx", "--int8")
    model = onnx.load_model_from_string(data)
    kept = nodes_in_float(model.graph)
    _limit_silu_inputs(model.graph, onnx, kept)
    onnx.helper.set_model_props(model, {"onnx.quant.pre_process": "onnxruntime.quant"})  # else a warning asks for it
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save_model(model, source)
        quantization.quantize_static(
            source,
            target,
            _Reader(iter(images)),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTIZED),
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=kept,
            calibrate_method=quantization.CalibrationMethod.MinMax,
        )
        quantized = onnx.load_model(target)
    return serialize(quantized, metadata)


class _Reader:
    """Images as the calibration reads them."""

    def __init__(self, images: Iterator[np.ndarray]) -> None:
        self._images = images

    def get_next(self) -> dict[str, np.ndarray] | None:
        images = next(self._images, None)
        return None if images is None else {INPUT: images}


def nodes_in_float(graph: Any) -> list[str]:  # noqa: ANN401
    """Return the names of a graph's nodes that stay in float.

    These are the first convolution, whose 3 input channels are too few for int8 to be faster; the last convolutions
    of the head and the decoding, whose box sizes need more than 256 levels; and AKConv's sampling, with what predicts
    its positions, which are in pixels.
    """
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    before_convolutions: set[str] = set()
    for node in reversed(graph.node):  # in topological order
        following = [after for name in node.output for after in readers.get(name, ())]
        if any(after.op_type == "Conv" or after.name in before_convolutions for after in following):
            before_convolutions.add(node.name)
    kept = [node.name for node in graph.node if node.name not in before_convolutions]
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    kept += [node.name for node in convolutions[:1]]
    for scope in {_scope(node.name) for node in graph.node if node.op_type in SAMPLING}:
        inside = [n for n in graph.node if _scope(n.name) == scope or n.name.startswith(f"{scope}/p_conv")]
        kept += [node.name for node in inside]
        if any(node.op_type == "Gather" for node in inside):  # the convolution of the samples follows
            kept.remove([node.name for node in inside if node.op_type == "Conv"][-1])
    return kept


def _scope(name: str) -> str:
    """Return the module in whose forward pass the exporter has found a node."""
    return name.rpartition("/")[0]


def _limit_silu_inputs(graph: Any, onnx: Any, kept: Collection[str]) -> None:  # noqa: ANN401
    """Clip the inputs of SiLU at -8, below which it is nearly zero, so that no levels are spent on smaller numbers.

    Only those after convolutions that are not `kept` in float: their quantization includes the clipping.
    """
    convolved = {node.output[0] for node in graph.node if node.op_type == "Conv" and node.name not in kept}
    products = {frozenset(node.input): node for node in graph.node if node.op_type == "Mul"}
    nodes = []
    for node in graph.node:
        x = node.input[0] if node.op_type == "Sigmoid" else ""
        product = products.get(frozenset((x, node.output[0]))) if x in convolved else None
        if product is not None:
            limited = f"{x}_limited"
            nodes.append(onnx.helper.make_node("Clip", [x, SILU_LIMIT], [limited], name=f"{node.name}_limit"))
            for reader in (node, product):
                reader.input[:] = [limited if name == x else name for name in reader.input]
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.append(onnx.numpy_helper.from_array(np.array(SILU_MINIMUM, np.float32), SILU_LIMIT))


def quantize_and_compare(data: bytes, metadata: ModelMetadata, config: DataConfig, *, path: Path) -> bytes:
    """Quantize an ONNX file with images of a data set's train split; log its mAP before and after on the val split.

    The mAP is that of val.py with the file's image size; `path` of the file is for messages.
    """
    model = open_onnx(data, CPU, path=path)
    size = max(model.metadata.fixed_hw or (metadata.image_size,))
    train = build_index(config, "train")
    samples = DetectionDataset(train, image_size=size)
    sizes: dict[str, Any] = {"image_size": size, "stride": metadata.stride, "fixed_hw": model.metadata.fixed_hw}
    plan = evaluation_plan(train, batch_size=1, **sizes)
    chosen = [plan[i] for i in np.linspace(0, len(plan) - 1, min(CALIBRATION_IMAGES, len(plan))).astype(int)]
    LOGGER.info(f"int8: calibrating with {len(chosen)} images of the train split of {config.file}")
    batches = (collate_arrays([samples[key] for key in keys]).images for keys in chosen)
    quantized = quantize(data, metadata, (images.astype(np.float32) / 255 for images in batches))
    val = build_index(config, "val")
    scores = []
    for candidate in (model, open_onnx(quantized, CPU, path=path)):
        loader = evaluation_loader(val, batch_size=BATCH_SIZE, workers=0, single_class=metadata.single_class, **sizes)
        scores.append(evaluate(candidate, loader, nms=EVALUATION_NMS, device=CPU).metrics.map50_95)
    before, after = scores
    result = f"mAP50-95 {before:.4f} in float, {after:.4f} in int8 on {len(val)} images of the val split"
    log = LOGGER.warning if before - after > MAX_LOSS else LOGGER.info
    log(f"int8: {result}: {before - after:.4f} lost")
    return quantized
