"""Finds the run that --resume means, and checks that its checkpoint holds what such a run would have written.

The hash of a checkpoint shows that it is intact, not that this program wrote it. Whatever training relies on is checked
before anything is built from it, so that a wrong value is a one-line error and not a failure within an epoch.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

from utils.errors import CheckpointError, ConfigError
from utils.files import load_json
from utils.losses.detection import COMPONENTS
from utils.options import TrainOptions
from utils.options.hyperparameters import Hyperparameters, check_hyperparameters
from utils.training.state import LAST, SUMMARY, Progress, TrainState, load_last, with_current_fields
from utils.weights.checkpoint import Checkpoint, stored_network
from utils.weights.restricted_pickle import printable, type_name

CHANGEABLE = frozenset(
    "resume epochs device dist_timeout workers patience save_period nosave noval noplots cache data plugins".split()
)
MAX_INTEGER = 2**53
ADVICE = "resume another checkpoint, such as last.bak.pt, or start a new run"
# The values of an optimizer's group that come from the checkpoint; all others follow from the run's options.
STORED_RATES = ("lr", "momentum", "weight_decay", "lr_factor")


def find_run(options: TrainOptions, given: frozenset[str]) -> tuple[TrainOptions, Checkpoint, Path]:
    """Return the options of an interrupted run, its checkpoint and its folder.

    `options.resume` names a checkpoint, or is "newest"; of the options `given` explicitly, those in `CHANGEABLE`
    replace the run's own.

    Raises:
        CheckpointError: there is no such run, it is finished, or its checkpoint is invalid.
        ConfigError: an option was given that cannot change within a run.
    """
    path = Path(options.resume)
    if options.resume == "newest":
        checkpoints = sorted(Path(options.project).rglob(LAST), key=lambda p: p.stat().st_mtime)
        if not checkpoints:
            raise CheckpointError("--resume", f"no {LAST} below {options.project}", fix="name the file")
        path = checkpoints[-1]
    elif path.is_dir():
        path = next((p for p in (path / "weights" / LAST, path / LAST) if p.is_file()), path)
    content, path = load_last(path)
    if "optimizer" not in content:
        raise CheckpointError(path, "holds a model without training state", fix=f"resume {LAST}, not best.pt")
    fixed = sorted(given - CHANGEABLE - {"project"})
    if fixed:
        flags = ", ".join("--" + name.replace("_", "-") for name in fixed)
        raise ConfigError("--resume", f"uses the run's own options; {flags} cannot change", fix="leave them out")
    stored = check_run(content, path)
    if "data" not in given and os.path.isabs(stored.data) and not os.path.exists(stored.data):
        what = f"was trained on {stored.data}, which does not exist"
        raise ConfigError(path, what, fix="pass its new path as --data")
    changed = {name: getattr(options, name) for name in given & CHANGEABLE}
    resumed = replace(stored, **{**changed, "resume": str(path)})
    folder = path.resolve().parent
    if folder.name != "weights":  # the run would be written into an unrelated folder
        raise CheckpointError(path, "lies outside its run's folder", fix=f"put it back as weights/{LAST} of its run")
    progress, summary = Progress.from_dict(content["progress"]), folder.parent / SUMMARY
    epochs, begun = progress.epoch, progress.epoch + bool(progress.batch)
    if resumed.epochs < begun:
        what = f"must not be below {begun}, the epochs that the run has begun (got {resumed.epochs})"
        raise ConfigError("--epochs", what, fix="pass more, or evaluate the run's best.pt with val.py")
    # A run that was stopped in its last evaluation has no summary yet.
    summarized = load_json(summary) if summary.is_file() else None
    if epochs >= resumed.epochs and isinstance(summarized, dict) and summarized.get("epochs") == epochs:
        fix = "extend it with --epochs, or start a new run"
        raise CheckpointError(path, f"has finished its {resumed.epochs} epochs", fix=fix)
    return resumed, content, folder.parent


def check_run(content: Checkpoint, path: Path | str) -> TrainOptions:
    """Check what a run's model and data are built from, and its progress; return the run's options.

    An option or hyperparameter out of range is a ConfigError, anything that a run does not write a CheckpointError.
    """
    check = _Checks(path)
    options = check.options(content.get("options"))
    stored_network(content, path)
    stored_hyperparameters(content, path)
    check.progress(content.get("progress"), image_weights=options.image_weights)
    check.require(type(content.get("dataset")) is str, "dataset")
    return options


def stored_hyperparameters(content: Checkpoint, path: Path | str) -> Hyperparameters:
    """Return the hyperparameters in a run's checkpoint, checked as in `check_run`."""
    stored = _Checks(path).typed(content.get("hyperparameters"), Hyperparameters, "hyperparameters")
    return check_hyperparameters(stored, where=str(path))


