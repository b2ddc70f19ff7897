"""Checks of a comparison before anything is trained, and warnings about where its models come from."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from utils.comparison.candidates import Candidate, differing_args
from utils.comparison.plan import PlannedRun
from utils.comparison.trained_runs import TrainedRuns, last_epoch, read_facts
from utils.datasets.config import DataConfig
from utils.datasets.index import DatasetIndex, build_index
from utils.datasets.scan import list_images
from utils.datasets.split_checks import overlapping_images
from utils.datasets.splits import open_data
from utils.errors import ConfigError, DataError, DetectorError
from utils.options import CompareOptions
from utils.training.run import ENVIRONMENT

# Flags of compare.py that only affect training.
TRAINING_FLAGS = "hyp epochs optimizer cos_lr patience cache noplots seed seeds jobs no_amp".split()
SPLIT_OVERLAPS = {
    "train": ("training", "metrics on them do not measure generalization"),
    "val": ("validation", "results are optimistic: best.pt was selected on this split"),
}


def reject_unsupported_options(options: CompareOptions, given: Collection[str]) -> None:
    """Raise a ConfigError that names the given training flags if there is nothing to train."""
    flags = [f"--{name.replace('_', '-')}" for name in TRAINING_FLAGS if name in given]
    if flags and not options.cfg:
        raise ConfigError(", ".join(flags), "has no effect on finished --weights", fix="leave it out, or add --cfg")


def require_objects(val: DatasetIndex, *, data_file: Path, split: str) -> None:
    """Raise a DataError if there is no ground truth to evaluate on, as all label files of the split are empty."""
    if not len(val.labels):
        what = f"'{split}' has no objects: the labels of all {len(val)} images are empty"
        raise DataError(data_file, what, fix=f"label them, or name another split in the line `{split}`")


def is_single_class(candidates: Sequence[Candidate], names: Sequence[str]) -> bool:
    """Return whether the models treat all classes of a data set as one, as trained with --single-cls.

    A ConfigError is raised if only some of them do, so that their metrics cannot be compared.
    """
    if len(names) == 1:
        return False
    labels = {
        isinstance(candidate, TrainedRuns) and bool(candidate.args.get("single_cls")): candidate.label
        for candidate in candidates
    }
    if len(labels) == 2:
        what = f"{labels[True]} was trained with --single-cls, but {labels[False]} has {len(names)} classes"
        raise ConfigError("--weights", what, fix="compare models with the same classes")
    return True in labels


def require_same_data(runs: Sequence[PlannedRun], data: DataConfig) -> None:
    """Raise a ConfigError if the training split has changed since runs were started that are reused or resumed.

    Names, sizes and labels of its images count; pixels that changed in place are not noticed. A damaged env.json of a
    run is a ConfigError too.
    """
    folders = [run.folder for run in runs if run.is_finished or run.last.is_file()]
    recorded = {folder: str(read_facts(folder / ENVIRONMENT).get("dataset", "")) for folder in folders}
    for folder in _changed_since(recorded, data):
        what = f"contains a run on a training split that has changed since ({data.file})"
        raise ConfigError(folder, what, fix="choose another --name, or remove that run")


def _changed_since(recorded: Mapping[Path, str], data: DataConfig) -> list[Path]:
    """Return the runs whose recorded fingerprint, if known, is not that of the training split."""
    known = {folder: fingerprint for folder, fingerprint in recorded.items() if fingerprint}
    present = build_index(data, "train").fingerprint() if known else ""  # a scan may take minutes
    return [folder for folder, fingerprint in known.items() if fingerprint != present]


def provenance_warnings(models: Sequence[TrainedRuns], evaluated: DatasetIndex, *, task: str) -> list[str]:
    """Return warnings about how the models were trained and on what; `task` is the name of the evaluated split."""
    finished = [model for model in models if model.is_finished_weights]
    interrupted = ", ".join(
        f"{run.folder.name} ({last_epoch(run.folder)[0]} of {run.args.get('epochs', '?')} epochs)"
        for model in finished
        for run in model.runs
        if run.folder is not None and run.interrupted
    )
    preliminary = f"Training not finished: {interrupted}. The results of these runs are preliminary."
    return [
        *([preliminary] if interrupted else []),
        *_differing_training_args(models),
        *(f"{model.label}: {model.class_mismatch}." for model in models if model.class_mismatch),
        *_changed_datasets(finished),
        *split_overlaps(models, evaluated, "train"),
        *(split_overlaps(models, evaluated, "val") if task != "val" else ()),
    ]


def _differing_training_args(models: Sequence[TrainedRuns]) -> list[str]:
    """Warn about models trained with other options of train.py than the first model whose options are known.

    Hyperparameters may be what is compared; the number of epochs or the data set rarely is.
    """
    known = [model for model in models if model.args]
    differing = []
    for model in known[1:]:
        values = differing_args(model, known[0]).items()
        texts = [f"{flag} {value} instead of {other}" for flag, (value, other) in values]
        differing += [f"{model.label} with {', '.join(texts)}"] if texts else []
    return [f"Training options differ from those of {known[0].label}: {'; '.join(differing)}."] if differing else []


def _changed_datasets(models: Sequence[TrainedRuns]) -> list[str]:
    """Warn about weights whose training split has changed since, as far as known and present."""
    changed: list[Path] = []
    for name in sorted({model.data for model in models if model.data}):
        runs = [run for model in models if model.data == name for run in model.runs]
        with contextlib.suppress(DetectorError):  # which `split_overlaps` reports
            changed += _changed_since({run.folder: run.dataset for run in runs if run.folder}, open_data(name))
    names = ", ".join(folder.name for folder in changed)
    return [f"Trained on a training split that has changed since: {names}."] if names else []


def split_overlaps(models: Sequence[TrainedRuns], evaluated: DatasetIndex, split: str) -> list[str]:
    """Warn about evaluation images that are also in a split of a data set that a model was trained with.

    The split is `train`, or `val`, on which the best epoch was selected.
    """
    kind, consequence = SPLIT_OVERLAPS[split]
    warnings, seen = [], set()
    for name in sorted({model.data for model in models if model.data}):
        try:
            data = open_data(name)
            shared = _overlap(data, split, evaluated) if data.file not in seen else []
        except DetectorError as error:
            if split == "train":
                warnings.append(f"Unknown whether evaluation images are training images of {name} ({error.what}).")
            continue
        seen.add(data.file)
        if shared:
            warnings.append(
                f"{len(shared)} of {len(evaluated)} evaluation images are also {kind} images of {name} (the first: "
                f"{Path(shared[0]).name}); {consequence}."
            )
    unknown = [model.label for model in models if not model.data]
    if unknown and split == "train":
        warnings.append(f"Unknown training data of {', '.join(unknown)}, which may include the evaluation images.")
    return warnings


def _overlap(data: DataConfig, split: str, evaluated: DatasetIndex) -> list[str]:
    return overlapping_images(list_images(data, split, quiet=True), [str(path) for path in evaluated.paths])
