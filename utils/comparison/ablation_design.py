"""--ablation: which combinations of named switches are trained, and which switches are on in which model."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from models.config import ModelConfig, load_model_config
from models.overrides import module_names
from models.yolo import DetectionModel
from utils.comparison.candidates import ToTrain
from utils.comparison.sweep import HYP, MAX_VARIANTS, Dimension, parse_sweep, with_value, without_duplicates
from utils.comparison.trained_runs import has_offset_convolutions
from utils.errors import ConfigError
from utils.files import unique_name
from utils.log import LOGGER
from utils.options import CompareOptions
from utils.options.ablation import Switch, parse_switches

MAX_LABEL = 200  # bytes, of which file systems allow 255


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """The switches of an ablation and the models that they make."""

    switches: tuple[str, ...]  # names, in the order of the command line
    # by label of each model of the design, the switches that are on; empty before labels of finished models are known
    on: Mapping[str, frozenset[str]]

    def labelled(self, labels: Mapping[str, str]) -> Ablation:
        """Return the ablation with the labels of the report, given by label of the files.

        Finished models belong to it whose labels are `model` and `model+switch+switch`. A ConfigError is raised if no
        model, or variants of several models, have the switches in their labels.
        """
        if self.on:
            return replace(self, on={labels[label]: on for label, on in self.on.items()})
        names = {Switch(name=name).slug: name for name in self.switches}
        parts = [(label, *label.split("+")) for label in labels.values()]
        known = [(label, stem, on) for label, stem, *on in parts if set(on) <= set(names)]
        stems = sorted({stem for _, stem, on in known if on})
        if len(stems) != 1:
            found = (
                f"the switches are in models of {', '.join(stems)}" if stems else "no model has a switch in its name"
            )
            raise ConfigError("--ablation", found, fix="name the models of --weights by --names: model model+switch")
        on = {label: frozenset(names[slug] for slug in on) for label, stem, on in known if stem == stems[0]}
        return replace(self, on=on)


def combinations(names: Sequence[str], design: str) -> list[tuple[str, ...]]:
    """Return the combinations of a design of `DESIGNS`, first the empty one."""
    counts = range(len(names) + 1)
    match design:
        case "factorial":
            chosen = [chosen for count in counts for chosen in itertools.combinations(names, count)]
        case "one-at-a-time":
            chosen = [(), *((name,) for name in names), tuple(names)]
        case _:
            chosen = [tuple(names[:count]) for count in counts]
    return list(dict.fromkeys(chosen))


def plan_ablation(options: CompareOptions, models: Sequence[ToTrain]) -> tuple[list[ToTrain], Ablation | None]:
    """Return the variants of the last model that --ablation asks for, see `ablation_variants`, and the ablation."""
    switches = parse_switches(options.ablation, need_settings=bool(models))
    if switches and models:
        taken = [model.label for model in models]
        return ablation_variants(models[-1], switches, design=options.design, taken=taken)
    return [], Ablation(switches=tuple(switch.name for switch in switches), on={}) if switches else None


def ablation_variants(
    base: ToTrain, switches: Sequence[Switch], *, design: str, taken: Collection[str] = ()
) -> tuple[list[ToTrain], Ablation]:
    """Return a variant of the base for every combination of the design but the empty one, and what is on in each.

    Combinations in which a switch changes nothing are left out with a warning. `taken` has the labels of other models.
    A ConfigError is raised if a setting is wrong, switches contradict each other, a combination cannot be built, or a
    switch changes nothing anywhere.
    """
    chosen = combinations([switch.name for switch in switches], design)
    if len(chosen) > MAX_VARIANTS:
        what = f"makes {len(chosen)} models, more than {MAX_VARIANTS}"
        raise ConfigError("--ablation", what, fix="use fewer switches, or --design one-at-a-time")
    by_name = {switch.name: switch for switch in switches}
    yamls = {file: load_model_config(file) for switch in switches for file in switch.yamls}
    modules = [name for config in (base.config, *yamls.values()) for name in module_names(config)]
    values = {switch.name: _dimensions(switch, modules) for switch in switches}
    variants: list[ToTrain] = []
    on: dict[str, frozenset[str]] = {base.label: frozenset()}
    for names in chosen[1:]:
        label = unique_name("+".join([base.label, *(by_name[name].slug for name in names)]), [*taken, *on])
        if len(label.encode()) > MAX_LABEL:
            raise ConfigError("--ablation", f"makes the long name {label}", fix="give the switches shorter names")
        config = _placed(base.config, {name: [yamls[file] for file in by_name[name].yamls] for name in names})
        variant = replace(base, config=replace(config, name=f"{label}.yaml", path=""), label=label, cfg="")
        if config != base.config:
            variant = replace(variant, has_offsets=has_offset_convolutions(DetectionModel(variant.config)))
        for name in names:
            with _named(name):
                for dimension in values[name]:
                    if dimension.target.module in (HYP, *module_names(variant.config)):
                        variant = with_value(variant, dimension.target, dimension.values[0])
        variants.append(replace(variant, hyp=base.hyp if variant.hyperparameters == base.hyperparameters else ""))
        on[label] = frozenset(names)
    variants = without_duplicates(base, variants, flag="--ablation")
    on = {model.label: on[model.label] for model in (base, *variants)}
    for name in by_name:
        if not any(name in names for names in on.values()):
            raise ConfigError("--ablation", f"{name} changes nothing in the model", fix="correct its setting")
    LOGGER.info(f"--ablation, {design}: {', '.join(on)}")
    return variants, Ablation(switches=tuple(by_name), on=on)


def _dimensions(switch: Switch, modules: Sequence[str]) -> list[Dimension]:
    with _named(switch.name):
        return [dimension for pair in switch.values for dimension in parse_sweep(pair, modules)]


@contextlib.contextmanager
def _named(switch: str) -> Iterator[None]:
    """Let errors of --sweep name the switch."""
    try:
        yield
    except ConfigError as error:
        if error.where != "--sweep":
            raise
        raise ConfigError(f"--ablation {switch}", error.what, fix=error.fix) from error


def _placed(base: ModelConfig, yamls: Mapping[str, Sequence[ModelConfig]]) -> ModelConfig:
    """Return the base with the rows and values in which the yamls of switches differ from it.

    A yaml with another number of rows replaces all rows. A ConfigError is raised if two yamls change the same.
    """
    parts = _parts(base)
    changed: dict[Any, Any] = {}
    for switch, config in ((switch, config) for switch, configs in yamls.items() for config in configs):
        own = _parts(config)
        if own["rows"] == parts["rows"]:
            differing = {key: value for key, value in own.items() if value != parts[key]}
        else:
            differing = {key: own.get(key) for key in {**parts, **own}}
        if any(changed[key] != value for key, value in differing.items() if key in changed):
            what = f"{config.where} changes rows that another yaml changes too, or their number"
            raise ConfigError(f"--ablation {switch}", what, fix="combine the yamls in one switch's yaml")
        changed |= differing
    if not changed:
        return base
    parts |= changed
    backbone, head = parts.pop("rows")
    rows = [parts.pop(index) for index in [key for key in parts if isinstance(key, int)]][: backbone + head]
    return ModelConfig.from_dict({**parts, "backbone": rows[:backbone], "head": rows[backbone:]}, name=base.name)


def _parts(config: ModelConfig) -> dict[Any, Any]:
    """Return the values of a model yaml by key, its rows by index, and under `rows` how many backbone and head have."""
    content = config.to_dict()
    backbone, head = content.pop("backbone"), content.pop("head")
    return {**content, "rows": (len(backbone), len(head)), **dict(enumerate(backbone + head))}
