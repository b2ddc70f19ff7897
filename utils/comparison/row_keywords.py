"""Keywords in the rows of a model yaml: which rows one is for, where it stands in a row, and how it is set."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from models.config import LayerSpec, ModelConfig
from models.registry import LayerContext, lookup, registered_names
from models.yolo import DETECT
from utils.errors import ConfigError, did_you_mean

FLAG = "--sweep"


@dataclass(frozen=True, kw_only=True)
class RowKeyword:
    """A keyword of a module, for all rows that are the module, or that hold it within and hand the keyword down.

    Attributes:
        module: name in the yaml, or another name of the same module.
        keyword: argument of its constructor.
        only: only the rows whose keyword has this value now, as ("num_param", 3); None means all.
    """

    module: str
    keyword: str
    only: tuple[str, Any] | None = None

    def set_to(self, config: ModelConfig, value: Any) -> ModelConfig:  # noqa: ANN401
        """Return the config with the keyword set in all rows that are meant.

        Raises:
            ConfigError: the module does not take the keyword, or no row does.
        """
        meant = {layer.index for layer in self.rows(config)}
        layers = tuple(
            _with_keyword(layer, self.keyword, value, where=_where(config, layer)) if layer.index in meant else layer
            for layer in config.layers
        )
        return replace(config, layers=layers)

    def rows(self, config: ModelConfig) -> list[LayerSpec]:
        """Return the rows that are meant.

        Raises:
            ConfigError: a row is the module and does not take the keyword, or no row hands it down to the module.
        """
        own = [layer for layer in _open_rows(config) if self._reaches(layer, where=_where(config, layer))]
        if not own:
            raise self._not_handed_down(config)
        if self.only is None:
            return own
        key, now = self.only
        return [layer for layer in own if _present(layer, key, where=_where(config, layer))[0] == now]

    def told(self, config: ModelConfig) -> str:
        """Return in words what is set: rows 1 3 (AKConv, now 3), 17 (C3_AKConv, now 3).

        Raises:
            ConfigError: as `rows`.
        """
        alike: dict[str, list[str]] = {}
        for layer in self.rows(config):
            now, _ = _present(layer, self.keyword, where=_where(config, layer))
            alike.setdefault(f"({layer.module}, now {now})", []).append(str(layer.index))
        return "rows " + ", ".join(" ".join((*numbers, what)) for what, numbers in alike.items())

    def _reaches(self, layer: LayerSpec, *, where: str) -> bool:
        """Tell whether a row is the module, or hands down to it all keywords in question."""
        entry, module = lookup(layer.module, where=where), lookup(self.module, where=FLAG)
        if entry.factory is module.factory:
            return True
        asked = {self.keyword, *(self.only[:1] if self.only else ())}
        return asked <= set(_handed_down(layer, self.module, where=where))

    def _not_handed_down(self, config: ModelConfig) -> ConfigError:
        """Return the error of a keyword that no row takes for the module."""
        known = dict.fromkeys(
            keyword
            for layer in _open_rows(config)
            for keyword in _handed_down(layer, self.module, where=_where(config, layer))
        )
        asked = [self.keyword, *(self.only[:1] if self.only else ())]
        wrong = next(keyword for keyword in asked if keyword not in known)
        hint = did_you_mean(wrong, known) or f"one of {', '.join(known)}"
        return ConfigError(FLAG, f"no row hands {wrong!r} down to its {self.module}", fix=hint)


def names_within(config: ModelConfig) -> list[str]:
    """Return the names of the modules whose keywords rows have: the rows' own, those within, and their other names."""
    found = {layer.module: lookup(layer.module, where=_where(config, layer)) for layer in _open_rows(config)}
    factories = {entry.factory for entry in found.values()}
    for entry in found.values():
        factories |= {lookup(name, where=FLAG).factory for name in entry.forwards}
    others = [name for name in registered_names() if lookup(name, where=FLAG).factory in factories]
    return list(dict.fromkeys([*found, *others]))


def _open_rows(config: ModelConfig) -> list[LayerSpec]:
    """Return the rows whose arguments are free: Detect has those of the whole yaml."""
    return [layer for layer in config.layers if layer.module != DETECT]


def _where(config: ModelConfig, layer: LayerSpec) -> str:
    return f"{config.name}: layer {layer.index}"


def _handed_down(layer: LayerSpec, module: str, *, where: str) -> Sequence[str]:
    """Return the keywords of a module that a row takes for those within it."""
    factory = lookup(module, where=FLAG).factory
    entry = lookup(layer.module, where=where)
    return [
        keyword
        for name, keywords in entry.forwards.items()
        if lookup(name, where=where).factory is factory
        for keyword in keywords
    ]


def _with_keyword(layer: LayerSpec, keyword: str, value: Any, *, where: str) -> LayerSpec:  # noqa: ANN401
    """Set a keyword in one row: where it stands among the positional arguments, or else by its name."""
    present, position = _present(layer, keyword, where=where)
    if (type(present), present) == (type(value), value):
        return layer
    if position is not None:
        return replace(layer, args=(*layer.args[:position], value, *layer.args[position + 1 :]))
    return replace(layer, kwargs={**layer.kwargs, keyword: value})


def _present(layer: LayerSpec, keyword: str, *, where: str) -> tuple[Any, int | None]:
    """Return the value that a row gives a keyword, and its place if it is a positional argument of the row."""
    position, default = _place(layer, keyword, where=where)
    if position is not None and position < len(layer.args):
        return layer.args[position], position
    return layer.kwargs.get(keyword, default), None


def _place(layer: LayerSpec, keyword: str, *, where: str) -> tuple[int | None, Any]:
    """Return where a keyword stands among a row's own arguments, if it may, and its default.

    The channel rule tells how many arguments it puts before the row's own.

    Raises:
        ConfigError: the module does not take the keyword, or it is one that the channel rule fills in.
    """
    entry = lookup(layer.module, where=where)
    parameters = inspect.signature(entry.factory).parameters
    if keyword not in parameters:
        hint = did_you_mean(keyword, parameters) or f"one of {', '.join(parameters)}"
        raise ConfigError(FLAG, f"{layer.module} takes no {keyword!r}", fix=hint)
    parameter = parameters[keyword]
    default = None if parameter.default is parameter.empty else parameter.default
    if parameter.kind is parameter.KEYWORD_ONLY:
        return None, default
    row = LayerContext(
        in_channels=tuple(8 for _ in layer.sources), args=layer.args, repeats=1, width=lambda n: n, module=layer.module
    )
    try:
        before = len(entry.rule(row).args) - len(layer.args) + int(entry.takes_repeats)
    except ValueError as error:
        raise ConfigError(where, str(error), fix="correct the row") from error
    position = list(parameters).index(keyword) - before
    if position < 0:
        raise ConfigError(FLAG, f"{keyword} of {layer.module} follows from the row's inputs", fix="leave it out")
    return position, default