def validate_checkpoint(content: Checkpoint, state: TrainState, *, batches: int, path: Path | str) -> Checkpoint:
    """Check a checkpoint that `check_run` accepted against the state that is to be restored from it.

    `state` is that of a new run with the same options. Returns the checkpoint as `load_state_dict` takes it: with
    complete optimizer groups, and a scaler if one is used. Another number of processes is a ConfigError.
    """
    check = _Checks(path)
    weights = state.model.state_dict()
    for name in ("model", "ema"):
        check.tensors(content.get(name), weights, name, complete=True)
    gradients, size = content.get("gradients"), state.context.size
    check.require(isinstance(gradients, list) and len(gradients) > 0, "gradients")
    if len(content["gradients"]) != size:
        what = f"the run had {len(content['gradients'])} processes (now {size})"
        raise ConfigError("--resume", what, fix="start as many")
    for rank in range(size):
        check.tensors(content["gradients"][rank], dict(state.model.named_parameters()), f"gradients {rank}")
    check.require(content["progress"].get("batch", 0) <= batches, "progress: batch")
    check.require(matches_type(content.get("updates"), int) and content["updates"] >= 0, "updates")
    check.require(isinstance(content.get("machine", {}), dict), "machine")
    optimizer = check.optimizer(content["optimizer"], state.optimizer)
    return {**content, "optimizer": optimizer, "scaler": check.scaler(content.get("scaler"), state.scaler.state_dict())}


