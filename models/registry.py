"""The registry of modules for model yamls: name -> module and the rule for its channels.

A module registers itself where it is defined:

    @register("in_out")                      # [-1, 1, MyConv, [64, 3]] builds MyConv(in_channels, 64 * width, 3)
    class MyConv(nn.Module): ...

Nothing else needs editing. Arguments are literals; nothing is evaluated.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import nn

from utils.errors import ConfigError, did_you_mean

Channels = tuple[int, ...]
Factory = TypeVar("Factory", bound=Callable[..., nn.Module])


@dataclass(frozen=True, kw_only=True)
class LayerContext:
    """The input of a channel rule: one row of a model yaml."""

    in_channels: Channels  # of each input map
    args: tuple[Any, ...]  # the row's positional arguments, with `nc` and `anchors` substituted
    repeats: int  # the row's number times the depth multiple
    width: Callable[[int], int]  # scales channels by the width multiple and rounds them up to the channel multiple
    module: str  # the name as written in the yaml

    def positive(self, position: int, what: str) -> int:
        """Return the argument at `position`; raise ValueError unless it is a positive integer."""
        value = self.args[position] if position < len(self.args) else None
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"argument {position + 1} ({what}) must be a positive integer, got {value!r}")
        return value

    def single_input(self) -> int:
        """Return the channels of the single input map; raise ValueError if the row has several inputs."""
        if len(self.in_channels) != 1:
            raise ValueError(f"takes one input, but `from` names {len(self.in_channels)}")
        return self.in_channels[0]


@dataclass(frozen=True)
class LayerArgs:
    """The result of a channel rule: the constructor's positional arguments and the output channels."""

    args: tuple[Any, ...]
    out_channels: int


Rule = Callable[[LayerContext], LayerArgs]


def _in_out(row: LayerContext) -> LayerArgs:
    out_channels = row.width(row.positive(0, "output channels"))
    return LayerArgs((row.single_input(), out_channels, *row.args[1:]), out_channels)


RULES: dict[str, Rule] = {
    "in_out": _in_out,
    "same": lambda row: LayerArgs(row.args, row.single_input()),
    "same_passed": lambda row: LayerArgs((row.single_input(), *row.args), row.single_input()),
    "sum": lambda row: LayerArgs(row.args, sum(row.in_channels)),
}


@dataclass(frozen=True, kw_only=True)
class ModuleEntry:
    """One registered module."""

    name: str  # as written in a yaml
    factory: Callable[..., nn.Module]  # the class, or a function that returns the module
    rule: Rule  # maps a row to constructor arguments and output channels
    takes_repeats: bool  # `number` is passed to the constructor, as for C3, instead of stacking modules
    keywords: frozenset[str] | None  # keyword arguments of the constructor; None if it accepts any
    forwards: Mapping[str, Sequence[str]]  # inner module: its keywords that the constructor accepts and forwards to it


_ENTRIES: dict[str, ModuleEntry] = {}


def register(
    rule: str | Rule = "in_out",
    *,
    name: str = "",
    repeats: bool = False,
    aliases: Sequence[str] = (),
    forwards: Mapping[str, Sequence[str]] | None = None,
) -> Callable[[Factory], Factory]:
    """Register a module for model yamls.

    Args:
        rule: `in_out` (the constructor gets input channels, output channels * width, other arguments), `same` (channels
            unchanged and not passed), `same_passed` (unchanged, passed first), `sum` (over all inputs), or a function
            from `LayerContext` to `LayerArgs`.
        name: as written in a yaml; by default the name of the class.
        repeats: pass the row's number to the constructor, after the output channels.
        aliases: further names of the module.
        forwards: for each inner module, its keywords that this constructor accepts under the same name and forwards,
            such as {"AKConv": ("padding",)}; sweeping AKConv.padding then sets them here as well.

    Raises:
        ValueError: the name is taken, or the rule is unknown.
    """
    if isinstance(rule, str) and rule not in RULES:
        raise ValueError(f"unknown channel rule {rule!r}; one of {sorted(RULES)}")
    chosen = RULES[rule] if isinstance(rule, str) else rule

    def add(factory: Factory) -> Factory:
        for label in (name or factory.__name__, *aliases):
            present = _ENTRIES.get(label)
            if present is not None and _source(present.factory) != _source(factory):
                raise ValueError(f"module name {label!r} is taken by {_source(present.factory)}")
            _ENTRIES[label] = ModuleEntry(
                name=label,
                factory=factory,
                rule=chosen,
                takes_repeats=repeats,
                keywords=_keywords(factory),
                forwards=forwards or {},
            )
        return factory

    return add


def _source(factory: Callable[..., Any]) -> str:
    """Return where a factory is defined, which identifies it even if its file is loaded twice."""
    return f"{factory.__module__}.{getattr(factory, '__qualname__', factory)}"


def _keywords(factory: Callable[..., Any]) -> frozenset[str] | None:
    """Return the keyword arguments of a constructor, or None if it accepts any."""
    parameters = inspect.signature(factory).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return frozenset(p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD))


def registered_names() -> list[str]:
    """Return all names that a model yaml may use, sorted."""
    return sorted(_ENTRIES, key=str.lower)


def lookup(name: str, *, where: str) -> ModuleEntry:
    """Return the entry of a module; `nn.X` and `torch.nn.X` are the same, and `where` is the file and row for errors.

    Raises:
        ConfigError: the name is not registered; names --plugins and the closest names.
    """
    entry = _ENTRIES.get(name.removeprefix("torch."))
    if entry is None:
        near = did_you_mean(name, _ENTRIES)
        fix = "register it in a Python file, and pass the file with --plugins" + (f"; or {near}" if near else "")
        raise ConfigError(f"{where} '{name}'", "unknown module", fix=fix)
    return entry


def round_up(value: float, divisor: int) -> int:
    """Return `value` rounded up to a multiple of `divisor`."""
    return math.ceil(value / divisor) * divisor


_ACTIVATIONS = (nn.SiLU, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.Hardswish, nn.Mish, nn.GELU, nn.ELU, nn.Sigmoid)
for _rule, _torch_modules in {
    "same": (nn.Upsample, nn.Identity, nn.MaxPool2d, nn.AvgPool2d, nn.ZeroPad2d, nn.Dropout2d, *_ACTIVATIONS),
    "same_passed": (nn.BatchNorm2d,),
    "in_out": (nn.Conv2d, nn.ConvTranspose2d),
}.items():
    for _torch_module in _torch_modules:
        register(_rule, name=f"nn.{_torch_module.__name__}", aliases=(_torch_module.__name__,))(_torch_module)
