"""What a model config builds, in a form that can be compared: other words in a yaml may mean the same network."""

from __future__ import annotations

import hashlib
import types
from typing import Any

import torch
from torch import Tensor, nn

from models.config import ModelConfig
from models.yolo import parse_model

CHANNELS = 3  # of an image
HELD_APART = frozenset(("_parameters", "_buffers", "_modules"))  # told tensor by tensor, and module by module
PLAIN = (type(None), bool, int, float, str, bytes, torch.dtype, torch.device, type, types.FunctionType)


def network_fingerprint(config: ModelConfig) -> list[Any]:
    """Return what decides what a config's network computes and learns: equal for networks that train to the same bits.

    That is, of each module in order, its name, class and attributes, and the bits of its parameters and buffers as one
    seed draws them. An attribute that cannot be judged differs from all others: rather a twin too many is trained than
    a variant left out.

    Raises:
        ConfigError: it cannot be built.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        network = parse_model(config, CHANNELS)
    return [
        (
            name,
            type(module),
            [(key, _comparable(value)) for key, value in vars(module).items() if key not in HELD_APART],
            [(key, _comparable(tensor)) for key, tensor in _own_tensors(module)],
        )
        for name, module in network.named_modules()
    ]


def _own_tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    """Return a module's parameters and buffers, also those that no checkpoint holds, without those of its parts."""
    return [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]


def _comparable(value: object) -> Any:  # noqa: ANN401
    """Return a value as something whose `==` tells whether another one means the same."""
    if isinstance(value, Tensor):
        octets = value.detach().cpu().flatten().view(torch.uint8).numpy().tobytes()
        return value.dtype, tuple(value.shape), value.requires_grad, hashlib.sha256(octets).digest()
    if isinstance(value, PLAIN):
        return type(value), value
    if isinstance(value, (list, tuple)):
        return type(value), [_comparable(item) for item in value]
    if isinstance(value, dict):
        return type(value), [(_comparable(key), _comparable(item)) for key, item in value.items()]
    if isinstance(value, (set, frozenset)):
        return type(value), value if all(isinstance(item, PLAIN) for item in value) else object()
    return object()
