"""Which engine runs a model: ONNX Runtime for our own checkpoints on a CPU, if it is installed, else torch.

A checkpoint is converted once, compared with torch, and kept in the user's cache folder. From then on it is opened
without torch, whose import alone takes longer than many predictions.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from utils.errors import CheckpointError, ConfigError
from utils.inference.metadata import ModelMetadata
from utils.inference.onnx_cache import CachedGraph, cache_is_writable, graph_key, load_graph, store_graph
from utils.inference.onnx_session import OnnxNetwork, TorchForward
from utils.log import LOGGER
from utils.options.inference import AUTO, ONNXRUNTIME, TORCH
from utils.weights_file import read_weights_file


def open_onnx_network(
    weights: Sequence[str | Path], *, engine: str, device: str, torch_only: str = "", threads: int | None = None
) -> tuple[OnnxNetwork, ModelMetadata] | None:
    """Open what `--weights` names in ONNX Runtime; None if torch is to run it.

    Args:
        weights: of the model, or of an ensemble.
        engine: one of `utils.options.inference.ENGINES`.
        device: as `--device` takes it.
        torch_only: a flag of this run that needs torch, or "".
        threads: of one operation; None for those that torch would use.

    Raises:
        CheckpointError: the checkpoint cannot be used.
        ConfigError: the engine is `onnxruntime`, but it cannot run this.
    """
    if engine == TORCH:
        return None
    refusal = _unsuited(weights, device)
    if not refusal and torch_only:
        refusal = f"{torch_only} needs PyTorch"
        if engine == AUTO:
            LOGGER.info(f"{refusal}, which runs the model")
    if not refusal:
        path = Path(weights[0])
        try:
            return _open(path, strict=engine == ONNXRUNTIME, threads=threads)
        except _RefusedError as error:
            refusal = str(error)
            if engine == AUTO:
                LOGGER.warning(f"{path}: not run by ONNX Runtime, but by PyTorch: {refusal}")
    if engine == ONNXRUNTIME:
        raise ConfigError("--engine onnxruntime", f"is not possible: {refusal}", fix="leave --engine out")
    return None


class _RefusedError(Exception):
    """ONNX Runtime cannot run this model here; the message says why."""


def _unsuited(weights: Sequence[str | Path], device: str) -> str:
    """Return why ONNX Runtime does not suit these weights on this device, or ""."""
    missing = [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        return f"{missing[0]} is not installed (pip install {' '.join(missing)})"
    if len(weights) != 1:
        return "an ensemble needs PyTorch"
    if not os.path.isfile(weights[0]) or Path(weights[0]).suffix.lower() != ".pt":
        return f"{weights[0]} is not a checkpoint"
    requested = device.strip().lower()
    if requested not in ("", "cpu") or (requested == "" and _has_gpu()):
        return "it runs checkpoints on the CPU only"
    return ""


def _has_gpu() -> bool:
    """Whether torch would choose a GPU, without importing torch where there is no driver of one."""
    driver = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        ctypes.CDLL(driver)
    except OSError:
        if not os.path.exists("/dev/kfd"):  # AMD's
            return False
    import torch

    return torch.cuda.is_available()


def _open(path: Path, *, strict: bool, threads: int | None) -> tuple[OnnxNetwork, ModelMetadata]:
    """Open a checkpoint in ONNX Runtime, converting it if needed; _RefusedError if that is not possible."""
    import onnxruntime

    weights = read_weights_file(path)
    key = graph_key(weights, onnxruntime.__version__)
    cached = load_graph(key)
    if cached is None or (strict and cached.refusal):
        cached = _convert(path, weights, key, strict=strict)
    if cached.refusal:
        raise _RefusedError(cached.refusal)
    metadata = ModelMetadata.from_text(cached.metadata, path=path)
    open_torch = None if strict else partial(_open_torch, path, hashlib.sha256(weights).digest())
    try:
        network = OnnxNetwork(cached.graph, metadata, threads=threads, open_torch=open_torch, name=str(path))
    except Exception as error:  # ONNX Runtime's exceptions have no common base class
        raise _RefusedError(str(error).splitlines()[0][:200]) from error
    LOGGER.info(cached.summary)
    LOGGER.info(f"Engine: ONNX Runtime {onnxruntime.__version__}")
    return network, metadata


def _convert(path: Path, weights: bytes, key: str, *, strict: bool) -> CachedGraph:
    """Convert a checkpoint, and keep the graph; without a place to keep it, only if ONNX Runtime is required."""
    if not (strict or cache_is_writable()):
        raise _RefusedError("its cache folder cannot be written; set XDG_CACHE_HOME")
    from utils.inference.onnx_conversion import convert

    cached = convert(path, weights)
    if error := store_graph(key, cached):
        LOGGER.warning(f"{path}: converted for this run only: {error}")
    return cached


def _open_torch(path: Path, digest: bytes) -> TorchForward:
    """Open a checkpoint in torch; CheckpointError if it has changed since ONNX Runtime opened it."""
    from utils.inference.onnx_conversion import torch_forward

    weights = read_weights_file(path)
    if hashlib.sha256(weights).digest() != digest:
        raise CheckpointError(path, "has changed since it was opened", fix="run again")
    return torch_forward(path, weights)
