"""--sweep: variants of a model that differ in a module's keyword, a hyperparameter, or several of these."""

from __future__ import annotations

import hashlib
import itertools
import re
import types
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from models.config import ModelConfig, literal
from models.overrides import RowKeyword, module_names
from models.sampling.layer_kernel import LayerKernel
from models.yolo import DetectionModel
from utils.comparison.candidates import ToTrain
from utils.comparison.trained_runs import OFFSET_LR
from utils.errors import ConfigError, did_you_mean
from utils.files import unique_name
from utils.log import LOGGER
from utils.options.hyperparameters import check_hyperparameters

DIMENSION = re.compile(r"(?P<module>[A-Za-z_][\w.]*)(?:@(?P<key>\w+)=(?P<now>[^.]+))?\.(?P<keyword>[A-Za-z_]\w*)")
EXAMPLE = "write --sweep AKConv.num_param 3 5 9"
HYP = "hyp"  # in place of a module: the keyword is a hyperparameter
MAX_VARIANTS = 100
PLAIN = (type(None), bool, int, float, str, bytes, torch.dtype, torch.device, type, types.FunctionType)


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """One argument of --sweep with its values."""

    name: str  # as the user wrote it
    target: RowKeyword  # a module's keyword; if the module is `hyp`, a hyperparameter
    values: list[Any] = field(default_factory=list)  # to try


def parse_sweep(words: Sequence[str], modules: Sequence[str]) -> list[Dimension]:
    """Parse `AKConv.num_param 3 5 9 AKConv.padding border zeros`: names, each followed by its values.

    `AKConv@num_param=3.points centered` changes only rows in which num_param is 3; `hyp.offset_lr 0.1 1.0` varies a
    hyperparameter. Only a word that starts with a module of the model, or with `hyp`, starts the next dimension. A
    ConfigError names a module that is not in the model, and a name without values.
    """
    known = [*modules, HYP]
    dimensions: list[Dimension] = []
    for word in words:
        match = DIMENSION.fullmatch(word)
        if match is None or (match["module"] not in known and dimensions):
            if not dimensions:
                raise ConfigError("--sweep", f"begins with {word!r}, which is not Module.keyword", fix=EXAMPLE)
            dimensions[-1].values.append(literal(word))
            continue
        if match["module"] not in known:
            hint = did_you_mean(match["module"], known) or f"use one of {', '.join(sorted(set(known)))}"
            raise ConfigError("--sweep", f"the model has no {match['module']} to vary", fix=hint)
        only = (match["key"], literal(match["now"])) if match["key"] else None
        target = RowKeyword(module=match["module"], keyword=match["keyword"], only=only)
        dimensions.append(Dimension(name=word, target=target))
    empty = next((dimension.name for dimension in dimensions if not dimension.values), None)
    if empty is not None:
        raise ConfigError("--sweep", f"{empty} has no values", fix=EXAMPLE)
    return dimensions


def sweep_variants(base: ToTrain, words: Sequence[str], *, taken: Collection[str] = ()) -> list[ToTrain]:
    """Return a variant of a model for every combination of values, except those that train to the same bits as another.

    The log lists the rows in which each keyword is set, and the combinations that are skipped although their yaml
    differs. `taken` has the labels of other models. A ConfigError is raised if the words are wrong, the module does not
    take the keyword, the hyperparameter not the value, a combination cannot be built, or nothing changes.
    """
    dimensions = parse_sweep(words, module_names(base.config))
    stem = base.config.name.removesuffix(".yaml")
    variants: list[ToTrain] = []
    seen = [base.content]
    for values in itertools.product(*(dimension.values for dimension in dimensions)):
        variant, parts = base, [stem]
        for dimension, value in zip(dimensions, values, strict=True):
            variant = with_value(variant, dimension.target, value)
            parts.append(f"{dimension.target.keyword}-{_file_name(value)}")
        if variant.content in seen:
            continue
        seen.append(variant.content)
        label = unique_name("-".join(parts), [*taken, *(other.label for other in variants)])
        hyp = base.hyp if variant.hyperparameters == base.hyperparameters else ""
        config = replace(variant.config, name=f"{label}.yaml", path="")
        variants.append(replace(variant, label=label, cfg="", config=config, hyp=hyp))
    if len(variants) > MAX_VARIANTS:
        raise ConfigError("--sweep", f"makes {len(variants)} models, more than {MAX_VARIANTS}", fix="give fewer values")
    for dimension in dimensions:
        if dimension.target.module != HYP:
            LOGGER.info(f"--sweep {dimension.name} sets {dimension.target.describe(base.config)}")
    kept = without_duplicates(replace(base, label=stem), variants, flag="--sweep")
    if not kept:
        ineffective = not base.has_offsets and any(d.target.keyword == OFFSET_LR for d in dimensions)
        reason = f"; {OFFSET_LR} applies to AKConv's offset convolutions only" if ineffective else ""
        raise ConfigError("--sweep", f"changes nothing in the model{reason}", fix="give other values")
    return kept


