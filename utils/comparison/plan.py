"""The plan of a comparison: the runs of train.py that it needs, and the folder that holds them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from utils.comparison.candidates import ToTrain
from utils.comparison.trained_runs import BEST, NON_SEMANTIC_OPTIONS, TrainedRuns, differing_values
from utils.errors import ConfigError, DetectorError
from utils.files import dump_json, file_hash, load_json, make_run_dir
from utils.log import LOGGER
from utils.options import CompareOptions, TrainOptions
from utils.options.hyperparameters import load_hyperparameters
from utils.options.training import TrainingOptions
from utils.strict_yaml import load_yaml
from utils.training.state import LAST, SUMMARY

MANIFEST = "manifest.json"
OLD_MANIFEST = "comparison.json"
# Options that name the models and seeds, of which more may be added later, and options without effect on the runs.
EXTENDABLE_OPTIONS = frozenset(
    "cfg weights sweep ablation design hyp names seed seeds jobs task tiny browse figures lang paper".split()
)
DEFAULTS = TrainOptions()


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One run of train.py: the label of its model, and its options."""

    model: str
    options: TrainOptions
    data_set: str = ""  # its label, if the comparison has several

    @property
    def title(self) -> str:
        """Name of the run, with that of the data set if there are several."""
        return f"{self.data_set}/{self.folder.name}" if self.data_set else self.folder.name

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return Path(self.options.project) / self.options.name

    @property
    def log(self) -> Path:
        """The file with its console output, beside the folder."""
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def best(self) -> Path:
        """Its best checkpoint."""
        return self.folder / BEST

    @property
    def last(self) -> Path:
        """Its last checkpoint, to resume from."""
        return self.best.with_name(LAST)

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to train."""
        return (self.folder / SUMMARY).is_file() and self.best.is_file()

    def argv(self, *, resume: bool) -> list[str]:
        """Return the arguments of train.py: options that differ from the defaults, and the seed."""
        if resume:
            device = ["--device", self.options.device] if self.options.device else []
            return ["--resume", str(self.last), "--workers", str(self.options.workers), *device]
        argv: list[str] = []
        for name in dict.fromkeys(("cfg", "data", "hyp", *(field.name for field in fields(TrainOptions)))):
            value = getattr(self.options, name)
            if value != getattr(DEFAULTS, name) or name == "seed":
                values = () if value is True else value if isinstance(value, tuple) else (value,)
                argv += ["--" + name.replace("_", "-"), *map(str, values)]
        return argv

    def command(self) -> str:
        """Return the command line that trains this run by itself."""
        return f"python train.py {shlex.join(self.argv(resume=False))}"


def plan_runs(
    options: CompareOptions, candidates: Sequence[ToTrain], folder: Path, *, data_set: str = ""
) -> list[PlannedRun]:
    """Return the runs of all models to train on one data set, those of one seed before those of the next seed.

    `data_set` is its label, if the comparison has several. A ConfigError is raised if a run's folder contains one with
    other settings.
    """
    cores = os.cpu_count() or 1
    workers = min(options.workers, max(cores // options.jobs, 1)) if options.jobs > 1 else options.workers
    settings: dict[str, Any] = {field.name: getattr(options, field.name) for field in fields(TrainingOptions)}
    settings |= {"batch_size": options.batch_size, "workers": workers, "weights": options.pretrained}
    settings |= {"data": options.data[0], "project": str(folder), "exist_ok": True}
    runs = []
    for seed in options.all_seeds:
        for candidate in candidates:
            cfg, hyp = candidate.kept_yamls(folder)
            settings |= {"cfg": candidate.cfg or str(cfg), "hyp": candidate.hyp or str(hyp)}
            settings |= {"seed": seed, "name": f"{candidate.label}-seed{seed}"}
            run = PlannedRun(model=candidate.label, options=TrainOptions(**settings), data_set=data_set)
            _require_same_settings(run, candidate.hyperparameters)
            runs.append(run)
    return runs


def _require_same_settings(run: PlannedRun, hyperparameters: Mapping[str, float]) -> None:
    """Raise a ConfigError if a run's folder contains a run with other options or hyperparameters."""
    options, values = run.folder / "opt.yaml", run.folder / "hyp.yaml"
    differing = []
    if options.is_file():
        stored = {**_defaults(TrainOptions), **load_yaml(options)}
        differing += [f"--{key.replace('_', '-')}" for key in differing_values(_settings(run.options), stored)]
    if values.is_file():
        differing += differing_values(hyperparameters, load_yaml(values))
    if differing:
        what = f"contains a run with other settings ({', '.join(differing)})"
        raise ConfigError(run.folder, what, fix="choose another --name")


def commands_of(runs: Sequence[PlannedRun], models: Sequence[TrainedRuns]) -> list[str]:
    """Return the command lines that make a comparison: its own, those of its runs, and those of finished weights."""
    own = f"python {Path(sys.argv[0]).name} {shlex.join(sys.argv[1:])}"
    return [own, *(run.command() for run in runs), *training_commands(models)]


