"""Where a comparison lies: in the folder it was begun in, or in one of its own, so that no report is written over."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from utils.comparison.candidates import NON_SEMANTIC_OPTIONS, Candidate
from utils.comparison.sweep import SweepVariant
from utils.errors import ConfigError
from utils.files import dump_json, load_json, make_run_dir
from utils.log import LOGGER
from utils.options import CompareOptions

RECORD = "comparison.json"
# Options that say who takes part, of which there may be more later, or how many at a time, or on what all are judged.
MEMBERS = frozenset("cfg weights sweep hyp seed seeds jobs task".split())


@dataclass(frozen=True, kw_only=True)
class ComparisonRecord:
    """What comparisons are told apart by; a folder holds it from the beginning.

    Attributes:
        settings: options that change what is learned.
        trained: label of each model to train, and a hash of its yaml and its hyperparameters.
        seeds: which they are trained with; none without such models.
        weights: finished checkpoints, as absolute paths.
    """

    settings: Mapping[str, Any]
    trained: Mapping[str, str]
    seeds: tuple[int, ...]
    weights: tuple[str, ...]

    def is_compatible_with(self, other: ComparisonRecord) -> bool:
        """Whether this is the other comparison, perhaps with more models or seeds."""
        return (
            all(other.settings.get(key, value) == value for key, value in self.settings.items())
            and other.trained.items() <= self.trained.items()
            and set(other.seeds) <= set(self.seeds)
            and set(other.weights) <= set(self.weights)
        )

    def write(self, folder: Path) -> None:
        """Write it into the comparison's folder.

        Raises:
            RunError: it cannot be written.
        """
        dump_json(folder / RECORD, asdict(self))


def record_of(
    options: CompareOptions, trained: Sequence[Candidate | SweepVariant], finished: Sequence[Candidate]
) -> ComparisonRecord:
    """Return the record of a comparison.

    Args:
        options: of compare.py.
        trained: models to train.
        finished: models of --weights.
    """
    settings = {key: value for key, value in asdict(options).items() if key not in NON_SEMANTIC_OPTIONS | MEMBERS}
    return ComparisonRecord(
        settings=json.loads(json.dumps(settings)),
        trained={one.label: _hash([one.config.to_dict(), dict(one.hyperparameters)]) for one in trained},
        seeds=options.all_seeds if trained else (),
        weights=tuple(str(path.resolve()) for one in finished for path in one.weights),
    )


def choose_folder(options: CompareOptions, record: ComparisonRecord, *, named: bool) -> Path:
    """Return the folder of --name, or else one in which the comparison goes on, or else the next free one, made now.

    Args:
        options: of compare.py.
        record: of this comparison.
        named: whether --name was given.

    Raises:
        ConfigError: the name is no plain folder name, or the folder cannot be made.
    """
    project, name = Path(options.project), options.name
    if named:
        folder = make_run_dir(project, name, exist_ok=True)
        LOGGER.info(f"Comparison folder: {folder}")
        return folder
    for folder in _numbered(project, name):
        earlier = _read(folder)
        if earlier is not None and record.is_compatible_with(earlier):
            LOGGER.info(f"Comparison folder: {folder}, which holds the beginning of this comparison")
            return folder
    folder = make_run_dir(project, name)
    taken = f", as {project / name} holds another comparison (--name {name} uses it anyhow)"
    LOGGER.info(f"Comparison folder: {folder}{'' if folder == project / name else taken}")
    return folder


def _hash(value: Any) -> str:  # noqa: ANN401
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _numbered(project: Path, name: str) -> list[Path]:
    """Return the folders `name`, `name2`, `name3`... that exist, the oldest number first."""
    numbers = re.compile(re.escape(name) + r"(\d*)")
    found = [(int(match[1] or 1), path) for path in project.glob("*") if (match := numbers.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


def _read(folder: Path) -> ComparisonRecord | None:
    """Return a folder's record; None without one, or with what no comparison writes, so that none goes on there."""
    try:
        content = load_json(folder / RECORD)
        return ComparisonRecord(
            settings=dict(content["settings"]),
            trained=dict(content["trained"]),
            seeds=tuple(content["seeds"]),
            weights=tuple(content["weights"]),
        )
    except (ConfigError, KeyError, TypeError, ValueError):
        return None
