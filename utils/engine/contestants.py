"""Who takes part in a comparison: model yamls to be trained, and finished weights."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models.config import ModelConfig, load_model_config
from models.yolo import DetectionModel
from utils.engine.checkpoint import load_checkpoint, load_model
from utils.errors import CheckpointError, ConfigError
from utils.files import dump_yaml, load_yaml

# Settings that do not change what a run learns.
FREE_OPTIONS = frozenset(
    ("project", "name", "exist_ok", "resume", "device", "workers", "cache", "noplots", "nosave", "save_period")
)


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """One model of a comparison.

    Attributes:
        label: short distinct name.
        cfg: model yaml to train; empty for finished weights.
        config: the checked yaml.
        weights: finished checkpoints, one for each seed; empty for a yaml.
        data: data yaml the weights were trained on, as far as is known.
    """

    label: str
    cfg: str = ""
    config: ModelConfig
    weights: tuple[Path, ...] = ()
    data: str = ""


@dataclass(kw_only=True)
class _Group:
    """Weights that differ in nothing but the seed."""

    paths: list[Path] = field(default_factory=list)
    seeds: set[int] = field(default_factory=set)
    config: ModelConfig
    data: str


def from_configs(cfgs: Sequence[str], *, taken: Sequence[str] = ()) -> list[Contestant]:
    """Check model yamls and name them apart.

    Raises:
        ConfigError: a yaml does not exist, or cannot be built.
    """
    contestants: list[Contestant] = []
    for cfg in cfgs:
        config = load_model_config(cfg)
        require_buildable(config)
        label = distinct(Path(cfg).stem, [*taken, *(c.label for c in contestants)])
        contestants.append(Contestant(label=label, cfg=cfg, config=config))
    return contestants


def require_buildable(config: ModelConfig) -> None:
    """Build the network once, so that a wrong row is told before the first hour of training.

    Raises:
        ConfigError: it cannot be built.
    """
    DetectionModel(config)


def from_weights(paths: Sequence[str], *, names: Sequence[str], taken: Sequence[str] = ()) -> list[Contestant]:
    """Read finished weights; those trained alike but for the seed become one model with several seeds.

    Args:
        paths: checkpoints.
        names: classes of the data set.
        taken: labels of others.

    Raises:
        CheckpointError: a file is missing, damaged, or stands twice.
        ConfigError: a model tells other classes apart than the data set.
    """
    groups: dict[str, _Group] = {}
    known: set[Path] = set()
    for name in paths:
        path = Path(name)
        content = load_checkpoint(path)
        if path.resolve() in known:
            raise CheckpointError(path, "stands twice among --weights", fix="leave one out")
        known.add(path.resolve())
        model, classes = load_model(path, content=content)
        stored = content.get("options") or {}
        if len(classes) != (1 if stored.get("single_cls") else len(names)):
            raise ConfigError(path, f"tells {len(classes)} classes, but --data has {len(names)}", fix="pass its --data")
        seed = int(stored.get("seed", 0))
        key = _recipe(model.config, stored, content.get("hyperparameters"))
        if not stored or (key in groups and seed in groups[key].seeds):
            key = str(path)
        group = groups.setdefault(key, _Group(config=model.config, data=str(stored.get("data", ""))))
        group.paths.append(path)
        group.seeds.add(seed)
    contestants: list[Contestant] = []
    for group in groups.values():
        label = _run_name(group.paths[0]) if len(group.paths) == 1 else Path(group.config.name).stem
        label = distinct(label, [*taken, *(c.label for c in contestants)])
        contestants.append(Contestant(label=label, config=group.config, weights=tuple(group.paths), data=group.data))
    return contestants


def differing_rows(config: ModelConfig, baseline: ModelConfig) -> list[str]:
    """Say in words what a model's yaml has otherwise than the baseline's: rows as far as they can be paired."""
    if len(config.layers) != len(baseline.layers):
        return [f"{len(config.layers)} rows instead of {len(baseline.layers)}"]
    ours, theirs = config.to_dict(), baseline.to_dict()
    found = [
        f"{key}: {theirs[key]} -> {ours[key]}"
        for key in ours
        if key not in ("backbone", "head", "nc") and ours[key] != theirs[key]
    ]
    rows = zip(ours["backbone"] + ours["head"], theirs["backbone"] + theirs["head"], strict=True)
    for number, (row, other) in enumerate(rows):
        if row != other:
            found.append(f"row {number}: {' '.join(map(str, other[2:]))} -> {' '.join(map(str, row[2:]))}")
    return found


def _recipe(config: ModelConfig, options: Mapping[str, Any], hyperparameters: object) -> str:
    """Return a text that is equal for runs that differ in the seed alone."""
    kept = {key: value for key, value in options.items() if key not in FREE_OPTIONS | {"seed"}}
    plain = config.to_dict() | {"anchors": None}  # fitted anchors may differ
    return json.dumps([plain, kept, hyperparameters], sort_keys=True, default=str)


def _run_name(path: Path) -> str:
    """Return what a checkpoint is called: its run's folder, or the file itself."""
    parent = path.resolve().parent
    return parent.parent.name if parent.name == "weights" and parent.parent.name else path.stem


def distinct(stem: str, taken: Sequence[str]) -> str:
    """Return `stem`, or `stem-again1`, `stem-again2`... when it is taken."""
    if stem not in taken:
        return stem
    number = 1
    while f"{stem}-again{number}" in taken:
        number += 1
    return f"{stem}-again{number}"


def keep_configs(folder: Path, contestants: Sequence[Contestant]) -> None:
    """Write each yaml as it was read to `configs/`, so that a folder never mixes runs of two versions of a file.

    Raises:
        ConfigError: the folder holds another version.
    """
    for contestant in contestants:
        if not contestant.cfg:
            continue
        path = folder / "configs" / f"{contestant.label}.yaml"
        plain = contestant.config.to_dict()
        if not path.is_file():
            dump_yaml(path, plain)
        elif ModelConfig.from_dict(load_yaml(path), name=path.name).to_dict() != plain:
            raise ConfigError(
                contestant.cfg, f"has changed since the runs in {folder} were started", fix="choose another --name"
            )
