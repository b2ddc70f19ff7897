"""The models of a comparison: those to train, those whose runs are finished, and how they differ."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import torch

from models.config import ModelConfig, load_model_config
from models.yolo import DetectionModel
from utils.comparison.trained_runs import (
    NON_SEMANTIC_OPTIONS,
    TrainedRuns,
    comparable_args,
    differing_values,
    effective_hyperparameters,
    has_offset_convolutions,
)
from utils.datasets.index import DatasetIndex
from utils.errors import ConfigError
from utils.files import unique_name
from utils.log import LOGGER
from utils.options import CompareOptions
from utils.options.hyperparameters import load_hyperparameters
from utils.options.training import TrainingOptions
from utils.strict_yaml import dump_yaml

DEFAULT_HYP = "hyp.scratch-low.yaml"
UNKNOWN = "unknown weights"
NAMED_OPTIONS = frozenset("data epochs imgsz optimizer seed".split())  # which the header names without their flags
UNSAFE_IN_NAMES = re.compile(r'[/\\:*?"<>|\x00-\x1f\x7f]|^[.\s]|[.\s]$')  # on some system, in names of files
# Options of train.py that the header gives if all finished weights agree in them.
DESCRIBED_ARGS = {"imgsz": "{} px", "epochs": "{} epochs", "batch_size": "batch {}", "optimizer": "{}"}


@dataclass(frozen=True, kw_only=True)
class ToTrain:
    """A model that the comparison trains."""

    label: str  # unique in the comparison
    cfg: str  # the yaml as the user names it; empty for a variant, whose yaml the comparison writes
    config: ModelConfig
    hyp: str  # the hyperparameter yaml as the user names it; empty if a variant has another value
    hyperparameters: Mapping[str, float]
    has_offsets: bool  # whether the network has offset convolutions

    @property
    def content(self) -> tuple[dict[str, Any], dict[str, float]]:
        """What of the yamls can change what the model learns."""
        return self.config.to_dict(), effective_hyperparameters(self.hyperparameters, has_offsets=self.has_offsets)

    def kept_yamls(self, folder: Path) -> tuple[Path, Path]:
        """Return where a comparison's folder keeps the model yaml and the hyperparameter yaml."""
        return folder / "configs" / f"{self.label}.yaml", folder / "configs" / f"{self.label}.hyp.yaml"


Candidate = ToTrain | TrainedRuns


def from_configs(
    cfgs: Sequence[str], *, hyps: Sequence[str] = (DEFAULT_HYP,), taken: Collection[str] = ()
) -> list[ToTrain]:
    """Combine each model yaml with each hyperparameter yaml, and build each network once.

    A combination that would train to the same bits as an earlier one is skipped: a model without offset convolutions,
    with hyperparameters that differ only in `offset_lr`. Hyperparameters that are listed twice are trained twice. If a
    yaml does not exist or its network cannot be built, a ConfigError is raised.
    """
    recipes = [(hyp, asdict(load_hyperparameters(hyp))) for hyp in hyps]
    models: list[ToTrain] = []
    for cfg in cfgs:
        config = load_model_config(cfg)
        has_offsets = has_offset_convolutions(DetectionModel(config))
        accepted: dict[str, dict[str, float]] = {}  # effective values as text -> all values
        for hyp, values in recipes:
            effective = str(effective_hyperparameters(values, has_offsets=has_offsets))
            if accepted.setdefault(effective, values) != values:
                LOGGER.info(f"{cfg} with {hyp}: skipped, offset_lr changes nothing in a model without AKConv")
                continue
            stem = Path(cfg).stem if len(hyps) == 1 else f"{Path(cfg).stem}-{Path(hyp).stem.removeprefix('hyp.')}"
            label = unique_name(stem, [*taken, *(model.label for model in models)])
            models.append(
                ToTrain(label=label, cfg=cfg, config=config, hyp=hyp, hyperparameters=values, has_offsets=has_offsets)
            )
    return models


