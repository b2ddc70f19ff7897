"""Which implementation of AKConv runs: the one place that decides.

| implementation | what | when |
|---|---|---|
| `onnx` | nodes of a graph, few and quick in ONNX Runtime | `torch.onnx.export` traces the model |
| `traced` | bags without a backward pass of their own | `torch.jit.trace` does |
| `gathers` | four gathers and plain arithmetic | `torch.export` does |
| `native` | a compiled kernel and one matrix product | on the CPU, where `python -m utils.compiled` made it |
| `bags` | one weighted gather and one matrix product | otherwise, and under `torch.compile` |
| `triton` | fused kernels, forward and backward, on CUDA | when asked for: so far run by Triton's interpreter alone |

The argument `implementation` of `ak_conv2d`, or else the environment variable AKCONV_IMPLEMENTATION, overrides it. All
of them give the same bits every time, as `torch.use_deterministic_algorithms` wants, but for `gathers` on CUDA.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable

import torch
from torch import Tensor

from models.sampling.cpu_kernel import ak_conv2d_native, load
from models.sampling.embedding_bag import ak_conv2d_bags
from models.sampling.gather import ak_conv2d_gathers
from models.sampling.onnx import ak_conv2d_onnx
from models.sampling.torchscript import ak_conv2d_traced
from models.sampling.triton.kernel import ak_conv2d_triton
from utils.log import LOGGER

IMPLEMENTATIONS: dict[str, Callable[..., Tensor]] = {
    "gathers": ak_conv2d_gathers,
    "onnx": ak_conv2d_onnx,
    "traced": ak_conv2d_traced,
    "native": ak_conv2d_native,
    "bags": ak_conv2d_bags,
    "triton": ak_conv2d_triton,
}
VARIABLE = "AKCONV_IMPLEMENTATION"


def choose(x: Tensor, *, implementation: str | None = None) -> str:
    """Return the name of the implementation that runs now, for a map `x`.

    Raises:
        ValueError: an override names none, or one that cannot serve.
    """
    on_cpu = x.device.type == "cpu"
    wanted = implementation or os.environ.get(VARIABLE)
    # Shapes are found on a device without memory, whatever the environment says.
    if wanted == "native" and not on_cpu and not implementation:
        wanted = "bags"
    if wanted == "native" and not (on_cpu and load(torch.float32)):
        raise ValueError("native needs a tensor on the CPU and python -m utils.compiled")
    if wanted:
        if wanted not in IMPLEMENTATIONS:
            raise ValueError(f"implementation must be one of {', '.join(IMPLEMENTATIONS)}, got {wanted!r}")
        return wanted
    if torch.jit.is_tracing():
        return "onnx" if torch.onnx.is_in_onnx_export() else "traced"
    if torch.jit.is_scripting() or torch.compiler.is_exporting():
        return "gathers"
    if on_cpu and not torch.compiler.is_compiling() and load(torch.float32):
        return "native"
    return "bags"


@functools.cache
def log_once(name: str, device: str) -> None:
    """Log which implementation runs on a kind of device, the first time."""
    LOGGER.info(f"AKConv on {device}: {name}")
