"""Overriding a keyword argument of a module in the rows of a model config."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from models.build import DETECT
from models.config import LayerSpec, ModelConfig
from models.registry import LayerContext, lookup, registered_names
from utils.errors import ConfigError, did_you_mean

FLAG = "--sweep"


@dataclass(frozen=True, kw_only=True)
class RowKeyword:
    """A keyword of a module, in all rows of that module and of modules that contain it and forward the keyword."""

    module: str  # a registered name of the module
    keyword: str  # argument of its constructor
    only: tuple[str, Any] | None = None  # only rows in which a keyword has this value, such as ("num_param", 3)

    def set_to(self, config: ModelConfig, value: Any) -> ModelConfig:  # noqa: ANN401
        """Return the config with the keyword set in all rows concerned; errors are those of `rows`."""
        indices = {layer.index for layer in self.rows(config)}
        layers = tuple(
            _with_keyword(layer, self.keyword, value, where=_where(config, layer)) if layer.index in indices else layer
            for layer in config.layers
        )
        return replace(config, layers=layers)

    def rows(self, config: ModelConfig) -> list[LayerSpec]:
        """Return the rows concerned.

        Raises:
            ConfigError: the module does not take the keyword, or no row forwards it to the module.
        """
        rows = [layer for layer in _free_rows(config) if self._affects(layer, where=_where(config, layer))]
        if not rows:
            raise self._not_forwarded(config)
        if self.only is None:
            return rows
        key, value = self.only
        return [layer for layer in rows if _current(layer, key, where=_where(config, layer))[0] == value]

    def describe(self, config: ModelConfig) -> str:
        """Return the rows concerned and their present values: "rows 1 3 (AKConv, now 3), 17 (C3_AKConv, now 3)"."""
        groups: dict[str, list[str]] = {}
        for layer in self.rows(config):
            value, _ = _current(layer, self.keyword, where=_where(config, layer))
            groups.setdefault(f"({layer.module}, now {value})", []).append(str(layer.index))
        return "rows " + ", ".join(" ".join((*indices, what)) for what, indices in groups.items())

    @property
    def _keywords(self) -> list[str]:
        return [self.keyword, *(self.only[:1] if self.only else ())]

    def _affects(self, layer: LayerSpec, *, where: str) -> bool:
        """Return whether a row is of the module, or forwards `_keywords` to it."""
        same_module = lookup(layer.module, where=where).factory is lookup(self.module, where=FLAG).factory
        return same_module or set(self._keywords) <= set(_forwarded(layer, self.module, where=where))

    def _not_forwarded(self, config: ModelConfig) -> ConfigError:
        known = dict.fromkeys(
            keyword
            for layer in _free_rows(config)
            for keyword in _forwarded(layer, self.module, where=_where(config, layer))
        )
        wrong = next(keyword for keyword in self._keywords if keyword not in known)
        hint = did_you_mean(wrong, known) or f"use one of {', '.join(known)}"
        return ConfigError(FLAG, f"no row forwards {wrong!r} to its {self.module}", fix=hint)


def module_names(config: ModelConfig) -> list[str]:
    """Return the modules whose keywords can be overridden: of the rows, and inside them, by all registered names."""
    entries = {layer.module: lookup(layer.module, where=_where(config, layer)) for layer in _free_rows(config)}
    factories = {entry.factory for entry in entries.values()}
    for entry in entries.values():
        factories |= {lookup(name, where=FLAG).factory for name in entry.forwards}
    others = [name for name in registered_names() if lookup(name, where=FLAG).factory in factories]
    return list(dict.fromkeys([*entries, *others]))


def _free_rows(config: ModelConfig) -> list[LayerSpec]:
    """Return the rows with arguments of their own; those of Detect follow from the whole config."""
    return [layer for layer in config.layers if layer.module != DETECT]


def _where(config: ModelConfig, layer: LayerSpec) -> str:
    return f"{config.where}: layer {layer.index}"


def _forwarded(layer: LayerSpec, module: str, *, where: str) -> Sequence[str]:
    """Return the keywords that a row takes for a module inside it."""
    factory = lookup(module, where=FLAG).factory
    entry = lookup(layer.module, where=where)
    return [
        keyword
        for name, keywords in entry.forwards.items()
        if lookup(name, where=where).factory is factory
        for keyword in keywords
    ]


def _with_keyword(layer: LayerSpec, keyword: str, value: Any, *, where: str) -> LayerSpec:  # noqa: ANN401
    """Set a keyword in one row, at its position if it is among the positional arguments, otherwise by name."""
    current, position = _current(layer, keyword, where=where)
    if (type(current), current) == (type(value), value):
        return layer
    if position is not None:
        return replace(layer, args=(*layer.args[:position], value, *layer.args[position + 1 :]))
    return replace(layer, kwargs={**layer.kwargs, keyword: value})


def _current(layer: LayerSpec, keyword: str, *, where: str) -> tuple[Any, int | None]:
    """Return the value of a keyword in a row, and its index if it is a positional argument there."""
    position, default = _position(layer, keyword, where=where)
    if position is not None and position < len(layer.args):
        return layer.args[position], position
    return layer.kwargs.get(keyword, default), None


def _position(layer: LayerSpec, keyword: str, *, where: str) -> tuple[int | None, Any]:
    """Return the index that a keyword has among a row's own arguments, None if keyword-only, and its default.

    Raises:
        ConfigError: the module does not take the keyword, or the channel rule sets it.
    """
    entry = lookup(layer.module, where=where)
    parameters = inspect.signature(entry.factory).parameters
    if keyword not in parameters:
        hint = did_you_mean(keyword, parameters) or f"use one of {', '.join(parameters)}"
        raise ConfigError(FLAG, f"{layer.module} takes no {keyword!r}", fix=hint)
    parameter = parameters[keyword]
    default = None if parameter.default is parameter.empty else parameter.default
    if parameter.kind is parameter.KEYWORD_ONLY:
        return None, default
    context = LayerContext(
        in_channels=tuple(8 for _ in layer.sources), args=layer.args, repeats=1, width=lambda n: n, module=layer.module
    )
    try:  # the channel rule puts its arguments before those of the row
        before = len(entry.rule(context).args) - len(layer.args) + int(entry.takes_repeats)
    except ValueError as error:
        raise ConfigError(where, str(error), fix="correct the row") from error
    position = list(parameters).index(keyword) - before
    if position < 0:
        raise ConfigError(FLAG, f"{keyword} of {layer.module} follows from the row's inputs", fix="leave it out")
    return position, default
