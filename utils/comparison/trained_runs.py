"""Finished training runs, each read once; runs that differ only in their seed form one model."""

from __future__ import annotations

import contextlib
import glob
import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from models.config import ModelConfig
from utils.errors import CheckpointError, ConfigError
from utils.files import load_json, unique_name
from utils.inference.class_mapping import class_name_mismatch
from utils.training.optim import OFFSET_CONVOLUTION
from utils.training.run import ENVIRONMENT
from utils.training.state import SUMMARY
from utils.weights.checkpoint import load_checkpoint, load_model

# Options of train.py that do not change what a run learns.
NON_SEMANTIC_OPTIONS = frozenset(
    "project name exist_ok resume device workers cache noplots nosave save_period tensorboard download strict "
    "no_label_cache dist_timeout".split()
)
# Files whose content is compared instead of their name, and the seed.
COMPARED_BY_CONTENT = frozenset(("cfg", "hyp", "seed"))
# In a run's summary.
MEASURED = ("training_seconds", "peak_memory_gb", "transferred_fraction")
COUNTED = ("training_images", "training_objects")
OFFSET_LR = "offset_lr"
BEST = Path("weights", "best.pt")
SEED_IN_NAME = re.compile(r"[-_. ]*seed[-_=]?\d+(?=-last$|$)", re.IGNORECASE)
GLOB_CHARACTERS = re.compile(r"[*?\[]")


@dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """What a finished checkpoint and the files of its run contain about the training; None or empty if unknown."""

    path: Path
    config: ModelConfig
    names: tuple[str, ...]  # class names
    image_size: int  # longer side of the training images in pixels
    max_stride: int
    args: Mapping[str, Any]  # options of train.py
    hyperparameters: Mapping[str, float]  # those that have an effect on the network
    folder: Path | None = None  # of the run, if the checkpoint is in the `weights` folder of one
    interrupted: bool = False  # whether the folder lacks a summary, which train.py writes last
    dataset: str = ""  # fingerprint of the training split
    training_seconds: float | None = None
    peak_memory_gb: float | None = None  # reserved on CUDA, otherwise of the whole process
    # of the parameters that came from other weights; None also if trained from scratch
    transferred_fraction: float | None = None
    training_images: int | None = None
    training_objects: int | None = None  # in these images

    @property
    def seed(self) -> int | None:
        """The seed of the training."""
        return int(self.args["seed"]) if "seed" in self.args else None

    @property
    def name(self) -> str:
        """The name of the run's folder, followed by that of the checkpoint unless it is best.pt."""
        if self.folder is None:
            return self.path.stem
        return self.folder.name if self.path.stem == BEST.stem else f"{self.folder.name}-{self.path.stem}"


@dataclass(frozen=True, kw_only=True)
class TrainedRuns:
    """A model whose runs are finished, one for each seed."""

    label: str  # unique in the comparison
    runs: tuple[TrainedRun, ...]
    config: ModelConfig
    hyperparameters: Mapping[str, float]
    is_finished_weights: bool  # whether --weights gave the runs; otherwise the comparison trained them
    # a sentence about the first class that data set and weights name differently; empty if none
    class_mismatch: str = ""

    @property
    def args(self) -> Mapping[str, Any]:
        """Options of train.py, semantically equal for all runs except for the seed; empty if unknown."""
        return self.runs[0].args

    @property
    def transferred_fraction(self) -> float | None:
        """The fraction of the parameters that came from other weights, of the first run for which it is known."""
        return next((run.transferred_fraction for run in self.runs if run.transferred_fraction is not None), None)

    @property
    def data(self) -> str:
        """The data yaml of the training; empty if unknown."""
        return str(self.args.get("data", ""))


def read_run(path: Path) -> TrainedRun:
    """Read a checkpoint and the files of its run; a CheckpointError is raised if it is missing or has no model."""
    content = load_checkpoint(path)
    model, names = load_model(path, content=content)
    hyperparameters = content.get("hyperparameters") or {}
    folder = run_folder(path)
    facts: dict[str, Any] = {}
    for file in (folder / ENVIRONMENT, folder / SUMMARY) if folder is not None else ():
        with contextlib.suppress(ConfigError):
            facts |= read_facts(file)
    measured: dict[str, Any] = {key: float(facts[key]) for key in MEASURED if isinstance(facts.get(key), (int, float))}
    measured |= {key: facts[key] for key in COUNTED if type(facts.get(key)) is int}
    return TrainedRun(
        path=path,
        config=model.config,
        names=names,
        image_size=int(content.get("image_size") or 640),
        max_stride=model.max_stride,
        args=content.get("options") or {},
        hyperparameters=effective_hyperparameters(hyperparameters, has_offsets=has_offset_convolutions(model)),
        folder=folder,
        interrupted=bool(folder and (folder / "opt.yaml").is_file() and not (folder / SUMMARY).is_file()),
        dataset=str(facts.get("dataset", "")),
        **measured,
    )


def run_folder(checkpoint: Path) -> Path | None:
    """Return the folder of the run that wrote a checkpoint; None if it is not in the `weights` folder of one."""
    parent = checkpoint.resolve().parent
    return parent.parent if parent.name == "weights" and parent.parent.name else None