def matches_type(value: object, hint: Any) -> bool:  # noqa: ANN401 - a type, or an alias of one
    """Whether a value from a file has a field's type, with lists accepted as tuples and integers as floats."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (list, tuple):
        return isinstance(value, (list, tuple)) and all(matches_type(item, inner[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(
            matches_type(key, inner[0]) and matches_type(item, inner[1]) for key, item in value.items()
        )
    if type(value) is int:
        return hint in (int, float) and abs(value) <= MAX_INTEGER
    return type(value) is hint


@dataclass(frozen=True)
class _Checks:
    """Checks of a checkpoint's parts; each raises a CheckpointError that names the file and the part."""

    path: Path | str

    def error(self, what: str) -> CheckpointError:
        return CheckpointError(self.path, f"has an invalid {what}", fix=ADVICE)

    def require(self, condition: bool, what: str) -> None:
        if not condition:
            raise self.error(what)

    def typed(self, stored: object, kind: type[Any], what: str) -> dict[str, Any]:
        """Return a mapping whose values have the types of a dataclass's fields; other keys are not checked."""
        stored = self.mapping(stored, what)
        hints = get_type_hints(kind)
        for field in fields(kind):
            if field.name in stored and not matches_type(stored[field.name], hints[field.name]):
                raise self.error(f"{what}: {field.name} ({type_name(stored[field.name])})")
        return stored

    def mapping(self, stored: object, what: str, kind: type[Any] = object) -> dict[str, Any]:
        """Return a mapping from names to values of a type."""
        if isinstance(stored, dict) and all(type(key) is str and isinstance(v, kind) for key, v in stored.items()):
            return stored
        problem = f"{what} is missing" if stored is None else f"has a {type_name(stored)} as {what}"
        raise CheckpointError(self.path, problem, fix=ADVICE)

    def options(self, stored: object) -> TrainOptions:
        """Return the run's options, ignoring those of an older or newer version."""
        stored = self.typed(stored, TrainOptions, "options")
        values: dict[str, Any] = {}
        for field in fields(TrainOptions):
            if field.name in stored:
                value, choices = stored[field.name], field.metadata.get("choices")
                self.require(not choices or value in choices, f"options: {field.name}")
                values[field.name] = tuple(value) if isinstance(value, list) else value
        self.require(len(values.get("freeze", (0,))) > 0, "options: freeze")
        return TrainOptions(**values)

    def progress(self, stored: object, *, image_weights: bool) -> None:
        stored = self.typed(with_current_fields(stored), Progress, "progress")
        unknown = sorted(stored.keys() - {field.name for field in fields(Progress)})
        if unknown:
            raise self.error(f"progress: {printable(unknown[0])!r}")
        progress = Progress.from_dict(stored)
        smallest = {"batch": 0, "counted": 0, "last_step": -1, "skipped": 0, "best_epoch": -1}
        valid = {name: getattr(progress, name) >= low for name, low in smallest.items()} | {
            "means": not progress.batch or set(progress.means) == set(COMPONENTS),
            "best_fitness": math.isfinite(progress.best_fitness),
            "seconds": 0 <= progress.seconds <= MAX_INTEGER,
            "class_ap": not image_weights or all(0 <= ap <= 1.001 for ap in progress.class_ap),
            "rows": [row.get("epoch") for row in progress.rows] == list(range(len(progress.rows))),
        }
        valid["epoch"] = progress.epoch == len(progress.rows)
        for name, holds in valid.items():
            self.require(holds, f"progress: {name}")

    def tensors(self, stored: object, expected: Mapping[str, Tensor], what: str, *, complete: bool = False) -> None:
        """Check that tensors are finite and have the shapes of the model's; with `complete` that none is missing."""
        stored = self.mapping(stored, what, Tensor)
        for name in {**expected, **stored} if complete else stored:
            problem = ""
            if name not in stored:
                problem = f"{name} is missing in its {what}"
            elif name not in expected:
                problem = f"has a tensor {printable(name)} in its {what} that the model does not have"
            elif not _is_like(stored[name], expected[name]):
                shapes = (" x ".join(map(str, t.shape)) or "one number" for t in (stored[name], expected[name]))
                problem = f"has a {name} of {' instead of '.join(shapes)} in its {what}, or values that are not finite"
            if problem:
                raise CheckpointError(self.path, problem, fix=ADVICE)

    def optimizer(self, stored: object, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """Return the optimizer's state, with its groups completed from a new optimizer."""
        new_groups = optimizer.state_dict()["param_groups"]
        groups, state = (stored.get(key) if isinstance(stored, dict) else None for key in ("param_groups", "state"))
        if not isinstance(groups, list) or len(groups) != len(new_groups) or not isinstance(state, dict):
            raise self.error("optimizer")
        completed = [self._optimizer_group(group, new) for group, new in zip(groups, new_groups, strict=True)]
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        names = {"exp_avg", "exp_avg_sq", "step"} if "betas" in new_groups[0] else {"momentum_buffer"}
        for index, entry in state.items():
            known = type(index) is int and 0 <= index < len(parameters)
            valid = known and isinstance(entry, dict) and set(entry) == names
            valid = valid and all(_is_optimizer_value(name, entry[name], parameters[index]) for name in names)
            self.require(valid, f"optimizer: state {printable(str(index))}")
        return {"state": state, "param_groups": completed}

    def _optimizer_group(self, group: object, new: dict[str, Any]) -> dict[str, Any]:
        """Return a parameter group: the rates from the checkpoint, everything else from the new optimizer."""
        if not isinstance(group, dict) or not matches_type(group.get("params"), list[int]):
            raise self.error("optimizer: groups")
        self.require((list(group["params"]), group.get("kind")) == (new["params"], new["kind"]), "optimizer: groups")
        rates = {name: group.get(name) for name in STORED_RATES if name in new}
        self.require(all(_is_finite_positive(rate) for rate in rates.values()), "optimizer: rates")
        if "betas" in new:
            betas: Any = group.get("betas")
            valid = matches_type(betas, tuple[float, ...]) and len(betas) == 2 and all(0 <= beta < 1 for beta in betas)
            self.require(valid, "optimizer: betas")
            rates["betas"] = tuple(betas)
        return {**new, **rates}

    def scaler(self, stored: object, new: dict[str, Any]) -> dict[str, Any]:
        """Return the state of the loss scaler: the new one's if a run on another device had none."""
        stored = self.mapping(stored, "scaler")
        if not new or not stored:
            return new
        for name, value in new.items():
            valid = _is_finite_positive(stored.get(name)) and (type(stored[name]) is int or type(value) is float)
            self.require(valid and (name != "scale" or stored[name] > 0), f"scaler: {name}")
        return {name: stored[name] for name in new}


def _is_like(value: object, expected: Tensor) -> bool:
    """Whether a value is a finite tensor with the shape of another, and like it of floating point or not."""
    if not isinstance(value, Tensor) or value.shape != expected.shape:
        return False
    if not value.is_floating_point():
        return not expected.is_floating_point()
    return expected.is_floating_point() and bool(value.isfinite().all())


def _is_optimizer_value(name: str, value: object, parameter: Tensor) -> bool:
    """Whether a value can be an optimizer's step count or its moment of a parameter."""
    if name == "step":
        scalar = isinstance(value, Tensor) and value.ndim == 0 and value.is_floating_point()
        return _is_finite_positive(float(value) if scalar else value)  # type: ignore[arg-type]
    return _is_like(value, parameter) or (value is None and name == "momentum_buffer")


def _is_finite_positive(value: object) -> bool:
    """Whether a value is a finite number of at least 0."""
    return matches_type(value, float) and 0 <= value < math.inf  # type: ignore[operator]
