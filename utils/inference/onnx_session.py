"""ONNX Runtime without torch: opening a graph, and a network that runs one."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from utils.compiled import AKCONV_OPERATOR, compiled_library
from utils.errors import ConfigError, RunError
from utils.inference.metadata import INPUT, OUTPUT, ModelMetadata
from utils.log import LOGGER
from utils.threads import thread_count

LOG_FATAL = 4  # ONNX Runtime's severity: what it logs of an error besides, it raises as well
TorchForward = Callable[[np.ndarray], np.ndarray]  # scaled images to predictions, by torch


def require_package(name: str, where: Path | str) -> Any:  # noqa: ANN401
    """Import an optional package for a flag or file; ConfigError if it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        fix = f"install it: pip install {name}"
        raise ConfigError(where, f"needs {name}, which is not installed", fix=fix) from error


def open_session(
    graph: bytes,
    *,
    threads: int | None = None,
    providers: Sequence[str] = ("CPUExecutionProvider",),
    optimized: bool = False,
    save_optimized: Path | None = None,
    operators: Path | None = None,
) -> Any:  # noqa: ANN401
    """Open an ONNX graph in ONNX Runtime, whose own exceptions this raises.

    Args:
        graph: the content of an ONNX file.
        threads: of one operation; None for those that torch would use.
        providers: of ONNX Runtime, the first choice first.
        optimized: the graph was written by `save_optimized`, on a processor of this kind.
        save_optimized: file for the graph after ONNX Runtime's optimizations.
        operators: a compiled library of operators in the graph.
    """
    onnxruntime = importlib.import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or thread_count()
    options.log_severity_level = LOG_FATAL
    if optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if operators is not None:
        options.register_custom_ops_library(str(operators))
    if save_optimized is not None:
        options.optimized_model_filepath = str(save_optimized)
    # Its fallback to the CPU prints an error, and opens the same graph again.
    falls_back = int(list(providers) != ["CPUExecutionProvider"])
    return onnxruntime.InferenceSession(graph, options, providers=list(providers), enable_fallback=falls_back)


class OnnxNetwork:
    """A model that ONNX Runtime runs on the CPU, on arrays. Thread-safe.

    Attributes:
        num_classes: of the model.
        max_stride: image sides must be multiples of it, in pixels.
    """

    device = "cpu"

    def __init__(
        self,
        graph: bytes,
        metadata: ModelMetadata,
        *,
        threads: int | None,
        open_torch: Callable[[], TorchForward] | None,
        name: str,
    ) -> None:
        """Open an optimized graph; raises ONNX Runtime's exceptions.

        Args:
            graph: of a model with this input and output, see `open_session`.
            metadata: of the model.
            threads: of one operation; None for those that torch would use.
            open_torch: opens the same model in torch, which takes over if ONNX Runtime fails; None makes it an error.
            name: of the model, for messages.
        """
        self.num_classes, self.max_stride = len(metadata.names), metadata.stride
        self._session = open_session(
            graph, threads=threads, optimized=True, operators=compiled_library(AKCONV_OPERATOR)
        )
        self._open_torch, self._name = open_torch, name
        self._torch: TorchForward | None = None
        self._lock = threading.Lock()

    def scale(self, images: Any) -> np.ndarray:  # noqa: ANN401 - torch's tensors convert themselves
        """Scale (B, 3, H, W) uint8 images to float32 in [0, 1]."""
        pixels = np.ascontiguousarray(images, dtype=np.float32)
        pixels /= 255
        return pixels

    def convert(self, pixels: Any) -> np.ndarray:  # noqa: ANN401 - torch's tensors convert themselves
        """Return scaled images (B, 3, H, W) as `__call__` takes them."""
        return np.ascontiguousarray(pixels.float().cpu(), dtype=np.float32)

    def __call__(self, pixels: np.ndarray) -> tuple[np.ndarray, list[Any]]:
        """Return the (B, n, 5 + classes) predictions of scaled images; there are no raw maps."""
        if self._torch is None:
            try:
                return self._session.run([OUTPUT], {INPUT: pixels})[0], []
            except Exception as error:  # ONNX Runtime's exceptions have no common base class
                self._torch = self._fall_back(error)
        return self._torch(pixels), []

    def _fall_back(self, error: Exception) -> TorchForward:
        """Return the model in torch, which runs it from now on; RunError if it must not."""
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        with self._lock:
            if self._open_torch is None:
                raise RunError(self._name, f"ONNX Runtime failed ({reason})", fix="pass --engine torch") from error
            if self._torch is None:
                LOGGER.warning(f"{self._name}: ONNX Runtime failed ({reason}); PyTorch runs the model from here on")
                self._torch = self._open_torch()
            return self._torch
