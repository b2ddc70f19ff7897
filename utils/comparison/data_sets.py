"""The data sets of a comparison: their labels, and which finished runs were trained on which of them."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from utils.comparison.checks import changed_since
from utils.comparison.trained_runs import (
    SEED_IN_NAME,
    TrainedRun,
    TrainedRuns,
    comparable_args,
    from_weights,
    group_runs,
    read_runs,
)
from utils.datasets.config import DataConfig, load_data_config
from utils.datasets.split_checks import overlapping_images
from utils.datasets.splits import open_data
from utils.errors import ConfigError, DetectorError
from utils.files import unique_name

OTHER_FOLDERS = ("configs", "examples", "figures", "predictions", "sampling", "tables", "test")  # of a comparison


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """One data set of a comparison."""

    label: str  # unique in the comparison
    name: str  # as the user names it
    config: DataConfig
    folder: str  # name of its folder in that of the comparison; empty if there is no other data set


def open_data_sets(names: Sequence[str]) -> list[DataSet]:
    """Open the data sets of --data. A ConfigError is raised if one is listed twice, a DetectorError if one is wrong.

    They are labelled by the stem of the yaml or, as many are called data.yaml, by that of its folder if several have
    the same.
    """
    configs = [open_data(name) for name in names]
    files = [config.file.resolve() for config in configs]
    stems = [file.stem for file in files]
    labels: list[str] = []
    for index, file in enumerate(files):
        if file in files[:index]:
            raise ConfigError("--data", f"lists {names[index]} twice", fix="remove one")
        label = file.stem if stems.count(file.stem) == 1 else file.parent.name or file.stem
        labels.append(unique_name(label, [*OTHER_FOLDERS, *labels]))
    return [
        DataSet(label=label, name=name, config=config, folder=label if len(names) > 1 else "")
        for label, name, config in zip(labels, names, configs, strict=True)
    ]


def finished_models(
    patterns: Sequence[str], sets: Sequence[DataSet], *, taken: Collection[str] = ()
) -> list[dict[int, TrainedRuns]]:
    """Read finished weights; return each model as its runs by index of the data set that they were trained on.

    With one data set, all are evaluated on it. Of several, `data` in the options of a run names its own, or else the
    fingerprint of the training split does. Runs on different sets are of the same model if they were trained in the
    same way, or if network and label are the same. Models are in the order of their first files.

    Raises:
        DetectorError: as of `from_weights`; a ConfigError also for a run that was trained on none of the sets.
    """
    if len(sets) == 1:
        return [{0: model} for model in from_weights(patterns, names=sets[0].config.names, taken=taken)]
    runs = read_runs(patterns)
    by_set: list[list[TrainedRun]] = [[] for _ in sets]
    for run in runs:
        by_set[_trained_on(run, sets)].append(run)
    models: list[dict[int, TrainedRuns]] = []
    for index, (data_set, of_set) in enumerate(zip(sets, by_set, strict=True)):
        found = group_runs(of_set, names=data_set.config.names)
        _add_to_models(models, index, [replace(one, label=_without(data_set.label, one.label)) for one in found])
    order = [run.path for run in runs]
    models.sort(key=lambda model: min(order.index(run.path) for of_set in model.values() for run in of_set.runs))
    labels = list(taken)
    for model in models:
        common = {of_set.label for of_set in model.values()}
        first = next(iter(model.values()))
        label = unique_name(common.pop() if len(common) == 1 else Path(first.config.name).stem, labels)
        labels.append(label)
        model.update({index: replace(of_set, label=label) for index, of_set in model.items()})
    return models


def _trained_on(run: TrainedRun, sets: Sequence[DataSet]) -> int:
    """Return the index of the data set that a run was trained on; a ConfigError if it is none of them."""
    name = str(run.args.get("data", ""))
    with contextlib.suppress(DetectorError):
        file = load_data_config(name).file.resolve() if name else None
        for index, data_set in enumerate(sets):
            if data_set.config.file.resolve() == file:
                return index
    for index, data_set in enumerate(sets) if run.dataset else ():
        with contextlib.suppress(DetectorError):  # without a training split
            if not changed_since([(run.path, run.dataset, run.args)], data_set.config):
                return index
    what = f"was trained on {name or 'unknown data'}, not on a data set of --data"
    raise ConfigError(run.path, what, fix="add its data yaml to --data, or leave it out")


def _add_to_models(models: list[dict[int, TrainedRuns]], index: int, of_set: Sequence[TrainedRuns]) -> None:
    """Add the models of one data set, by its index, to those of the sets before, by the best match first."""
    left = list(of_set)
    for kind in range(3):
        for one in list(left):
            candidates = (model for model in models if index not in model)
            same = (m for m in candidates if _identities(next(iter(m.values())))[kind] == _identities(one)[kind])
            match = next(same, None)
            if match is not None:
                match[index] = one
                left.remove(one)
    models += [{index: one} for one in left]


def _identities(model: TrainedRuns) -> tuple[object, object, object]:
    """Return what identifies a model whatever the data set: training and label, the training, network and label."""
    network = model.config.to_dict() | {"anchors": None, "nc": None}
    args = {key: value for key, value in comparable_args(model.args).items() if key != "data"}
    training = json.dumps([network, args, model.hyperparameters], sort_keys=True, default=str)
    return (training, model.label), training, (json.dumps(network, sort_keys=True, default=str), model.label)


def _without(data_set: str, label: str) -> str:
    """Return the label of a model without its seed and the name of a data set; unchanged if nothing would be left."""
    rest = SEED_IN_NAME.sub("", label)
    rest = re.sub(rf"(^|[-_. ]+){re.escape(data_set)}(?=[-_. ]|$)", "", rest, count=1, flags=re.IGNORECASE)
    return rest.strip("-_. ") or label


def overlap_warnings(sets: Sequence[DataSet], paths: Sequence[Sequence[str]]) -> list[str]:
    """Warn of images that are in the evaluated splits of two data sets, given their paths."""
    warnings = []
    for index, (data_set, images) in enumerate(zip(sets, paths, strict=True)):
        for other, others in zip(sets[:index], paths[:index], strict=True):
            shared = overlapping_images(others, images)
            if shared:
                warnings.append(
                    f"{len(shared)} evaluation images of {data_set.label} are also in {other.label}; the joint "
                    "interval treats the data sets as independent."
                )
    return warnings
