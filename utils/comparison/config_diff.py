"""How the models of a comparison were trained: the lines that did it, and what differs between them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from difflib import SequenceMatcher
from typing import Any

from models.config import ModelConfig
from utils.comparison.candidates import COMPARED_BY_CONTENT, NON_SEMANTIC_OPTIONS, Candidate
from utils.comparison.plan import train_words
from utils.errors import DetectorError
from utils.options import TrainOptions
from utils.options.hyperparameters import load_hyperparameters

DEFAULTS = TrainOptions()


def differing_rows(config: ModelConfig, baseline: ModelConfig) -> list[str]:
    """Say in words what a model's yaml has otherwise than the baseline's.

    Of equally many rows each is set beside its counterpart; else those are told that come in and go out.
    """
    ours, theirs = config.to_dict(), baseline.to_dict()
    found = [
        f"{key}: {theirs[key]} -> {ours[key]}"
        for key in ours
        if key not in ("backbone", "head", "nc") and ours[key] != theirs[key]
    ]
    rows, others = ours["backbone"] + ours["head"], theirs["backbone"] + theirs["head"]
    if len(rows) == len(others):
        for number, (row, other) in enumerate(zip(rows, others, strict=True)):
            if row != other:
                whole = row[:2] != other[:2]  # where it takes its input from, and how often it is repeated
                found.append(f"row {number}: {_row(other, whole=whole)} -> {_row(row, whole=whole)}")
        return found
    found.append(f"{len(rows)} rows instead of {len(others)}")
    # Rows are paired by what they are: where one comes in, the numbers that later ones take their input from all move.
    before, after = ([_row(row, whole=False) for row in every] for every in (others, rows))
    for kind, start, end, first, last in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if kind != "equal":
            gone = [f"row {start + number}: {text} left out" for number, text in enumerate(before[start:end])]
            found += [*gone, *(f"row {first + number}: {text} new" for number, text in enumerate(after[first:last]))]
    return found


def _row(row: Sequence[Any], *, whole: bool) -> str:
    """Return a yaml's row as text: module and arguments, or all of it."""
    return " ".join(map(str, row if whole else row[2:]))


def differing_recipe(
    candidate: Candidate, baseline: Candidate, options: tuple[Mapping[str, Any], Mapping[str, Any]] = ({}, {})
) -> list[str]:
    """Say in words which hyperparameters and options a model was trained with otherwise than the baseline.

    Only what is known of both is compared; the seed and what changes no result is left out.

    Args:
        candidate: a model.
        baseline: another one.
        options: of train.py, with which either was trained.
    """
    numbers, others = candidate.hyperparameters, baseline.hyperparameters
    found = [f"{key}: {others[key]} -> {value}" for key, value in numbers.items() if others.get(key, value) != value]
    return found + [f"{flag}: {theirs} -> {ours}" for flag, ours, theirs in _differing_options(*options)]


def _differing_options(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Return flag and both values of the options that differ, of those that are known of both and change a result."""
    return [
        (f"--{key.replace('_', '-')}", value, theirs[key])
        for key, value in ours.items()
        if key not in NON_SEMANTIC_OPTIONS | COMPARED_BY_CONTENT and theirs.get(key, value) != value
    ]


def options_of(candidate: Candidate, planned: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the options of train.py that a model was trained with, as far as known.

    Args:
        candidate: of the comparison.
        planned: options of the comparison's own runs; empty without any.
    """
    return candidate.options or (planned if candidate.cfg else {})


def differing_training_args(candidates: Sequence[Candidate], planned: Mapping[str, Any]) -> list[str]:
    """Say which models were trained with other options of train.py than the first one of which they are known.

    Another hyperparameter may be what is compared; another number of epochs or data set hardly is.
    """
    known = [(one, options_of(one, planned)) for one in candidates if options_of(one, planned)]
    found = []
    for candidate, options in known[1:]:
        differing = [
            f"{flag} {ours} instead of {theirs}" for flag, ours, theirs in _differing_options(options, known[0][1])
        ]
        if differing:
            found.append(f"{candidate.label} with {', '.join(differing)}")
    if not found:
        return []
    return [f"Not trained alike ({known[0][0].label} being the measure): {'; '.join(found)}."]


def training_commands(candidates: Sequence[Candidate]) -> list[str]:
    """Return the lines that trained finished weights, as far as their options are known.

    They name the yamls as those runs did, and nothing of where a run was to lie; a comment tells of numbers that do not
    stand in the hyperparameter yaml any more.
    """
    commands = []
    for candidate in candidates:
        if not candidate.weights or not candidate.options:
            continue
        changed = _changed_since(str(candidate.options.get("hyp", DEFAULTS.hyp)), candidate.hyperparameters)
        for seed in candidate.seeds:
            kept = {key: value for key, value in candidate.options.items() if key not in NON_SEMANTIC_OPTIONS}
            known = {key: tuple(v) if isinstance(v, list) else v for key, v in kept.items() if hasattr(DEFAULTS, key)}
            changes: dict[str, Any] = {**known, "seed": DEFAULTS.seed if seed is None else seed}
            given = replace(DEFAULTS, **changes)
            commands.append(f"python train.py {shlex.join(train_words(given))}{changed}")
    return commands


def _changed_since(hyp: str, hyperparameters: Mapping[str, float]) -> str:
    """Return what a hyperparameter yaml says otherwise now than when a run was trained, as the comment on a line."""
    try:
        present = asdict(load_hyperparameters(hyp))
    except DetectorError:
        return "  # that --hyp is no longer there"
    then = [f"{key} {value:g}" for key, value in hyperparameters.items() if present.get(key, value) != value]
    return f"  # when {', '.join(then)} stood in --hyp, which has changed since" if then else ""
