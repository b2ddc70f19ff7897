"""The layers of a network by name, and the maps that they return in a forward pass."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

from torch import Tensor, nn

from models.yolo import DetectionModel
from utils.errors import ConfigError, did_you_mean

FLAG = "--layers"


def select_layers(network: DetectionModel, selectors: Sequence[str]) -> list[str]:
    """Return the names of the modules that selectors name, without duplicates.

    A selector is the index of a row or the name of a module, as `17` or `model.17.cv1`; without selectors these are the
    rows that the head reads. A ConfigError is raised for an unknown one.
    """
    names = [name for name, module in network.named_modules() if "." in name and module is not network.head]
    selected: dict[str, None] = {}
    for selector in selectors or [str(source) for source in network.sources[-1]]:
        name = f"model.{selector}" if selector.isdigit() else selector
        if name not in names:
            close = "" if selector.isdigit() else did_you_mean(name, names)
            fix = close or f"choose a row from 0 to {len(network.model) - 2}, or a module's name"
            raise ConfigError(FLAG, f"{selector!r} is not a layer of the model", fix=fix)
        selected[name] = None
    return list(selected)


@contextlib.contextmanager
def record_maps(network: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Record the maps (B, C, h, w) that modules return: the yielded mapping holds those of the last forward pass.

    The network goes on with copies, so that an operation in place behind a layer does not change what was recorded.
    Leaving the context raises a ConfigError if a module has not run; one that does not return a map raises it at once.
    """
    maps: dict[str, Tensor] = {}

    def make_hook(name: str) -> Callable[[nn.Module, object, object], Tensor]:
        def hook(_module: nn.Module, _inputs: object, output: object) -> Tensor:
            if not isinstance(output, Tensor) or output.dim() != 4:
                raise ConfigError(FLAG, f"{name} does not return a map", fix="choose a row before the head")
            maps[name] = output
            return output.clone()

        return hook

    with contextlib.ExitStack() as hooks:
        for name in names:
            hooks.callback(network.get_submodule(name).register_forward_hook(make_hook(name)).remove)
        yield maps
    for name in names:
        if name not in maps:
            raise ConfigError(FLAG, f"{name} is not run by itself", fix="choose the module that contains it")