def with_value(model: ToTrain, target: RowKeyword, value: Any) -> ToTrain:  # noqa: ANN401
    """Return the model with a keyword or hyperparameter set; a ConfigError is raised if it does not take the value."""
    if target.module != HYP:
        return replace(model, config=target.set_to(model.config, value))
    changed = check_hyperparameters({**model.hyperparameters, target.keyword: value}, where="--sweep")
    return replace(model, hyperparameters=asdict(changed))


def without_duplicates(base: ToTrain, variants: Sequence[ToTrain], *, flag: str) -> list[ToTrain]:
    """Return the variants without those whose network and hyperparameters equal the base's or an earlier variant's.

    A duplicate would train to the same bits with every seed, and count as one more model in the correction of p-values.
    Each is a warning that names the flag.
    """
    kept: list[ToTrain] = []
    fingerprints: list[Any] = []
    for model in (base, *variants):
        fingerprint = network_fingerprint(model.config), model.content[1]
        if fingerprint in fingerprints:
            equal = kept[fingerprints.index(fingerprint)]
            LOGGER.warning(f"{flag}: skipped, {model.label} would train to the same bits as {equal.label}")
        else:
            kept.append(model)
            fingerprints.append(fingerprint)
    return kept[1:]


def _file_name(value: Any) -> str:  # noqa: ANN401
    """Return a value as part of a file name: letters, digits, and a few signs."""
    text = re.sub(r"[^\w.,+-]+", "", str(value).replace(" ", "").replace("),(", "+").replace("],[", "+"))
    return text[:60] or "none"


def network_fingerprint(config: ModelConfig) -> list[Any]:
    """Return a value that is equal for configs whose networks train to the same bits, however their yamls word it.

    It holds the name, class and attributes of each module in order, and the bits of its parameters and buffers as drawn
    with one seed. An attribute that cannot be compared differs from all others: training a duplicate costs less than
    missing a variant. A ConfigError is raised if the network cannot be built.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        network = DetectionModel(config).model
    return [
        (name, type(module), _comparable({key: value for key, value in vars(module).items() if key != "_modules"}))
        for name, module in network.named_modules()
    ]


def _comparable(value: object) -> Any:  # noqa: ANN401
    """Return a value that compares equal to that of another object only if the two mean the same."""
    if isinstance(value, Tensor):
        octets = value.detach().cpu().flatten().view(torch.uint8).numpy().tobytes()
        return value.dtype, tuple(value.shape), value.requires_grad, hashlib.sha256(octets).digest()
    if isinstance(value, LayerKernel):  # packed weights, which follow from the parameters
        return LayerKernel
    if isinstance(value, PLAIN):
        return type(value), value
    if isinstance(value, (list, tuple)):
        return type(value), [_comparable(item) for item in value]
    if isinstance(value, dict):
        return type(value), [(_comparable(key), _comparable(item)) for key, item in value.items()]
    if isinstance(value, (set, frozenset)):
        return type(value), value if all(isinstance(item, PLAIN) for item in value) else object()
    return object()
