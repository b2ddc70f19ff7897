"""A pickled `nn.Module`, read as stubs: its children, its weights, and its state dict as our layers have it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor

from models.modules.akconv import base_points
from utils.weights.restricted_pickle import PickleStub, printable, type_name

AKCONV = ("AKConv", "LDConv")  # in the published code these have a derived buffer, `p_n`: the initial points
NORM_EPS = 1e-3
MAX_NAME = 200
T = TypeVar("T")


class UnsupportedError(ValueError):
    """The file is not a YOLOv5 detector that can be converted; the message says why."""


def attributes(module: PickleStub) -> dict[str, Any]:
    """Return what a module holds, by name."""
    return module.state if isinstance(module.state, dict) else {}


def _by_name(module: PickleStub, attribute: str, kind: type[T], place: str, prefix: str = "") -> dict[str, T]:
    """Return the children, parameters or buffers of a module, without those that are None."""
    items = attributes(module).get(attribute)
    items = items if isinstance(items, dict) else {}
    for key, value in items.items():
        if not isinstance(key, str) or not 0 < len(key) <= MAX_NAME or not isinstance(value, (kind, type(None))):
            raise UnsupportedError(f"has {type_name(value)} in place of {place} ({printable(prefix + str(key))})")
    return {key: value for key, value in items.items() if value is not None}


def modules(module: PickleStub) -> dict[str, PickleStub]:
    """Return the children of a module by name."""
    return _by_name(module, "_modules", PickleStub, "a layer")


def class_name(module: PickleStub) -> str:
    """Return the name of a module's class, without that of its file."""
    return module.kind.rpartition(".")[2]


def named_modules(module: PickleStub, prefix: str = "") -> Iterator[tuple[str, PickleStub]]:
    """Yield a module and all modules in it with their prefixes; the restricted unpickler has limited the depth."""
    yield prefix, module
    for name, child in modules(module).items():
        yield from named_modules(child, f"{prefix}{name}.")


def float_state(model: PickleStub, head_name: str) -> dict[str, Tensor]:
    """Return the state dict in float32. Of the head only what ours has: older releases kept the anchors twice."""
    of_head = (f"{head_name}.m.", f"{head_name}.anchors")
    converted: dict[int, Tensor] = {}  # by identity, so that shared tensors stay shared
    state: dict[str, Tensor] = {}
    for prefix, module in named_modules(model):
        derived = derived_buffers(module, prefix)
        for kind in ("_parameters", "_buffers"):
            for name, tensor in _by_name(module, kind, Tensor, "weights", prefix).items():
                key = prefix + name
                if name not in derived and (not key.startswith(f"{head_name}.") or key.startswith(of_head)):
                    as_float = tensor.float() if tensor.is_floating_point() else tensor
                    state[key] = converted.setdefault(id(tensor), as_float)
        if class_name(module) == "BatchNorm2d":
            _use_our_eps(state, module, prefix)
    for prefix, module in named_modules(model):
        if class_name(module) in ("Conv", "DWConv") and "bn" not in modules(module):
            _add_batch_norm(state, prefix)
    return state


def derived_buffers(module: PickleStub, prefix: str) -> set[str]:
    """Return the buffers that follow from the layer; UnsupportedError if they are not what our layer has."""
    points = _by_name(module, "_buffers", Tensor, "weights", prefix).get("p_n")
    if points is None or class_name(module) not in AKCONV:
        return set()
    expected = torch.tensor(base_points(max(points.numel() // 2, 1))).T.flatten()
    if not torch.equal(points.flatten().float(), expected.float()):
        raise UnsupportedError(f"has other sampling points than AKConv ({printable(prefix)}p_n)")
    return {"p_n"}


def _use_our_eps(state: dict[str, Tensor], module: PickleStub, prefix: str) -> None:
    """Make a batch norm of another epsilon, as in the first releases, one of ours: only variance + epsilon counts."""
    eps = attributes(module).get("eps")
    if not isinstance(eps, float) or not 0 < eps < 1:
        raise UnsupportedError(f"has a batch norm without a valid eps ({printable(prefix[:-1])})")
    variance = state.get(f"{prefix}running_var")
    if eps != NORM_EPS and variance is not None:
        state[f"{prefix}running_var"] = variance + (eps - NORM_EPS)


def _add_batch_norm(state: dict[str, Tensor], prefix: str) -> None:
    """Give a convolution into which its batch norm has been folded one that only adds the bias."""
    bias = state.pop(f"{prefix}conv.bias", None)
    if bias is not None:
        ones = torch.ones_like(bias)
        state |= {f"{prefix}bn.weight": ones, f"{prefix}bn.bias": bias, f"{prefix}bn.running_mean": 0 * ones}
        state |= {f"{prefix}bn.running_var": ones - NORM_EPS, f"{prefix}bn.num_batches_tracked": torch.tensor(0)}
