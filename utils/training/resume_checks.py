"""Whether a run can go on from a checkpoint: all that it holds must be what the run would have written itself.

A checkpoint's hash says that it is whole, not that a run wrote it. What training relies on is looked at before anything
is built on it, so that a wrong value is told in one line, and not by a failure in the middle of an epoch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

from utils.errors import CheckpointError, ConfigError
from utils.losses.detection import COMPONENTS
from utils.options import TrainOptions
from utils.options.hyperparameters import Hyperparameters, check_hyperparameters
from utils.training.state import TrainState
from utils.weights.checkpoint import Checkpoint, stored_network
from utils.weights.restricted_pickle import printable, type_name

if TYPE_CHECKING:
    from utils.training.trainer import Trainer

MAX_INTEGER = 2**53
ADVICE = "resume another checkpoint, such as last.bak.pt, or start a new run"
# What an optimizer's group keeps as it was; all else follows from the run's options.
KEPT_NUMBERS = ("lr", "momentum", "weight_decay", "lr_factor")
MOMENTS = {"SGD": ("momentum_buffer",), "Adam": ("exp_avg", "exp_avg_sq"), "AdamW": ("exp_avg", "exp_avg_sq")}


def check_run(content: Checkpoint, path: Path | str) -> TrainOptions:
    """Check all of a run's checkpoint that can be checked before its parts are built.

    Args:
        content: what `load_checkpoint` returned, with an "optimizer" in it.
        path: the file, for messages.

    Returns:
        The run's options.

    Raises:
        CheckpointError: something is missing, or of another type, shape or range than a run writes.
        ConfigError: an option or hyperparameter is out of its range.
    """
    options = _options(content, path)
    stored_network(content, path)
    stored_hyperparameters(content, path)
    _check_progress(content, options, path)
    for name in ("model", "ema"):
        _require_finite(_tensors(content.get(name), name, path), name, path)
    _require(fits(content.get("updates"), int) and content["updates"] >= 0, "updates", path)
    _require(isinstance(content.get("machine", {}), dict), "machine", path)
    _require(type(content.get("dataset")) is str, "dataset", path)
    gradients = content.get("gradients")
    _require(isinstance(gradients, list) and len(gradients) > 0, "gradients", path)
    for number, own in enumerate(content["gradients"]):
        _require_finite(_tensors(own, f"gradients {number}", path), f"gradients {number}", path)
    _require(isinstance(content.get("scaler"), dict), "scaler", path)
    try:
        torch.Generator().set_state(content.get("random"))  # type: ignore[arg-type]
    except (RuntimeError, TypeError) as error:
        raise _error("random", path) from error
    return options


def stored_hyperparameters(content: Checkpoint, path: Path | str) -> Hyperparameters:
    """Return the recipe of a run's checkpoint.

    Raises:
        CheckpointError: it holds none.
        ConfigError: a number is out of its range.
    """
    stored = _typed(content.get("hyperparameters"), Hyperparameters, "hyperparameters", path)
    return check_hyperparameters(stored, where=str(path))


def fitted(content: Checkpoint, trainer: Trainer, path: Path | str) -> Checkpoint:
    """Check a checkpoint against the parts that are to go on from it.

    Args:
        content: one that `check_run` has passed.
        trainer: a fresh one, of the run's options.
        path: the file, for messages.

    Returns:
        The checkpoint as `restore_run` takes it: the optimizer's settings complete, and a scaler where one is used.

    Raises:
        CheckpointError: a tensor has another shape than its parameter, or state is missing.
        ConfigError: the run had another number of processes.
    """
    own = trainer.model.state_dict()
    for name in ("model", "ema"):
        _require_alike(content[name], own, name, path, complete=True)
    pending = content["gradients"]
    if len(pending) != trainer.team.size:
        what = f"the run had {len(pending)} processes (now {trainer.team.size})"
        raise ConfigError("--resume", what, fix="start as many")
    parameters = dict(trainer.model.named_parameters())
    for number, gradients in enumerate(pending):
        _require_alike(gradients, parameters, f"gradients {number}", path)
    _require(content["progress"].get("batch", 0) <= trainer.schedule.batches, "progress batch", path)
    return {**content, "optimizer": _optimizer(content, trainer, path), "scaler": _scaler(content, trainer, path)}


def fits(value: object, hint: Any) -> bool:  # noqa: ANN401 - a type, or an alias of one
    """Whether a value read from a file is of a field's type; lists pass for tuples, whole numbers for fractions."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (list, tuple):
        return isinstance(value, (list, tuple)) and all(fits(item, inner[0]) for item in value)
    if origin is dict:
        if not isinstance(value, dict):
            return False
        return all(fits(key, inner[0]) and fits(item, inner[1]) for key, item in value.items())
    if type(value) is int:
        return hint in (int, float) and abs(value) <= MAX_INTEGER
    return type(value) is hint


