"""--sweep: variants of a model that differ in a keyword of a module, in a hyperparameter, or in several at once."""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from models.config import LayerSpec, ModelConfig, literal
from models.registry import Row, lookup
from utils.engine.contestants import distinct, has_offsets
from utils.engine.hyperparameters import check_hyperparameters
from utils.errors import ConfigError, did_you_mean

DIMENSION = re.compile(r"(?P<module>[A-Za-z_][\w.]*)(?:@(?P<key>\w+)=(?P<now>[^.]+))?\.(?P<keyword>[A-Za-z_]\w*)")
EXAMPLE = "write --sweep AKConv.num_param 3 5 9"
HYP = "hyp"  # stands where a module does, for the hyperparameters
MAX_VARIANTS = 100


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """One thing that varies.

    Attributes:
        module: name in the yaml, or `hyp`.
        keyword: argument of its constructor, or a hyperparameter.
        values: to try.
        only: change only the rows whose keyword has this value now, as ("num_param", 3); None changes all.
    """

    module: str
    keyword: str
    values: tuple[Any, ...]
    only: tuple[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One combination of values: its name, the model, and all hyperparameters."""

    label: str
    config: ModelConfig
    hyperparameters: Mapping[str, float]


def parse_sweep(words: Sequence[str], known: Sequence[str]) -> list[Dimension]:
    """Read `AKConv.num_param 3 5 9 AKConv.padding border zeros`: a name, then its values, and again.

    `AKConv@num_param=3.points centered` changes only the rows where num_param is 3; `hyp.offset_lr 0.1 1.0` varies a
    hyperparameter.

    Args:
        words: as given.
        known: modules in the yaml; a word that names one of them, or `hyp`, starts the next dimension.

    Raises:
        ConfigError: no module of that name in the yaml, or no values.
    """
    known = [*known, HYP]
    found: list[tuple[re.Match[str], list[Any]]] = []
    for word in words:
        match = DIMENSION.fullmatch(word)
        if match is not None and (match["module"] in known or not found):
            found.append((match, []))
        elif found:
            found[-1][1].append(literal(word))
        else:
            raise ConfigError("--sweep", f"begins with {word!r}, no Module.keyword", fix=EXAMPLE)
    for match, values in found:
        if match["module"] not in known:
            hint = did_you_mean(match["module"], known) or f"one of {', '.join(sorted(set(known)))}"
            raise ConfigError("--sweep", f"the model has no {match['module']}", fix=hint)
        if not values:
            raise ConfigError("--sweep", f"{match[0]} has no values", fix=EXAMPLE)
    return [
        Dimension(
            module=match["module"],
            keyword=match["keyword"],
            values=tuple(values),
            only=(match["key"], literal(match["now"])) if match["key"] else None,
        )
        for match, values in found
    ]


def variants(
    base: ModelConfig, words: Sequence[str], *, hyperparameters: Mapping[str, float], taken: Sequence[str] = ()
) -> list[Variant]:
    """Return every combination of values, without those equal to the base.

    Args:
        base: the model to vary.
        words: of --sweep.
        hyperparameters: all numbers the base is trained with.
        taken: labels of others.

    Raises:
        ConfigError: the words are wrong, the module does not take the keyword, there is no such hyperparameter or not
            with such a value, or nothing would change.
    """
    dimensions = parse_sweep(words, [layer.module for layer in base.layers])
    useless = {"offset_lr"} if any(d.module == HYP for d in dimensions) and not has_offsets(base) else set()
    stem = base.name.removesuffix(".yaml")
    found: list[Variant] = []
    seen = [_learned(base, hyperparameters, useless)]
    for values in itertools.product(*(dimension.values for dimension in dimensions)):
        config, numbers, parts = base, dict(hyperparameters), [stem]
        for dimension, value in zip(dimensions, values, strict=True):
            if dimension.module == HYP:
                numbers = asdict(check_hyperparameters({**numbers, dimension.keyword: value}, where="--sweep"))
            else:
                config = _changed(config, dimension, value)
            parts.append(f"{dimension.keyword}-{_file_name(value)}")
        if _learned(config, numbers, useless) in seen:
            continue
        seen.append(_learned(config, numbers, useless))
        label = distinct("-".join(parts), [*taken, *(variant.label for variant in found)])
        found.append(Variant(label=label, config=replace(config, name=f"{label}.yaml"), hyperparameters=numbers))
    if not found:
        told = "; its offset_lr is for AKConv's offset convolutions, and it has none" if useless else ""
        raise ConfigError("--sweep", f"changes nothing in the model{told}", fix="give other values")
    if len(found) > MAX_VARIANTS:
        raise ConfigError("--sweep", f"makes {len(found)} models, more than {MAX_VARIANTS}", fix="give fewer values")
    return found


def _learned(config: ModelConfig, numbers: Mapping[str, float], useless: set[str]) -> list[dict[str, Any]]:
    """Return all that decides what a run learns."""
    return [config.to_dict(), {key: value for key, value in numbers.items() if key not in useless}]


def _changed(config: ModelConfig, dimension: Dimension, value: Any) -> ModelConfig:  # noqa: ANN401
    """Return the config with a keyword of a module set in all rows that are meant."""
    layers = tuple(
        _with_keyword(layer, dimension, value, where=f"{config.name}: layer {layer.index}")
        if layer.module == dimension.module
        else layer
        for layer in config.layers
    )
    return replace(config, layers=layers)


def _with_keyword(layer: LayerSpec, dimension: Dimension, value: Any, *, where: str) -> LayerSpec:  # noqa: ANN401
    """Set a keyword in one row: where it stands among the positional arguments, or else by its name."""
    if dimension.only is not None and _present(layer, dimension.only[0], where=where)[0] != dimension.only[1]:
        return layer
    present, position = _present(layer, dimension.keyword, where=where)
    if (type(present), present) == (type(value), value):
        return layer
    if position is not None:
        return replace(layer, args=(*layer.args[:position], value, *layer.args[position + 1 :]))
    return replace(layer, kwargs={**layer.kwargs, dimension.keyword: value})


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
        raise ConfigError("--sweep", f"{layer.module} takes no {keyword!r}", fix=hint)
    parameter = parameters[keyword]
    default = None if parameter.default is parameter.empty else parameter.default
    if parameter.kind is parameter.KEYWORD_ONLY:
        return None, default
    row = Row(
        in_channels=tuple(8 for _ in layer.sources), args=layer.args, repeats=1, width=lambda n: n, module=layer.module
    )
    try:
        before = len(entry.rule(row).args) - len(layer.args) + int(entry.takes_repeats)
    except ValueError as error:
        raise ConfigError(where, str(error), fix="correct the row") from error
    position = list(parameters).index(keyword) - before
    if position < 0:
        raise ConfigError("--sweep", f"{keyword} of {layer.module} follows from the row's inputs", fix=EXAMPLE)
    return position, default


def _file_name(value: Any) -> str:  # noqa: ANN401
    """Return a value as part of a file name: letters, digits, dots and commas."""
    text = re.sub(r"[^\w.,+-]+", "", str(value).replace(" ", "").replace("),(", "+").replace("],[", "+"))
    return text[:60] or "none"