def last_epoch(folder: Path) -> tuple[int, float]:
    """Return the number of epochs in a run's results.csv, and the mAP50-95 of the last one; nan if unknown."""
    try:
        header, *rows = (folder / "results.csv").read_text(encoding="utf-8").splitlines()
        values = dict(zip(header.split(","), rows[-1].split(","), strict=True))
        return len(rows), float(values.get("metrics/mAP_0.5:0.95") or "nan")
    except (OSError, ValueError, IndexError):
        return 0, math.nan


def read_facts(path: Path) -> dict[str, Any]:
    """Return a JSON file of a run; empty if it is missing or no object. A ConfigError is raised if it is damaged."""
    content = load_json(path) if path.is_file() else {}
    return content if isinstance(content, dict) else {}


def differing_values(values: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return both values of each key that two mappings have in common and in which they differ."""
    return {key: (value, others[key]) for key, value in values.items() if others.get(key, value) != value}


def has_offset_convolutions(model: nn.Module) -> bool:
    """Return whether a network has offset convolutions, which are what `offset_lr` applies to."""
    return any(OFFSET_CONVOLUTION in name.split(".") for name, _ in model.named_modules())


def comparable_args(args: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of train.py that change what a run learns, except for the seed and paths of yamls."""
    return {key: value for key, value in args.items() if key not in NON_SEMANTIC_OPTIONS | COMPARED_BY_CONTENT}


def effective_hyperparameters(values: Mapping[str, float], *, has_offsets: bool) -> dict[str, float]:
    """Return the hyperparameters that change what a model learns; without offset convolutions `offset_lr` does not."""
    return {key: value for key, value in values.items() if key != OFFSET_LR or has_offsets}


def from_weights(patterns: Sequence[str], *, names: Sequence[str], taken: Collection[str] = ()) -> list[TrainedRuns]:
    """Read finished weights by `read_runs`, and group them into models by `group_runs`."""
    return group_runs(read_runs(patterns), names=names, taken=taken)


def read_runs(patterns: Sequence[str]) -> list[TrainedRun]:
    """Read the runs of `checkpoint_files`; a CheckpointError is raised if one is missing, damaged, or listed twice."""
    paths = checkpoint_files(patterns)
    for index, path in enumerate(paths):
        if path.resolve() in map(Path.resolve, paths[:index]):
            raise CheckpointError(path, "is listed twice in --weights", fix="remove one")
    return [read_run(path) for path in paths]


def group_runs(runs: Sequence[TrainedRun], *, names: Sequence[str], taken: Collection[str] = ()) -> list[TrainedRuns]:
    """Return the models of finished runs; runs that differ only in their seed, whatever their paths, become one model.

    `names` are those of the data set's classes, `taken` labels of other models. Models are in the order of their first
    files, each with its runs by seed. Several runs are labelled without the seed in their names, or else as the model
    yaml. A ConfigError is raised if a run has another number of classes than the data set.
    """
    groups: dict[str, list[TrainedRun]] = {}
    for run in runs:
        if len(run.names) != (1 if run.args.get("single_cls") else len(names)):
            what = f"has {len(run.names)} classes, but --data has {len(names)}"
            raise ConfigError(run.path, what, fix="pass its --data")
        config = run.config.to_dict() | {"anchors": None}  # fitted anchors may differ
        settings = [config, run.names, comparable_args(run.args), run.hyperparameters]
        key = json.dumps(settings, sort_keys=True, default=str)  # equal for runs that differ only in their seed
        if run.seed is None or run.seed in [other.seed for other in groups.get(key, [])]:
            key = str(run.path)
        groups.setdefault(key, []).append(run)
    models: list[TrainedRuns] = []
    for first, *others in groups.values():
        of_model = tuple(sorted((first, *others), key=lambda run: -1 if run.seed is None else run.seed))
        common = {run.name if len(of_model) == 1 else SEED_IN_NAME.sub("", run.name) for run in of_model}
        label = common.pop() if len(common) == 1 and "" not in common else Path(of_model[0].config.name).stem
        models.append(
            TrainedRuns(
                label=unique_name(label, [*taken, *(model.label for model in models)]),
                runs=of_model,
                config=first.config,
                hyperparameters=first.hyperparameters,
                is_finished_weights=True,
                class_mismatch="" if first.args.get("single_cls") else class_name_mismatch(names, first.names),
            )
        )
    return models


def checkpoint_files(patterns: Sequence[str]) -> list[Path]:
    """Return the checkpoints that the arguments of --weights mean.

    They are checkpoints; folders of runs, for their `weights/best.pt`; or glob patterns that no shell has expanded. A
    log beside the folder of its run is skipped, since `runs/model-seed*` matches both. A CheckpointError is raised if a
    folder contains no checkpoint, or a pattern matches nothing.
    """
    files: list[Path] = []
    for pattern in patterns:
        is_glob = GLOB_CHARACTERS.search(pattern) and not Path(pattern).exists()
        names = sorted(glob.glob(pattern)) if is_glob else [pattern]
        if not names:
            raise CheckpointError(pattern, "matches no file or folder", fix="correct --weights")
        for path in map(Path, names):
            if path.suffix == ".log" and path.with_suffix("").is_dir():
                continue
            choices = [file for file in (path / BEST, path / BEST.name) if file.is_file()] if path.is_dir() else [path]
            if not choices:
                raise CheckpointError(path, f"contains no {BEST}", fix="finish its training, or leave it out")
            files.append(choices[0])
    return files
