"""Weights that depend only on the names and shapes of parameters; tests/reference was made with them."""

import zlib

import numpy as np
import torch


def fill_(module):
    """Set the floating-point parameters and buffers of a module in place, and return it."""
    for name, tensor in module.state_dict().items():
        if not tensor.is_floating_point() or name.endswith("anchors"):
            continue
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        shape = tuple(tensor.shape)
        if name.endswith("running_var") or (name.endswith("weight") and tensor.ndim == 1):
            value = rng.uniform(0.5, 1.5, shape)
        elif name.endswith(("running_mean", "bias")):
            value = rng.normal(0.0, 0.1, shape)
        else:
            fan_in = int(np.prod(shape[1:])) or 1
            value = rng.normal(0.0, (2.0 / fan_in) ** 0.5, shape)
        tensor.copy_(torch.from_numpy(value.astype(np.float32)))
    return module
