"""Names of modules in a model yaml, and how each one's channels follow from its row.

A module declares itself where it is defined:

    @register("in_out")                      # [-1, 1, MyConv, [64, 3]] builds MyConv(in_channels, 64 * width, 3)
    class MyConv(nn.Module): ...

Nothing else has to be edited. Arguments are literals; nothing is ever evaluated.
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
class Row:
    """What a channel rule may look at.

    Attributes:
        in_channels: channels of each input map.
        args: the row's positional arguments, constants already put in.
        repeats: the row's number after the depth multiple.
        width: multiplies a nominal channel count and rounds it up to the model's divisor.
        module: the name as written, for messages.
    """

    in_channels: Channels
    args: tuple[Any, ...]
    repeats: int
    width: Callable[[int], int]
    module: str

    def positive(self, position: int, what: str) -> int:
        """Return argument `position` if it is a positive integer.

        Raises:
            ValueError: it is missing or something else.
        """
        value = self.args[position] if position < len(self.args) else None
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"argument {position + 1} ({what}) must be a positive integer, got {value!r}")
        return value

    def single_input(self) -> int:
        """Return the channels of the only input map.

        Raises:
            ValueError: the row names several inputs.
        """
        if len(self.in_channels) != 1:
            raise ValueError(f"takes one input, but `from` names {len(self.in_channels)}")
        return self.in_channels[0]


@dataclass(frozen=True)
class LayerArgs:
    """What a channel rule answers: the positional arguments of the constructor, and the channels that come out."""

    args: tuple[Any, ...]
    out_channels: int


Rule = Callable[[Row], LayerArgs]


def _in_out(row: Row) -> LayerArgs:
    """Channels in, then argument 1 times the width multiple out; the other arguments follow."""
    out_channels = row.width(row.positive(0, "output channels"))
    return LayerArgs((row.single_input(), out_channels, *row.args[1:]), out_channels)


def _same(row: Row) -> LayerArgs:
    """As many channels out as in; the module is not told them."""
    return LayerArgs(row.args, row.single_input())


def _same_told(row: Row) -> LayerArgs:
    """As many channels out as in; they are the module's first argument."""
    return LayerArgs((row.single_input(), *row.args), row.single_input())


def _sum(row: Row) -> LayerArgs:
    """The channels of all inputs together."""
    return LayerArgs(row.args, sum(row.in_channels))


RULES: dict[str, Rule] = {"in_out": _in_out, "same": _same, "same_told": _same_told, "sum": _sum}


@dataclass(frozen=True, kw_only=True)
class ModuleEntry:
    """One registered module.

    Attributes:
        name: as written in a yaml.
        factory: the class, or a function that makes the module.
        rule: from row to constructor arguments and output channels.
        takes_repeats: whether `number` goes to the constructor, as for C3, instead of stacking modules.
        keywords: keyword arguments the constructor knows; None if it takes any.
        passes_on: by the name of a module within, the keywords of that module which the constructor hands down to it.
    """

    name: str
    factory: Callable[..., nn.Module]
    rule: Rule
    takes_repeats: bool = False
    keywords: frozenset[str] | None = field(default=None)
    passes_on: Mapping[str, Sequence[str]] = field(default_factory=dict)


_ENTRIES: dict[str, ModuleEntry] = {}


def register(
    rule: str | Rule = "in_out",
    *,
    name: str = "",
    repeats: bool = False,
    aliases: Sequence[str] = (),
    passes_on: Mapping[str, Sequence[str]] | None = None,
) -> Callable[[Factory], Factory]:
    """Make a module known to model yamls.

    Args:
        rule: how channels follow from the row: `in_out` (constructor gets in, out * width, then the rest), `same`
            (unchanged and not passed), `same_told` (unchanged, passed first), `sum` (over all inputs), or a function
            from `Row` to `Built`.
        name: as written in a yaml; by default the class's own name.
        repeats: pass the row's number to the constructor, after the output channels.
        aliases: other names for the same module.
        passes_on: by the name of a module within, its keywords that this one takes under the same name and hands down,
            as {"AKConv": ("padding",)}: sweeping AKConv.padding then sets them here too.

    Raises:
        ValueError: the name is taken, or the rule unknown.
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
                passes_on=passes_on or {},
            )
        return factory

    return add


def _source(factory: Callable[..., Any]) -> str:
    """Where a factory is defined; a file loaded twice defines the same thing twice."""
    return f"{factory.__module__}.{getattr(factory, '__qualname__', factory)}"


def _keywords(factory: Callable[..., Any]) -> frozenset[str] | None:
    """Keyword arguments a constructor knows, or None if it takes any."""
    parameters = inspect.signature(factory).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return frozenset(p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD))


def registered_names() -> list[str]:
    """All names that a model yaml may use, sorted."""
    return sorted(_ENTRIES, key=str.lower)


def lookup(name: str, *, where: str) -> ModuleEntry:
    """Return the entry of a module name; `nn.X` and `torch.nn.X` mean the same.

    Args:
        name: as written in the yaml.
        where: file and row, for the message.

    Raises:
        ConfigError: not registered; names the nearest.
    """
    entry = _ENTRIES.get(name.removeprefix("torch."))
    if entry is None:
        hint = did_you_mean(name, _ENTRIES) or "register it, and name its file with --plugins"
        raise ConfigError(f"{where} '{name}'", "unknown module", fix=hint)
    return entry


def round_up(value: float, divisor: int) -> int:
    """Return `value` rounded up to a multiple of `divisor`, as widths are in this family."""
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
    (nn.BatchNorm2d, "same_told"),
    (nn.Conv2d, "in_out"),
    (nn.ConvTranspose2d, "in_out"),
):
    register(_rule, name=f"nn.{_torch_module.__name__}", aliases=(_torch_module.__name__,))(_torch_module)
