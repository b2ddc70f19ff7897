"""What a comparison has to train: a run of train.py for each model yaml and seed, all with the same settings."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from utils.comparison.candidates import NON_SEMANTIC_OPTIONS, Candidate, config_file, hyp_file
from utils.comparison.logs import log_of
from utils.comparison.sweep import SweepVariant
from utils.errors import ConfigError
from utils.options import CompareOptions, TrainOptions
from utils.strict_yaml import load_yaml

SUMMARY = "summary.json"


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One training run.

    Attributes:
        model: label of the candidate.
        seed: of all its randomness.
        options: of train.py.
    """

    model: str
    seed: int
    options: TrainOptions

    @property
    def folder(self) -> Path:
        """Where the run lies."""
        return Path(self.options.project) / self.options.name

    @property
    def log(self) -> Path:
        """Where its output goes, beside the folder."""
        return log_of(self.folder)

    @property
    def best(self) -> Path:
        """Its best checkpoint."""
        return self.folder / "weights" / "best.pt"

    @property
    def finished(self) -> bool:
        """Whether it needs no more training."""
        return (self.folder / SUMMARY).is_file() and self.best.is_file()

    @property
    def begun(self) -> bool:
        """Whether it can be gone on with."""
        return (self.folder / "weights" / "last.pt").is_file()

    def words(self, *, resumed: bool) -> list[str]:
        """Return the words after `python train.py`, as a user would write them."""
        if resumed:
            options = {"resume": str(self.folder / "weights" / "last.pt"), "workers": self.options.workers}
            if self.options.device:
                options["device"] = self.options.device
            return [word for key, value in options.items() for word in (f"--{key}", str(value))]
        return train_words(self.options)

    def command(self) -> str:
        """Return the line that trains this model by itself."""
        return "python train.py " + shlex.join(self.words(resumed=False))


def train_words(options: TrainOptions) -> list[str]:
    """Return options as the words after `python train.py`: those that are not the defaults, and the seed."""
    defaults = TrainOptions()
    words: list[str] = []
    for field in fields(TrainOptions):
        value = getattr(options, field.name)
        if value == getattr(defaults, field.name) and field.name != "seed":
            continue
        flag = "--" + field.name.replace("_", "-")
        words += [flag] if value is True else [flag, *map(str, value if isinstance(value, tuple) else (value,))]
    return words


def swept_candidate(variant: SweepVariant, base: Candidate, folder: Path) -> Candidate:
    """Return a variant of a model as one to train, from the yamls that `keep_configs` writes into the folder."""
    same_numbers = variant.hyperparameters == base.hyperparameters
    return Candidate(
        label=variant.label,
        cfg=str(config_file(folder, variant.label)),
        config=variant.config,
        hyp=base.hyp if same_numbers else str(hyp_file(folder, variant.label)),
        hyperparameters=variant.hyperparameters,
    )


def plan_runs(options: CompareOptions, candidates: Sequence[Candidate], folder: Path) -> list[PlannedRun]:
    """Return the runs of all yamls, every seed of all models before the next seed, so that all grow evenly.

    Raises:
        ConfigError: a run's folder holds a run with other settings.
    """
    cores = os.cpu_count() or 1
    workers = min(options.workers, max(cores // options.jobs, 1)) if options.jobs > 1 else options.workers
    runs = [
        PlannedRun(
            model=candidate.label,
            seed=seed,
            options=TrainOptions(
                cfg=candidate.cfg,
                data=options.data,
                hyp=candidate.hyp,
                epochs=options.epochs,
                batch_size=options.batch_size,
                imgsz=options.imgsz,
                device=options.device,
                optimizer=options.optimizer,
                workers=workers,
                cos_lr=options.cos_lr,
                patience=options.patience,
                cache=options.cache,
                noplots=options.noplots,
                seed=seed,
                no_amp=options.no_amp,
                plugins=options.plugins,
                project=str(folder),
                name=f"{candidate.label}-seed{seed}",
                exist_ok=True,
            ),
        )
        for seed in options.all_seeds
        for candidate in candidates
        if candidate.cfg
    ]
    numbers = {candidate.label: candidate.hyperparameters for candidate in candidates}
    for run in runs:
        _require_same_settings(run, numbers[run.model])
    return runs


def _require_same_settings(run: PlannedRun, hyperparameters: Mapping[str, Any]) -> None:
    """Check a folder that exists already.

    Raises:
        ConfigError: it holds a run with other settings, or with other numbers in a hyperparameter yaml of that name.
    """
    if (run.folder / "opt.yaml").is_file():
        present = load_yaml(run.folder / "opt.yaml")
        wanted = json.loads(json.dumps(asdict(run.options)))
        differing = [
            key for key, value in wanted.items() if key not in NON_SEMANTIC_OPTIONS and present.get(key, value) != value
        ]
        if differing:
            flags = ", ".join("--" + key.replace("_", "-") for key in differing)
            raise ConfigError(run.folder, f"holds a run with other settings ({flags})", fix="choose another --name")
    if (run.folder / "hyp.yaml").is_file():
        present = load_yaml(run.folder / "hyp.yaml")
        differing = [key for key, value in hyperparameters.items() if present.get(key, value) != value]
        if differing:
            what = f"holds a run with other hyperparameters ({', '.join(differing)})"
            raise ConfigError(run.folder, what, fix="choose another --name")
