"""Checkpoints converted to ONNX graphs, and compared with torch before ONNX Runtime may run them."""

from __future__ import annotations

import io
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from models.fuse import fused
from models.head import decode
from models.modules.akconv import AKConv
from models.sampling.onnx_operator import onnx_operators
from models.summary import model_line
from models.yolo import DetectionModel
from utils.compiled import AKCONV_OPERATOR, compiled_library
from utils.inference.detector import torch_network
from utils.inference.metadata import INPUT, OUTPUT, ModelMetadata
from utils.inference.model_loading import checkpoint_metadata
from utils.inference.onnx_cache import CachedGraph
from utils.inference.onnx_session import TorchForward, open_session, require_package
from utils.inference.parity import TOLERANCE, max_difference, random_images
from utils.log import LOGGER
from utils.weights.checkpoint import load_checkpoint, load_model

TRACED_CELLS = (3, 5)  # height and width of the traced images in cells of the coarsest level
TRACED_BATCH = 2
# Batch size, and height and width in cells of the coarsest level, of the images for the check; none was traced.
CHECKED_SHAPES = ((1, 5, 7), (3, 4, 9), (2, 10, 6))
OPSET, DEFORMABLE_OPSET = 17, 19


class ExportWrapper(nn.Module):
    """The traced module: images (B, 3, H, W) float32 in [0, 1] to predictions (B, n, 5 + classes) float32.

    Attributes:
        dynamic_axes: names of the sizes that may vary, by input and output and axis; the first key is the input.
    """

    def __init__(self, model: DetectionModel, *, half: bool) -> None:
        """Copy a float32 model with its batch norms folded.

        With `half`, compute in half precision except for the boxes, whose resolution would be half a pixel at 640.
        """
        super().__init__()
        self.network = fused(model)
        self.anchors: Tensor
        self.register_buffer("anchors", self.network.head.anchors.clone(), persistent=False)
        self.strides = self.network.head.strides
        self.half_precision = half
        self.dynamic_axes = {
            INPUT: {0: "batch", 2: "height", 3: "width"},
            OUTPUT: {0: "batch", 1: "predictions"},
        }
        if half:
            self.network.half()

    def forward(self, images: Tensor) -> Tensor:
        """Map images to predictions."""
        if not self.half_precision:
            return self.network(images)[0]
        levels = zip(self.network(images.half())[1], self.anchors, self.strides, strict=True)
        return torch.cat([decode(level.float(), anchors, stride) for level, anchors, stride in levels], 1)

    def example(self) -> Tensor:
        """Return images for tracing."""
        height, width = (cells * self.network.max_stride for cells in TRACED_CELLS)
        return torch.rand(TRACED_BATCH, self.network.in_channels, height, width, device=self.anchors.device)


@contextmanager
def silenced() -> Iterator[None]:
    """Suppress the tracers' warnings: the parity check on other sizes finds what they warn about."""
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def to_onnx(
    wrapper: ExportWrapper, metadata: ModelMetadata, *, opset: int, simplify: bool = False, operators: bool = False
) -> bytes:
    """Return an ONNX file of a model on the CPU with an opset from 12 to 20, simplified by onnxslim if requested.

    With `operators`, AKConv layers are operators of a compiled library: for ONNX Runtime on this machine.
    A missing onnx or onnxslim raises a ConfigError.
    """
    onnx = require_package("onnx", "--include onnx")
    layers = onnx_operators() if operators else nullcontext()
    with tempfile.TemporaryDirectory() as folder, silenced(), layers, torch.no_grad():
        path = Path(folder) / "model.onnx"
        torch.onnx.export(
            wrapper,
            (wrapper.example(),),
            path,
            dynamo=False,  # the new exporter takes minutes with dynamic sizes, and supports no opset below 18
            opset_version=opset,
            input_names=[INPUT],
            output_names=list(wrapper.dynamic_axes)[1:],
            dynamic_axes={name: axes for name, axes in wrapper.dynamic_axes.items() if axes},
        )
        model = onnx.load_model(path)
    if metadata.heads is None:
        model.graph.output[0].type.tensor_type.shape.dim[2].dim_value = 5 + len(metadata.names)
    if simplify:
        with silenced():
            model = require_package("onnxslim", "--simplify").slim(model)
    return serialize(model, metadata)


