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
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import nn

from utils.errors import ConfigError, did_you_mean

Channels = tuple[int, ...]
Factory = TypeVar("Factory", bound=Callable[..., nn.Module])


@dataclass(frozen=True, kw_only=True)
class LayerContext:
    """The input of a channel rule: one row of a model yaml.

    Attributes:
        in_channels: channels of each input map.
        args: the row's positional arguments, with `nc` and `anchors` substituted.
        repeats: the row's number times the depth multiple.
        width: scales a channel count by the width multiple and rounds it up to the channel multiple.
        module: the name as written in the yaml.
    """

    in_channels: Channels
    args: tuple[Any, ...]
    repeats: int
    width: Callable[[int], int]
    module: str

    def positive(self, position: int, what: str) -> int:
        """Return the argument at `position`, a positive integer.

        Raises:
            ValueError: it is missing or not a positive integer.
        """
        value = self.args[position] if position < len(self.args) else None
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"argument {position + 1} ({what}) must be a positive integer, got {value!r}")
        return value

    def single_input(self) -> int:
        """Return the channels of the single input map.

        Raises:
            ValueError: the row has several inputs.
        """
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
    """Constructor arguments: input channels, first argument times the width multiple, other arguments."""
    out_channels = row.width(row.positive(0, "output channels"))
    return LayerArgs((row.single_input(), out_channels, *row.args[1:]), out_channels)


def _same(row: LayerContext) -> LayerArgs:
    """Channels unchanged and not passed to the constructor."""
    return LayerArgs(row.args, row.single_input())


def _same_passed(row: LayerContext) -> LayerArgs:
    """Channels unchanged and passed as the first argument."""
    return LayerArgs((row.single_input(), *row.args), row.single_input())


def _sum(row: LayerContext) -> LayerArgs:
    """The sum of all inputs' channels."""
    return LayerArgs(row.args, sum(row.in_channels))


RULES: dict[str, Rule] = {"in_out": _in_out, "same": _same, "same_passed": _same_passed, "sum": _sum}


@dataclass(frozen=True, kw_only=True)
class ModuleEntry:
    """One registered module.

    Attributes:
        name: as written in a yaml.
        factory: the class, or a function that returns the module.
        rule: maps a row to constructor arguments and output channels.
        takes_repeats: `number` is passed to the constructor, as for C3, instead of stacking modules.
        keywords: keyword arguments of the constructor; None if it accepts any.
        forwards: for each inner module, its keywords that the constructor accepts and forwards to it.
    """

    name: str
    factory: Callable[..., nn.Module]
    rule: Rule
    takes_repeats: bool = False
    keywords: frozenset[str] | None = field(default=None)
    forwards: Mapping[str, Sequence[str]] = field(default_factory=dict)


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
    """Return the entry of a module; `nn.X` and `torch.nn.X` are the same.

    Args:
        name: as written in the yaml.
        where: file and row for the message.

    Raises:
        ConfigError: the name is not registered; suggests the closest ones.
    """
    entry = _ENTRIES.get(name.removeprefix("torch."))
    if entry is None:
        hint = did_you_mean(name, _ENTRIES) or "register it, and pass its file with --plugins"
        raise ConfigError(f"{where} '{name}'", "unknown module", fix=hint)
    return entry


def round_up(value: float, divisor: int) -> int:
    """Return `value` rounded up to a multiple of `divisor`."""
    return math.ceil(value / divisor) * divisor


for _torch_module, _rule in (
    (nn.Upsample, "same"),
    (nn.Identity, "same"),
    (nn.MaxPool2d, "same"),
    (nn.AvgPool2d, "same"),
    (nn.ZeroPad2d, "same"),
    (nn.Dropout2d, "same"),
    (nn.SiLU, "same"),
    (nn.ReLU, "same"),
    (nn.ReLU6, "same"),
    (nn.LeakyReLU, "same"),
    (nn.Hardswish, "same"),
    (nn.Mish, "same"),
    (nn.GELU, "same"),
    (nn.ELU, "same"),
    (nn.Sigmoid, "same"),
    (nn.BatchNorm2d, "same_passed"),
    (nn.Conv2d, "in_out"),
    (nn.ConvTranspose2d, "in_out"),
):
    register(_rule, name=f"nn.{_torch_module.__name__}", aliases=(_torch_module.__name__,))(_torch_module)