def training_commands(models: Sequence[TrainedRuns]) -> list[str]:
    """Return the known commands that trained finished weights, with a comment on values that --hyp no longer has."""
    commands = []
    for run in (run for model in models if model.is_finished_weights for run in model.runs if run.args):
        kept = {key: value for key, value in run.args.items() if key not in NON_SEMANTIC_OPTIONS}
        kept = {key: tuple(v) if isinstance(v, list) else v for key, v in kept.items() if hasattr(DEFAULTS, key)}
        try:
            present = asdict(load_hyperparameters(str(run.args.get("hyp", DEFAULTS.hyp))))
            differing = differing_values(run.hyperparameters, present)
            changed = [f"{key} {value:g}" for key, (value, _) in differing.items()]
            comment = f"  # trained with {', '.join(changed)}; --hyp has changed since" if changed else ""
        except DetectorError:
            comment = "  # the --hyp file no longer exists"
        commands.append(PlannedRun(model="", options=replace(DEFAULTS, **kept)).command() + comment)
    return commands


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What identifies a comparison; its folder contains it from the start."""

    settings: Mapping[str, Any]  # options that change what is learned
    trained: Mapping[str, str]  # label of each model to train, and a hash of its yaml and its hyperparameters
    seeds: tuple[int, ...]  # empty without models to train
    weights: tuple[str, ...]  # absolute paths of finished checkpoints

    @classmethod
    def of(cls, options: CompareOptions, trained: Sequence[ToTrain], finished: Sequence[TrainedRuns]) -> Manifest:
        """Return the manifest of a comparison of models to train and finished weights."""
        settings = {key: value for key, value in _settings(options).items() if key not in EXTENDABLE_OPTIONS}
        if options.pretrained:
            settings["pretrained"] = file_hash(options.pretrained)
        return cls(
            settings=settings,
            trained={model.label: _hash(model) for model in trained},
            seeds=options.all_seeds if trained else (),
            weights=tuple(str(run.path.resolve()) for model in finished for run in model.runs),
        )

    @classmethod
    def read(cls, folder: Path) -> Manifest | None:
        """Return a folder's manifest, by its present name or that of version 0.1; None if there is no valid one."""
        name = MANIFEST if (folder / MANIFEST).exists() else OLD_MANIFEST
        kinds = {"settings": dict, "trained": dict, "seeds": tuple, "weights": tuple}
        try:
            content = load_json(folder / name)
            manifest = cls(**{key: kind(content[key]) for key, kind in kinds.items()})
            return replace(manifest, settings={**_defaults(CompareOptions), **manifest.settings})
        except (ConfigError, KeyError, TypeError, ValueError):
            return None

    def is_compatible_with(self, other: Manifest) -> bool:
        """Return whether this is the other comparison, possibly with more models or seeds, or more than its data sets.

        A single data set has its runs in the folder itself, so it is no part of a comparison of several.
        """
        differing = differing_values(self.settings, other.settings)
        ours, theirs = differing.get("data", ("", ""))
        if isinstance(ours, list) and isinstance(theirs, list) and set(theirs) <= set(ours):
            del differing["data"]
        return (
            not differing
            and other.trained.items() <= self.trained.items()
            and set(other.seeds) <= set(self.seeds)
            and set(other.weights) <= set(self.weights)
        )

    def write(self, folder: Path) -> None:
        """Write it into the comparison's folder."""
        dump_json(folder / MANIFEST, asdict(self))


def choose_folder(project: Path, name: str, manifest: Manifest, *, named: bool) -> Path:
    """Return the folder `name` in `project`, or else one that contains a part of this comparison, or else a new one.

    If the user `named` it, the folder is used whatever it contains; the others are `name2`, `name3`... A ConfigError is
    raised if the name is not a plain folder name, or the folder cannot be made.
    """
    remark, continued = "", None
    if not named:
        matches = ((path, re.fullmatch(re.escape(name) + r"(\d*)", path.name)) for path in project.glob("*"))
        existing = sorted((int(match[1] or 1), path) for path, match in matches if match)
        manifests = ((path, Manifest.read(path)) for _, path in existing)
        continued = next((path for path, other in manifests if other and manifest.is_compatible_with(other)), None)
    folder = continued or make_run_dir(project, name, exist_ok=named)
    if continued:
        remark = " (continued)"
    elif folder != project / name:
        remark = f" ({project / name} contains another comparison; --name {name} uses it anyway)"
    LOGGER.info(f"Comparison folder: {folder}{remark}")
    return folder


def _settings(options: CompareOptions | TrainOptions) -> dict[str, Any]:
    """Return the options that change what a run learns, as a JSON or yaml file holds them."""
    values = json.loads(json.dumps(options.as_json() if isinstance(options, CompareOptions) else asdict(options)))
    return {key: value for key, value in values.items() if key not in NON_SEMANTIC_OPTIONS}


def _defaults(options: type[CompareOptions | TrainOptions]) -> dict[str, Any]:
    """Return the values of all options that are not given, which are those of options that an older version lacked."""
    values: dict[str, Any] = json.loads(json.dumps({field.name: field.default for field in fields(options)}))
    return values


def _hash(model: ToTrain) -> str:
    content = [model.config.to_dict(), dict(model.hyperparameters)]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