def _error(what: str, path: Path | str) -> CheckpointError:
    return CheckpointError(path, f"has {what} that no run writes", fix=ADVICE)


def _misplaced(value: object, what: str, path: Path | str) -> CheckpointError:
    said = f"lacks its {what}" if value is None else f"has no {what} in their place but another {type_name(value)}"
    return CheckpointError(path, said, fix=ADVICE)


def _require(condition: bool, what: str, path: Path | str) -> None:
    if not condition:
        raise _error(what, path)


def _typed(stored: object, kind: type[Any], what: str, path: Path | str) -> dict[str, Any]:
    """Return a mapping whose values are of the types of a dataclass's fields; other keys stay as they are."""
    if not isinstance(stored, dict) or not all(type(key) is str for key in stored):
        raise _misplaced(stored, what, path)
    hints = get_type_hints(kind)
    for field in fields(kind):
        if field.name in stored and not fits(stored[field.name], hints[field.name]):
            raise _error(f"{what} with a {field.name} ({type_name(stored[field.name])})", path)
    return stored


def _options(content: Checkpoint, path: Path | str) -> TrainOptions:
    """Return the run's options; those of a newer or older program are left out."""
    stored = _typed(content.get("options"), TrainOptions, "options", path)
    values: dict[str, Any] = {}
    for field in fields(TrainOptions):
        if field.name in stored:
            value, choices = stored[field.name], field.metadata.get("choices")
            _require(not choices or value in choices, f"options with {field.name}", path)
            values[field.name] = tuple(value) if isinstance(value, list) else value
    _require(len(values.get("freeze", (0,))) > 0, "options with freeze", path)
    return TrainOptions(**values)


def _check_progress(content: Checkpoint, options: TrainOptions, path: Path | str) -> None:
    """Check where the run says it stands."""
    stored = _typed(content.get("progress"), TrainState, "progress", path)
    known = {field.name for field in fields(TrainState)}
    unknown = sorted(stored.keys() - known)
    if unknown:
        raise _error(f"progress with {printable(unknown[0])!r}", path)
    progress = TrainState.from_dict(stored)
    checks = {
        "epoch": progress.epoch >= 0,
        "batch": progress.batch >= 0,
        "means": not progress.batch or set(progress.means) == set(COMPONENTS),
        "counted": progress.counted >= 0,
        "last_step": progress.last_step >= -1,
        "skipped": progress.skipped >= 0,
        "best_fitness": math.isfinite(progress.best_fitness),
        "best_epoch": progress.best_epoch >= -1,
        "seconds": 0 <= progress.seconds <= MAX_INTEGER,
        "class_ap": not options.image_weights or all(0 <= ap <= 1.001 for ap in progress.class_ap),
        "rows": [row.get("epoch") for row in progress.rows] == list(range(progress.epoch))
        if progress.epoch == len(progress.rows)
        else False,
    }
    for name, holds in checks.items():
        _require(holds, f"progress with {name}", path)


def _tensors(value: object, what: str, path: Path | str) -> dict[str, Tensor]:
    """Return a mapping from names to tensors."""
    if not isinstance(value, dict) or not all(type(k) is str and isinstance(v, Tensor) for k, v in value.items()):
        raise _misplaced(value, what, path)
    return value


def _require_finite(tensors: Mapping[str, Tensor], what: str, path: Path | str) -> None:
    for name, tensor in tensors.items():
        _require(not tensor.is_floating_point() or bool(tensor.isfinite().all()), f"{what} {printable(name)}", path)


