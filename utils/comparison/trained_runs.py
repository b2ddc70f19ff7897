"""Finished weights as candidates of a comparison: runs that were trained alike but for the seed are one model."""

from __future__ import annotations

import glob
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models.config import ModelConfig
from utils.comparison.candidates import (
    COMPARED_BY_CONTENT,
    NON_SEMANTIC_OPTIONS,
    OFFSET_LR,
    Candidate,
    learns_offsets,
)
from utils.comparison.config_diff import differing_training_args
from utils.comparison.logs import epochs_done, run_folder
from utils.errors import CheckpointError, ConfigError
from utils.files import unique_name
from utils.inference.class_mapping import class_name_mismatch
from utils.options import CompareOptions
from utils.weights.checkpoint import load_checkpoint, load_model

BEST = Path("weights", "best.pt")
SEED_IN_NAME = re.compile(r"[-_. ]*seed[-_=]?\d+(?=-last$|$)", re.IGNORECASE)
MAGIC = re.compile(r"[*?\[]")
# Flags of compare.py that only a training obeys.
TRAINING_FLAGS = (
    "hyp",
    "epochs",
    "optimizer",
    "cos_lr",
    "patience",
    "cache",
    "noplots",
    "seed",
    "seeds",
    "jobs",
    "no_amp",
)


@dataclass(kw_only=True)
class _Group:
    """Weights that differ in nothing but the seed: what they share, and the file of each seed."""

    config: ModelConfig
    names: tuple[str, ...]
    options: Mapping[str, Any]
    hyperparameters: Mapping[str, float]
    runs: list[tuple[int | None, Path]] = field(default_factory=list)


def from_weights(words: Sequence[str], *, names: Sequence[str], taken: Sequence[str] = ()) -> list[Candidate]:
    """Read finished weights; those trained alike but for the seed become one model with several seeds.

    Alike are: the network, its class names, the numbers of the hyperparameter yaml, and all options of train.py but
    those that do not change what is learned. Where files lie and what they are called does not count.

    Args:
        words: checkpoints, folders of runs, or patterns of these; see `checkpoint_files`.
        names: classes of the data set.
        taken: labels of others.

    Returns:
        In the order of their first files; the weights of each by seed.

    Raises:
        CheckpointError: a file is missing, damaged, or stands twice.
        ConfigError: a model tells other classes apart than the data set.
    """
    groups: dict[str, _Group] = {}
    known: set[Path] = set()
    for path in checkpoint_files(words):
        content = load_checkpoint(path)
        if path.resolve() in known:
            raise CheckpointError(path, "stands twice among --weights", fix="leave one out")
        known.add(path.resolve())
        model, classes = load_model(path, content=content)
        stored = content.get("options") or {}
        if len(classes) != (1 if stored.get("single_cls") else len(names)):
            raise ConfigError(path, f"tells {len(classes)} classes, but --data has {len(names)}", fix="pass its --data")
        hyperparameters = content.get("hyperparameters") or {}
        seed = int(stored["seed"]) if "seed" in stored else None
        counted = {key: value for key, value in hyperparameters.items() if key != OFFSET_LR or learns_offsets(model)}
        key = _recipe(model.config, classes, stored, counted)
        if seed is None or (key in groups and seed in [other for other, _ in groups[key].runs]):
            key = str(path)
        fresh = _Group(config=model.config, names=classes, options=stored, hyperparameters=hyperparameters)
        groups.setdefault(key, fresh).runs.append((seed, path))
    candidates: list[Candidate] = []
    for group in groups.values():
        runs = sorted(group.runs, key=lambda run: -1 if run[0] is None else run[0])
        label = _label([path for _, path in runs], group.config)
        candidates.append(
            Candidate(
                label=unique_name(label, [*taken, *(c.label for c in candidates)]),
                config=group.config,
                hyperparameters=group.hyperparameters,
                weights=tuple(path for _, path in runs),
                seeds=tuple(seed for seed, _ in runs),
                data=str(group.options.get("data", "")),
                options=group.options,
                disagreement="" if group.options.get("single_cls") else class_name_mismatch(names, group.names),
            )
        )
    return candidates


def reject_unsupported_options(options: CompareOptions, given: Collection[str]) -> None:
    """Check that no flag is given for trainings where there is nothing to train.

    Args:
        options: of compare.py.
        given: names of those that were given.

    Raises:
        ConfigError: names the flags.
    """
    idle = [f"--{name.replace('_', '-')}" for name in TRAINING_FLAGS if name in given]
    if idle and not options.cfg:
        raise ConfigError(", ".join(idle), "changes nothing in finished --weights", fix="leave it out, or add --cfg")