def named_labels(models: Sequence[Candidate], names: Sequence[str]) -> dict[str, str]:
    """Return the label that the report uses for each label of a model: those of --names, if given.

    Files and folders of runs keep their names, so that --names may change later. A ConfigError is raised if there are
    more or fewer names than models, or a name occurs twice or cannot be in the name of a file.
    """
    labels = [model.label for model in models]
    if not names:
        return {label: label for label in labels}
    if len(names) != len(labels):
        what = f"has {len(names)} names for {len(labels)} models ({', '.join(labels)})"
        raise ConfigError("--names", what, fix="give one for each, in this order")
    for name in names:
        if UNSAFE_IN_NAMES.search(name) or not name or names.count(name) > 1:
            raise ConfigError("--names", f"{name!r} is given twice or cannot be in a file name", fix="change it")
    return dict(zip(labels, names, strict=True))


def write_configs(folder: Path, models: Sequence[ToTrain]) -> None:
    """Write each yaml as it was read to `configs/`; a ConfigError names one of which there is another version."""
    for model in models:
        path, hyp = model.kept_yamls(folder)
        config, hyperparameters = model.config.to_dict(), dict(model.hyperparameters)
        config_changed = path.is_file() and load_model_config(str(path)).to_dict() != config
        if config_changed or (hyp.is_file() and asdict(load_hyperparameters(str(hyp))) != hyperparameters):
            what = f"has changed since the runs in {folder} were started"
            source = (model.cfg or path) if config_changed else (model.hyp or hyp)
            raise ConfigError(source, what, fix="choose another --name")
        for file, content in ((path, config), (hyp, hyperparameters)):
            if not file.is_file():
                dump_yaml(file, content)


def differing_settings(model: TrainedRuns, baseline: TrainedRuns) -> list[str]:
    """Return what differs between the yamls, hyperparameters and training options of two models, one entry each."""
    values = differing_values(model.hyperparameters, baseline.hyperparameters) | differing_args(model, baseline)
    rows = differing_rows(model.config, baseline.config)
    return [*rows, *(f"{name}: {other} -> {value}" for name, (value, other) in values.items())]


def differing_args(model: TrainedRuns, baseline: TrainedRuns) -> dict[str, tuple[Any, Any]]:
    """Return by flag both values of the options of train.py that differ, are known of both, and change the result."""
    differing = differing_values(comparable_args(model.args), baseline.args)
    return {f"--{key.replace('_', '-')}": values for key, values in differing.items()}


def differing_rows(config: ModelConfig, baseline: ModelConfig) -> list[str]:
    """Return what differs between two model yamls.

    Equal numbers of rows are compared in pairs; otherwise the rows that were added and removed are listed.
    """
    ours, theirs = config.to_dict(), baseline.to_dict()
    rows, others = (content.pop("backbone") + content.pop("head") for content in (ours, theirs))
    changed = differing_values(ours, theirs)
    differences = [f"{key}: {other} -> {value}" for key, (value, other) in changed.items() if key != "nc"]
    if len(rows) == len(others):
        for index, (row, other) in enumerate(zip(rows, others, strict=True)):
            if row != other:
                start = 2 if row[:2] == other[:2] else 0  # inputs and repeats only where they differ
                differences.append(f"row {index}: {_row(other[start:])} -> {_row(row[start:])}")
        return differences
    differences.append(f"{len(rows)} rows instead of {len(others)}")
    # Rows are matched without the indices of their inputs, which an added or removed row shifts.
    before, after = ([_row(row[2:]) for row in part] for part in (others, rows))
    for kind, start, end, first, last in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if kind != "equal":
            differences += [f"row {index}: {before[index]} removed" for index in range(start, end)]
            differences += [f"row {index}: {after[index]} added" for index in range(first, last)]
    return differences


def _row(row: Sequence[Any]) -> str:
    return " ".join(map(str, row))


