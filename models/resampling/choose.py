"""Which implementation of AKConv runs: the one place that decides.

| implementation | what | when |
|---|---|---|
| `onnx` | nodes of a graph, few and quick in ONNX Runtime | `torch.onnx.export` traces the model |
| `traced` | bags without a backward pass of their own | `torch.jit.trace` does |
| `gathers` | four gathers and plain arithmetic | `torch.export` does |
| `bags` | one weighted gather and one matrix product | otherwise |
| `triton` | fused kernels, forward and backward, on CUDA | when asked for: so far run by Triton's interpreter alone |

The argument `implementation` of `ak_conv2d`, or else the environment variable AKCONV_IMPLEMENTATION, overrides it.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable

import torch
from torch import Tensor

from models.resampling.bags import ak_conv2d_bags
from models.resampling.gathers import ak_conv2d_gathers
from models.resampling.onnx_nodes import ak_conv2d_onnx
from models.resampling.traced import ak_conv2d_traced
from models.resampling.triton_kernel import ak_conv2d_triton
from utils.log import LOGGER

IMPLEMENTATIONS: dict[str, Callable[..., Tensor]] = {
    "gathers": ak_conv2d_gathers,
    "onnx": ak_conv2d_onnx,
    "traced": ak_conv2d_traced,
    "bags": ak_conv2d_bags,
    "triton": ak_conv2d_triton,
}
VARIABLE = "AKCONV_IMPLEMENTATION"


def choose(*, implementation: str | None = None) -> str:
    """Return the name of the implementation that runs now.

    Raises:
        ValueError: an override names none.
    """
    wanted = implementation or os.environ.get(VARIABLE)
    if wanted:
        if wanted not in IMPLEMENTATIONS:
            raise ValueError(f"implementation must be one of {', '.join(IMPLEMENTATIONS)}, got {wanted!r}")
        return wanted
    if torch.jit.is_tracing():
        return "onnx" if torch.onnx.is_in_onnx_export() else "traced"
    if torch.jit.is_scripting() or torch.compiler.is_exporting():
        return "gathers"
    return "bags"


@functools.cache
def say_once(name: str, device: str) -> None:
    """Log which implementation runs on a kind of device, the first time."""
    LOGGER.info(f"AKConv on {device}: {name}")