def _require_alike(
    stored: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    what: str,
    path: Path | str,
    *,
    complete: bool = False,
) -> None:
    """Check that tensors have the shapes, and kinds of numbers, of the network's of the same names."""
    names: Iterable[str] = {**own, **stored} if complete else stored
    for name in names:
        if name not in own or name not in stored:
            said = f"has a tensor {printable(name)} in its {what} that the network has not"
            raise CheckpointError(path, said if name in stored else f"lacks {name} in its {what}", fix=ADVICE)
        theirs, ours = stored[name], own[name]
        if theirs.shape != ours.shape or theirs.is_floating_point() != ours.is_floating_point():
            sides = (" x ".join(map(str, t.shape)) or "one number" for t in (theirs, ours))
            raise CheckpointError(path, f"has a {name} of {' instead of '.join(sides)} in its {what}", fix=ADVICE)


def _optimizer(content: Checkpoint, trainer: Trainer, path: Path | str) -> dict[str, Any]:
    """Return the optimizer's state, its groups completed by what the run's options say."""
    stored, fresh = content["optimizer"], trainer.optimizer.state_dict()
    _require(isinstance(stored, dict), "an optimizer", path)
    groups, state = stored.get("param_groups"), stored.get("state")
    matching = isinstance(groups, list) and len(groups) == len(fresh["param_groups"])
    _require(matching and isinstance(state, dict), "an optimizer", path)
    completed = []
    for group, own in zip(groups, fresh["param_groups"], strict=True):
        known = isinstance(group, dict) and fits(group.get("params"), list[int]) and fits(group.get("kind"), str)
        alike = known and (list(group["params"]), group["kind"]) == (own["params"], own["kind"])
        _require(alike, "an optimizer with groups", path)
        kept = {name: group.get(name) for name in KEPT_NUMBERS if name in own}
        _require(all(_is_amount(number) for number in kept.values()), "an optimizer with rates", path)
        if "betas" in own:
            betas = group.get("betas")
            pair = isinstance(betas, (list, tuple)) and len(betas) == 2 and all(_is_amount(b) and b < 1 for b in betas)
            _require(pair, "an optimizer with betas", path)
            kept["betas"] = tuple(betas)
        completed.append({**own, **kept})
    parameters = [parameter for group in trainer.optimizer.param_groups for parameter in group["params"]]
    moments = MOMENTS[trainer.options.optimizer]
    for index, entry in state.items():
        what = f"an optimizer with state {printable(str(index))}"
        _require(type(index) is int and 0 <= index < len(parameters) and isinstance(entry, dict), what, path)
        wanted = {*moments, *(("step",) if trainer.options.optimizer != "SGD" else ())}
        _require(set(entry) == wanted, what, path)
        shape = parameters[index].shape
        for name in moments:
            moment = entry[name]
            missing = moment is None and name == "momentum_buffer"
            alike = isinstance(moment, Tensor) and moment.shape == shape and moment.is_floating_point()
            _require(missing or (alike and bool(moment.isfinite().all())), what, path)
        if "step" in wanted:
            step = entry["step"]
            counted = isinstance(step, Tensor) and step.ndim == 0 and step.is_floating_point()
            _require((counted and _is_amount(float(step))) or _is_amount(step), what, path)
    return {"state": state, "param_groups": completed}


def _scaler(content: Checkpoint, trainer: Trainer, path: Path | str) -> dict[str, Any]:
    """Return the state of the loss's scale: the stored one where one is in use; a run from a CPU has none."""
    stored: dict[str, Any] = content["scaler"]
    fresh = trainer.scaler.state_dict()
    if not fresh or not stored:
        return fresh
    for name, number in fresh.items():
        alike = _is_amount(stored.get(name)) and (type(stored[name]) is int or type(number) is float)
        _require(alike and (name != "scale" or stored[name] > 0), f"a scaler with {name}", path)
    return {name: stored[name] for name in fresh}


def _is_amount(value: object) -> bool:
    """Whether a value is a finite number from 0."""
    return fits(value, float) and 0 <= value < math.inf  # type: ignore[operator]