def one_class(candidates: Sequence[Candidate], names: Sequence[str]) -> bool:
    """Tell whether the models take all classes of a data set for one, as train.py does with --single-cls.

    Args:
        candidates: of the comparison.
        names: classes of the data set.

    Raises:
        ConfigError: some models do and others do not, so that their figures have nothing in common.
    """
    if len(names) == 1:
        return False
    labels = {bool(candidate.options.get("single_cls")): candidate.label for candidate in candidates}
    if len(labels) == 2:
        what = f"{labels[True]} was trained with --single-cls, but {labels[False]} tells {len(names)} classes apart"
        raise ConfigError("--weights", what, fix="compare models of one kind")
    return True in labels


def checkpoint_files(words: Sequence[str]) -> list[Path]:
    """Return the checkpoints that are meant by what stands after --weights.

    Args:
        words: checkpoints; folders of runs, whose `weights/best.pt` is taken; or patterns, where no shell has put
            names in their place. A log beside the folder of its run is left out, as `runs/model-seed*` names both.

    Raises:
        CheckpointError: a folder holds no checkpoint, or a pattern fits nothing.
    """
    found: list[Path] = []
    for word in words:
        paths = [Path(word)]
        if MAGIC.search(word) and not paths[0].exists():
            paths = [Path(name) for name in sorted(glob.glob(word))]
            if not paths:
                raise CheckpointError(word, "fits no file or folder", fix="correct --weights")
        for path in paths:
            if path.is_dir():
                found.append(_best_of(path))
            elif path.suffix != ".log" or not path.with_suffix("").is_dir():
                found.append(path)
    return found


def _best_of(folder: Path) -> Path:
    for path in (folder / BEST, folder / BEST.name):
        if path.is_file():
            return path
    raise CheckpointError(folder, f"holds no {BEST}", fix="train it, or leave it out")


def doubts(candidates: Sequence[Candidate], *, summary: str, planned: Mapping[str, Any]) -> list[str]:
    """Return all warnings about finished weights; `summary` as in `unfinished`, `planned` as in `options_of`."""
    return [
        *unfinished(candidates, summary=summary),
        *differing_training_args(candidates, planned),
        *(f"{one.label}: {one.disagreement}." for one in candidates if one.disagreement),
    ]


def unfinished(candidates: Sequence[Candidate], *, summary: str) -> list[str]:
    """Say which finished weights are none: they lie in the folder of a training that did not come to its end.

    Args:
        candidates: of the comparison.
        summary: name of the file that train.py writes last.
    """
    found = []
    for candidate in candidates:
        for path in candidate.weights:
            folder = run_folder(path)
            if folder is not None and (folder / "opt.yaml").is_file() and not (folder / summary).is_file():
                epochs = candidate.options.get("epochs", "?")
                found.append(f"{folder.name} ({epochs_done(folder)} of {epochs} epochs)")
    if not found:
        return []
    return [f"Not trained to the end: {', '.join(found)}. Figures of these runs are not their last word."]


def _recipe(config: ModelConfig, names: Sequence[str], options: Mapping[str, Any], hyperparameters: object) -> str:
    """Return a text that is equal for runs that differ in the seed alone."""
    kept = {key: value for key, value in options.items() if key not in NON_SEMANTIC_OPTIONS | COMPARED_BY_CONTENT}
    plain = config.to_dict() | {"anchors": None}  # fitted anchors may differ
    return json.dumps([plain, names, kept, hyperparameters], sort_keys=True, default=str)


def _label(paths: Sequence[Path], config: ModelConfig) -> str:
    """Return the name that runs share but for the seed, else the model yaml's; of one run, its own."""
    names = [_run_name(path) for path in paths]
    if len(names) == 1:
        return names[0]
    shared = {SEED_IN_NAME.sub("", name) for name in names}
    return shared.pop() if len(shared) == 1 and "" not in shared else Path(config.name).stem


def _run_name(path: Path) -> str:
    """Return what a checkpoint is called: its run's folder, with its own name unless that is `best`; or that alone."""
    folder = run_folder(path)
    if folder is None:
        return path.stem
    return folder.name if path.stem == BEST.stem else f"{folder.name}-{path.stem}"
