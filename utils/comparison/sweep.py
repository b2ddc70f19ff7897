"""--sweep: variants of a model that differ in a keyword of a module, in a hyperparameter, or in several at once."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from models.config import ModelConfig, literal
from utils.comparison.candidates import has_offsets
from utils.comparison.network_fingerprint import network_fingerprint
from utils.comparison.row_keywords import RowKeyword, names_within
from utils.errors import ConfigError, did_you_mean
from utils.files import unique_name
from utils.log import LOGGER
from utils.options.hyperparameters import check_hyperparameters

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

    @property
    def row_keyword(self) -> RowKeyword:
        """What to set in the rows of a yaml; of no use for `hyp`."""
        return RowKeyword(module=self.module, keyword=self.keyword, only=self.only)


@dataclass(frozen=True, kw_only=True)
class SweepVariant:
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
        known: modules of the model; a word that names one of them, or `hyp`, starts the next dimension.

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
            raise ConfigError("--sweep", f"the model has no {match['module']} to vary", fix=hint)
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
) -> list[SweepVariant]:
    """Return every combination of values, without those that would train to the same bits as the base or another.

    The log says which rows each keyword is set in, and which combinations are left out though their yaml differs.

    Args:
        base: the model to vary.
        words: of --sweep.
        hyperparameters: all numbers the base is trained with.
        taken: labels of others.

    Raises:
        ConfigError: the words are wrong, the module does not take the keyword, there is no such hyperparameter or not
            with such a value, a combination cannot be built, or nothing would change.
    """
    dimensions = parse_sweep(words, names_within(base))
    useless = {"offset_lr"} if any(d.module == HYP for d in dimensions) and not has_offsets(base) else set()
    stem = base.name.removesuffix(".yaml")
    found: list[SweepVariant] = []
    seen: list[Any] = [(base.to_dict(), _meaningful(hyperparameters, useless))]
    for values in itertools.product(*(dimension.values for dimension in dimensions)):
        config, numbers, parts = base, dict(hyperparameters), [stem]
        for dimension, value in zip(dimensions, values, strict=True):
            if dimension.module == HYP:
                numbers = asdict(check_hyperparameters({**numbers, dimension.keyword: value}, where="--sweep"))
            else:
                config = dimension.row_keyword.set_to(config, value)
            parts.append(f"{dimension.keyword}-{_file_name(value)}")
        words_of_it = config.to_dict(), _meaningful(numbers, useless)
        if words_of_it in seen:
            continue
        seen.append(words_of_it)
        label = unique_name("-".join(parts), [*taken, *(variant.label for variant in found)])
        found.append(SweepVariant(label=label, config=replace(config, name=f"{label}.yaml"), hyperparameters=numbers))
    if not found:
        told = "; its offset_lr is for AKConv's offset convolutions, and it has none" if useless else ""
        raise _changes_nothing(told)
    if len(found) > MAX_VARIANTS:
        raise ConfigError("--sweep", f"makes {len(found)} models, more than {MAX_VARIANTS}", fix="give fewer values")
    for dimension in dimensions:
        if dimension.module != HYP:
            only = f"@{dimension.only[0]}={dimension.only[1]}" if dimension.only else ""
            name = f"{dimension.module}{only}.{dimension.keyword}"
            LOGGER.info(f"--sweep {name} sets {dimension.row_keyword.told(base)}")
    return _without_twins(SweepVariant(label=stem, config=base, hyperparameters=hyperparameters), found, useless)


def _meaningful(numbers: Mapping[str, float], useless: set[str]) -> dict[str, float]:
    """Return the hyperparameters without those that change nothing in this model."""
    return {key: value for key, value in numbers.items() if key not in useless}


def _without_twins(start: SweepVariant, found: Sequence[SweepVariant], useless: set[str]) -> list[SweepVariant]:
    """Return the variants of which none builds the same network as one before it with the same hyperparameters.

    A twin would train to the same bits in every seed, and count as one more model in the correction of the verdicts.

    Args:
        start: what all are varied from, not returned itself.
        found: different in their words.
        useless: hyperparameters that mean nothing here.

    Raises:
        ConfigError: none is left, or one cannot be built.
    """
    kept: list[SweepVariant] = []
    trained: list[tuple[str, Any]] = []
    left_out: list[str] = []
    for variant in (start, *found):
        trains = network_fingerprint(variant.config), _meaningful(variant.hyperparameters, useless)
        twin = next((label for label, other in trained if other == trains), None)
        if twin is not None:
            left_out.append(f"{variant.label} would train to the same bits as {twin}")
            continue
        trained.append((variant.label, trains))
        kept.append(variant)
    if len(kept) == 1:
        raise _changes_nothing(f": {'; '.join(left_out)}")
    for told in left_out:
        LOGGER.warning(f"--sweep: left out, {told}")
    return kept[1:]


def _changes_nothing(told: str) -> ConfigError:
    return ConfigError("--sweep", f"changes nothing in the model{told}", fix="give other values")


def _file_name(value: Any) -> str:  # noqa: ANN401
    """Return a value as part of a file name: letters, digits, dots and commas."""
    text = re.sub(r"[^\w.,+-]+", "", str(value).replace(" ", "").replace("),(", "+").replace("],[", "+"))
    return text[:60] or "none"