def header(
    options: CompareOptions, val: DatasetIndex, models: Sequence[TrainedRuns], *, device: torch.device, sizes: set[int]
) -> str:
    """Return in a few sentences what was trained and evaluated, and at which sizes of images if --imgsz sets them."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    split = {"val": "validation", "test": "test"}[options.task]
    sentences = [f"{options.data[0]}: {len(val)} {split} images with {len(val.labels)} objects, on {gpu}."]
    if options.cfg:
        trained = [model for model in models if not model.is_finished_weights]
        sentences.append(
            f"Trained from {_pretrained(options, trained)} with the same settings: {options.imgsz} px, "
            f"{options.epochs} epochs, batch {options.batch_size}, {options.optimizer}, {', '.join(options.hyp)}, "
            f"{''.join(f'{flag}, ' for flag in _further_flags(options))}seeds "
            f"{', '.join(map(str, options.all_seeds))}, the same data order and augmentation for all models."
        )
        sentences += _training_images(options, trained)
    finished = [model for model in models if model.is_finished_weights]
    known = [model.args for model in finished if model.args]
    common = [
        template.format(known[0][key])
        for key, template in DESCRIBED_ARGS.items()
        if known and key in known[0] and len({str(args.get(key)) for args in known}) == 1
    ]
    if common:
        sentences.append(f"The finished weights were trained with {', '.join(common)}.")
    sources = {model.label: _initial_weights(model) for model in finished}
    if set(sources.values()) - {UNKNOWN}:
        listed = ": " + ", ".join(f"{label} from {source}" for label, source in sources.items())
        same = f" from {sources[finished[0].label]}" if len(set(sources.values())) == 1 else listed
        sentences.append(f"The finished weights were trained{same}.")
    if sizes and finished:
        listed = " and ".join(map(str, sorted(sizes)))
        sentences.append(f"All models were evaluated at {listed} px, as set by --imgsz.")
    return " ".join(sentences)


def _pretrained(options: CompareOptions, trained: Sequence[TrainedRuns]) -> str:
    """Return what the models to train start from, with the fraction of its parameters that each model got."""
    if not options.pretrained:
        return "scratch"
    fractions = {model.label: model.transferred_fraction for model in trained}
    known = ", ".join(f"{fraction:.1%} of {label}" for label, fraction in fractions.items() if fraction is not None)
    return f"{options.pretrained}{f' (it provides {known})' if known else ''}"


def _further_flags(options: CompareOptions) -> list[str]:
    """Return the flags of the trainings that differ from the defaults and that the header does not name otherwise."""
    flags = []
    for field in fields(TrainingOptions):
        value = getattr(options, field.name)
        if value != field.default and field.name not in NON_SEMANTIC_OPTIONS | NAMED_OPTIONS:
            values = () if value is True else value if isinstance(value, tuple) else (value,)
            flags.append(" ".join(["--" + field.name.replace("_", "-"), *map(str, values)]))
    return flags


def _training_images(options: CompareOptions, trained: Sequence[TrainedRuns]) -> list[str]:
    """Return a sentence on the images that --fraction left, as far as known."""
    runs = [run for model in trained for run in model.runs if run.training_images is not None]
    if options.fraction == 1 or not runs:
        return []
    objects = sorted({run.training_objects or 0 for run in runs})
    span = " to ".join(map(str, dict.fromkeys((objects[0], objects[-1]))))
    return [f"Each seed draws {runs[0].training_images} training images of its own, with {span} objects."]


def _initial_weights(model: TrainedRuns) -> str:
    """Return what finished weights were trained from: a file and the fraction of parameters it provided, or scratch."""
    source = model.args.get("weights")
    if not source:
        return UNKNOWN if source is None else "scratch"
    fraction = model.transferred_fraction
    return str(source) if fraction is None else f"{source} ({fraction:.1%} of the parameters)"