def serialize(model: Any, metadata: ModelMetadata) -> bytes:  # noqa: ANN401
    """Store the metadata in an ONNX model, check it, and return it as bytes."""
    onnx = require_package("onnx", "--include onnx")
    onnx.helper.set_model_props(model, metadata.to_text())
    onnx.checker.check_model(model)
    return cast(bytes, model.SerializeToString())


def default_opset(model: nn.Module, *, half: bool = False) -> int:
    """Return the opset for ONNX Runtime.

    From opset 19 on, AKConv is a single operator, DeformConv, which is a third faster there but has no half precision.
    """
    deformable = any(isinstance(layer, AKConv) for layer in model.modules()) and not half
    return DEFORMABLE_OPSET if deformable else OPSET


def convert(path: Path, weights: bytes) -> CachedGraph:
    """Convert a checkpoint with the given content to a graph that agrees with torch, or state why there is none.

    Raises:
        CheckpointError: the checkpoint cannot be used.
    """
    content = load_checkpoint(path, data=weights)
    model, names = load_model(path, content=content)
    metadata = checkpoint_metadata(content, names, model.max_stride, path)
    text, summary = metadata.to_text(), model_line(model)
    origins = {type(module).__module__ for module in model.modules()}
    if plugins := sorted(name for name in origins if name.partition(".")[0] not in ("models", "torch")):
        # Their code is not part of the key of the cache.
        return CachedGraph(graph=b"", metadata=text, summary=summary, refusal=f"it has modules of {plugins[0]}")
    LOGGER.info(f"{path}: converting for ONNX Runtime, once")
    wrapper = ExportWrapper(model, half=False).eval()
    library = compiled_library(AKCONV_OPERATOR)
    try:
        exported = to_onnx(wrapper, metadata, opset=default_opset(model), operators=library is not None)
        with tempfile.TemporaryDirectory() as folder:
            optimized = Path(folder) / "optimized.onnx"
            open_session(exported, save_optimized=optimized, operators=library)
            graph = optimized.read_bytes()
        difference = _difference(wrapper, graph, model.max_stride)
    except Exception as error:  # of the exporter and of ONNX Runtime, whose exceptions have no common base class
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        return CachedGraph(graph=b"", metadata=text, summary=summary, refusal=f"its conversion failed: {reason}")
    if not difference <= TOLERANCE:
        refusal = f"its predictions differ from PyTorch's by {difference:.1e}, more than {TOLERANCE:.0e}"
        return CachedGraph(graph=b"", metadata=text, summary=summary, refusal=refusal)
    return CachedGraph(graph=graph, metadata=text, summary=summary)


@torch.inference_mode()
def _difference(wrapper: ExportWrapper, graph: bytes, stride: int) -> float:
    """Return the largest difference of an optimized graph's predictions to torch's on images of several sizes."""
    session = open_session(graph, optimized=True, operators=compiled_library(AKCONV_OPERATOR))
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for batch, rows, columns in CHECKED_SHAPES:
        images = random_images((batch, 3, rows * stride, columns * stride), generator)
        (predictions,) = session.run([OUTPUT], {INPUT: images.numpy()})
        worst = max(worst, max_difference(wrapper(images), torch.from_numpy(predictions)))
    return worst


def torch_forward(path: Path, weights: bytes) -> TorchForward:
    """Return the function from scaled images to predictions that torch computes for a checkpoint's content."""
    model, _ = load_model(path, content=load_checkpoint(path, data=weights))
    network = torch_network(model, device=torch.device("cpu"))

    def forward(pixels: np.ndarray) -> np.ndarray:
        return network(torch.from_numpy(pixels))[0].numpy()

    return forward
