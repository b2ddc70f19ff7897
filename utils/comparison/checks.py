"""Checks of a comparison before anything is trained, and warnings about where its models come from."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from utils.comparison.candidates import Candidate, ToTrain, differing_args
from utils.comparison.plan import PlannedRun
from utils.comparison.predictions import ALL, SupportByName
from utils.comparison.statistics import (
    RELIABLE_IMAGES,
    RELIABLE_OBJECTS,
    RELIABLE_SET_IMAGES,
    ModelScores,
)
from utils.comparison.trained_runs import TrainedRuns, last_epoch, read_facts
from utils.datasets.config import DataConfig
from utils.datasets.index import DatasetIndex, build_index
from utils.datasets.scan import list_images
from utils.datasets.split_checks import overlapping_images
from utils.datasets.splits import open_data
from utils.document import first_of
from utils.errors import ConfigError, DataError, DetectorError
from utils.files import file_hash, make_folder
from utils.log import LOGGER
from utils.options import CompareOptions, TrainOptions
from utils.training.run import ENVIRONMENT, WEIGHTS_HASH
from utils.training.setup import build_model
from utils.weights.checkpoint import load_checkpoint

# Flags of compare.py that only affect training.
TRAINING_FLAGS = (
    "hyp design pretrained epochs optimizer cos_lr patience cache noplots seed seeds jobs no_amp fraction rect "
    "multi_scale single_cls image_weights label_smoothing freeze".split()
)
MIN_TRANSFERRED = 0.01  # fraction of a model's parameters: less come from weights of another architecture
UNTRAINED_MAP50 = 0.02
MAX_NAMED = 5  # classes and sizes that a warning lists
MAX_TRANSFER_GAP = 0.1  # between the fractions of two models that started from the same weights
SPLIT_OVERLAPS = {
    "train": ("training", "metrics on them do not measure generalization"),
    "val": ("validation", "results are optimistic: best.pt was selected on this split"),
}


def reject_unsupported_options(options: CompareOptions, given: Collection[str]) -> None:
    """Raise a ConfigError that names the given training flags if there is nothing to train."""
    flags = [f"--{name.replace('_', '-')}" for name in TRAINING_FLAGS if name in given]
    if flags and not options.cfg:
        raise ConfigError(", ".join(flags), "has no effect on finished --weights", fix="leave it out, or add --cfg")


def require_writable_paper(options: CompareOptions) -> None:
    """Create the folder of --paper before hours of training; a ConfigError is raised if that is impossible."""
    if options.paper:
        try:
            make_folder(Path(options.paper))
        except (OSError, ValueError) as error:
            what = f"cannot be created as a folder ({getattr(error, 'strerror', None) or error})"
            raise ConfigError(options.paper, what, fix="pass another folder as --paper") from error


def require_objects(val: DatasetIndex, *, data_file: Path, split: str) -> None:
    """Raise a DataError if there is no ground truth to evaluate on, as all label files of the split are empty."""
    if not len(val.labels):
        what = f"'{split}' has no objects: the labels of all {len(val)} images are empty"
        raise DataError(data_file, what, fix=f"label them, or name another split in the line `{split}`")


def require_trainable(to_train: Sequence[ToTrain], options: CompareOptions, *, num_classes: int) -> None:
    """Raise the error of --pretrained or --freeze with which the runs of a model would end.

    A ConfigError is raised also if the weights provide next to nothing of a model, so that it would start from scratch.
    """
    settings = TrainOptions(weights=options.pretrained, freeze=options.freeze)
    content = load_checkpoint(options.pretrained) if options.pretrained else None
    for model in to_train if content is not None or settings.freeze != TrainOptions().freeze else ():
        LOGGER.info(f"{model.label} starts from:")
        _, fraction = build_model(settings, model.config, num_classes=num_classes, content=content)
        if fraction is not None and fraction < MIN_TRANSFERRED:
            what = f"provides {fraction:.1%} of the parameters of {model.label}"
            raise ConfigError(options.pretrained, what, fix="pass weights of models of the same size")


def is_single_class(candidates: Sequence[Candidate], names: Sequence[str], *, trained: bool = False) -> bool:
    """Return whether the models treat all classes of a data set as one; `trained`: those to train, by --single-cls.

    A ConfigError is raised if only some of them do, so that their metrics cannot be compared.
    """
    if len(names) == 1:
        return False
    labels = {
        bool(candidate.args.get("single_cls")) if isinstance(candidate, TrainedRuns) else trained: candidate.label
        for candidate in candidates
    }
    if len(labels) == 2:
        what = f"{labels[True]} is trained with --single-cls, but {labels[False]} has {len(names)} classes"
        raise ConfigError("--weights", what, fix="compare models with the same classes")
    return True in labels


def require_same_data(runs: Sequence[PlannedRun], data: DataConfig) -> None:
    """Raise a ConfigError if the training split has changed since runs were started that are reused or resumed.

    Names, sizes and labels of its images count; pixels that changed in place are not noticed. The file of --pretrained
    must not have changed either. A damaged env.json of a run is a ConfigError too.
    """
    started = {run: read_facts(run.folder / ENVIRONMENT) for run in runs if run.is_finished or run.last.is_file()}
    recorded = [(run.folder, str(facts.get("dataset", "")), vars(run.options)) for run, facts in started.items()]
    for folder in changed_since(recorded, data):
        what = f"contains a run on a training split that has changed since ({data.file})"
        raise ConfigError(folder, what, fix="choose another --name, or remove that run")
    for run, facts in started.items():
        weights = run.options.weights
        if weights and facts.get(WEIGHTS_HASH, present := file_hash(weights)) != present:
            what = f"contains a run from --pretrained weights that have changed since ({weights})"
            raise ConfigError(run.folder, what, fix="choose another --name, or remove that run")


def changed_since(recorded: Iterable[tuple[Path, str, Mapping[str, Any]]], data: DataConfig) -> list[Path]:
    """Return the folders of runs on another training split, or part of it by --fraction, than the data set has now.

    Runs are given as folder, recorded fingerprint, empty if unknown, and options of train.py.
    """
    known = [one for one in recorded if one[1]]
    split = build_index(data, "train") if known else None  # a scan may take minutes
    present: dict[tuple[float, int], str] = {}
    changed = []
    for folder, fingerprint, args in known:
        fraction, seed = float(args.get("fraction", 1)), int(args.get("seed", 0))
        key = (fraction, seed if fraction < 1 else 0)
        if split is not None and key not in present:
            present[key] = split.fraction(fraction, seed=seed).fingerprint()
        changed += [folder] if fingerprint != present[key] else []
    return changed


def support_warnings(images: int, names: Sequence[str], support: SupportByName) -> list[str]:
    """Warn of an evaluated split that is too small for reliable intervals; `support` as of `support_by_class`."""
    reasons = [f"{images} images"] if images < RELIABLE_SET_IMAGES else []
    absent = [name for name in names if ("class", name) not in support]
    reasons += [f"no objects of {', '.join(first_of(absent, MAX_NAMED))}"] if absent else []
    reasons += [
        f"{name}: {part.objects} objects in {part.images} images"
        for (_, name), part in support.items()
        if part.objects < RELIABLE_OBJECTS or part.images < RELIABLE_IMAGES
    ]
    if not reasons:
        return []
    shown = "; ".join(first_of(reasons, MAX_NAMED))
    return [
        f"The evaluated split is too small for reliable intervals ({shown}). They need {RELIABLE_SET_IMAGES} images "
        f"and {RELIABLE_OBJECTS} objects in {RELIABLE_IMAGES} images of each class and size."
    ]


def score_warnings(models: Sequence[ModelScores]) -> list[str]:
    """Warn of too few seeds, of models with different seeds, and of models that have hardly learned anything."""
    single_runs = max(len(model.seeds) for model in models) == 1
    few = ", ".join(model.label for model in models if len(model.seeds) < 3)
    known = [model for model in models if None not in model.seeds]
    seeds = "; ".join(f"{model.label} {', '.join(map(str, model.seeds))}" for model in known)
    differ = len({model.seeds for model in known}) > 1
    untrained = [model.label for model in models if model.metrics[ALL, "", "map50"].points.mean() < UNTRAINED_MAP50]
    warnings = {
        "One run of each model: the intervals cover other images, but not seed variance.": single_runs,
        f"Fewer than three seeds of {few}: seed variance is a rough estimate, and the intervals are wide, or too "
        "narrow where the models differ in seed variance.": few and not single_runs,
        f"The models have different seeds ({seeds}). All runs count, but with other seeds they saw the images in "
        "another order.": differ and not single_runs,
        f"{', '.join(untrained)}: hardly trained (mAP50 below {UNTRAINED_MAP50}); train longer.": untrained,
    }
    return [warning for warning, applies in warnings.items() if applies]


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
        *_transfer_warnings(models),
        *(f"{model.label}: {model.class_mismatch}." for model in models if model.class_mismatch),
        *_changed_datasets(finished),
        *split_overlaps(models, evaluated, "train"),
        *(split_overlaps(models, evaluated, "val") if task != "val" else ()),
    ]


def condition_warnings(
    models: Sequence[TrainedRuns], labels: Sequence[str], sizes: Sequence[int], *, jobs: int
) -> list[str]:
    """Return warnings about missing models, and about conditions of training and evaluation.

    `labels` are those of all models, the baseline first, `sizes` those at which the models are evaluated, and `jobs`
    the number of trainings that ran in parallel.
    """
    present = [model.label for model in models]
    absent = ", ".join(label for label in labels if label not in present)
    warnings = {
        f"Timings of training were measured under parallel load (up to {jobs} jobs).": jobs > 1,
        f"No finished run of {absent}; the tables leave it out.": absent,
        f"The baseline {labels[0]} is missing, so there are no differences.": labels[0] not in present,
        "The models are evaluated at different image sizes, which also affects cost and accuracy.": len(set(sizes)) > 1,
    }
    return [warning for warning, applies in warnings.items() if applies]


def _differing_training_args(models: Sequence[TrainedRuns]) -> list[str]:
    """Warn about models trained with other options of train.py than the first model whose options are known.

    Hyperparameters may be what is compared; the number of epochs or the data set rarely is.
    """
    known = [model for model in models if model.args]
    differing = []
    for model in known[1:]:
        values = differing_args(model, known[0]).items()
        texts = [f"{flag} {value or 'not given'} instead of {other or 'not given'}" for flag, (value, other) in values]
        differing += [f"{model.label} with {', '.join(texts)}"] if texts else []
    return [f"Training options differ from those of {known[0].label}: {'; '.join(differing)}."] if differing else []


def _transfer_warnings(models: Sequence[TrainedRuns]) -> list[str]:
    """Warn if --pretrained gave some models a better start than others."""
    trained = [model for model in models if not model.is_finished_weights]
    fractions = {model.label: model.transferred_fraction for model in trained}
    known = {label: fraction for label, fraction in fractions.items() if fraction is not None}
    if not known or max(known.values()) - min(known.values()) <= MAX_TRANSFER_GAP:
        return []
    listed = ", ".join(f"{fraction:.0%} of {label}" for label, fraction in known.items())
    return [f"The pretrained weights provide unequal parts of the parameters, which favours some models: {listed}."]


def _changed_datasets(models: Sequence[TrainedRuns]) -> list[str]:
    """Warn about weights whose training split has changed since, as far as known and present."""
    changed: list[Path] = []
    for name in sorted({model.data for model in models if model.data}):
        runs = [run for model in models if model.data == name for run in model.runs]
        with contextlib.suppress(DetectorError):  # which `split_overlaps` reports
            recorded = [(run.folder, run.dataset, run.args) for run in runs if run.folder]
            changed += changed_since(recorded, open_data(name))
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
