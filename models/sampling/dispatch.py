"""The choice between the implementations of AKConv.

| implementation | operations | used |
|---|---|---|
| `onnx` | few graph nodes, fast in ONNX Runtime | during `torch.onnx.export` |
| `torchscript` | `embedding_bag` without a custom backward pass | during `torch.jit.trace` |
| `gather` | four gathers and elementwise arithmetic | during `torch.export` |
| `cpu_kernel` | compiled kernels and one matrix product | on the CPU, once compiled by `python -m utils.compiled` |
| `embedding_bag` | one weighted gather and one matrix product | otherwise, and under `torch.compile` |
| `triton` | fused kernels, forward and backward, on CUDA | on request: tested only in Triton's interpreter so far |

The argument `implementation` of `ak_conv2d`, or else the environment variable AKCONV_IMPLEMENTATION, overrides the
choice. All are bitwise reproducible, as `torch.use_deterministic_algorithms` requires, except `gather` on CUDA.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import Parameter

from models.sampling.embedding_bag import ak_conv2d_embedding_bag
from models.sampling.gather import ak_conv2d_gather
from models.sampling.onnx import ak_conv2d_onnx
from models.sampling.sampling_grid import SamplingGrid
from models.sampling.torchscript import ak_conv2d_torchscript
from models.sampling.training_kernel import ak_conv2d_cpu_kernel, load
from models.sampling.triton.kernel import ak_conv2d_triton
from utils.log import LOGGER

Implementation = Callable[[Tensor, Tensor, Tensor, Tensor | None, SamplingGrid], Tensor]
IMPLEMENTATIONS: dict[str, Implementation] = {
    "gather": ak_conv2d_gather,
    "onnx": ak_conv2d_onnx,
    "torchscript": ak_conv2d_torchscript,
    "cpu_kernel": ak_conv2d_cpu_kernel,
    "embedding_bag": ak_conv2d_embedding_bag,
    "triton": lambda x, offset, weight, bias, grid: ak_conv2d_triton(
        x,
        offset,
        weight,
        bias,
        points=grid.points,
        stride=grid.stride,
        padding=grid.padding,
        modulated=grid.modulated,
        gradient=grid.gradient,
    ),
}
# Names of version 0.1, which scripts may still set.
FORMER_NAMES = {"gathers": "gather", "traced": "torchscript", "native": "cpu_kernel", "bags": "embedding_bag"}
VARIABLE = "AKCONV_IMPLEMENTATION"


def choose(x: Tensor, *, implementation: str | None = None) -> str:
    """Return the name of the implementation to use for a map `x`.

    Raises:
        ValueError: the override is unknown or not available.
    """
    on_cpu = x.device.type == "cpu"
    override = implementation or os.environ.get(VARIABLE)
    override = FORMER_NAMES.get(override, override) if override else None
    # The meta device computes shapes, whatever the environment requests.
    if override == "cpu_kernel" and not on_cpu and not implementation:
        override = "embedding_bag"
    if override == "cpu_kernel" and not (on_cpu and load(torch.float32)):
        raise ValueError("cpu_kernel needs a tensor on the CPU and python -m utils.compiled")
    if override:
        if override not in IMPLEMENTATIONS:
            raise ValueError(f"implementation must be one of {', '.join(IMPLEMENTATIONS)}, got {override!r}")
        return override
    if torch.jit.is_tracing():
        return "onnx" if torch.onnx.is_in_onnx_export() else "torchscript"
    if torch.jit.is_scripting() or torch.compiler.is_exporting():
        return "gather"
    # Of other types of tensor, such as FakeTensor, the kernels cannot read the memory.
    in_memory = on_cpu and type(x) in (Tensor, Parameter)
    if in_memory and not torch.compiler.is_compiling() and load(torch.float32):
        return "cpu_kernel"
    return "embedding_bag"


@functools.cache
def log_once(name: str, device: str) -> None:
    """Log once which implementation is used on a kind of device."""
    LOGGER.info(f"AKConv on {device}: {name}")
