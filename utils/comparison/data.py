"""Whether what takes part in a comparison was trained on the training split that is there now.

Told by names, sizes and labels of its images; pixels that were changed in place are not noticed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from utils.comparison.candidates import Candidate
from utils.comparison.logs import run_folder
from utils.comparison.plan import PlannedRun
from utils.datasets.config import DataConfig
from utils.datasets.index import build_index
from utils.datasets.splits import open_data
from utils.errors import ConfigError, DetectorError
from utils.files import load_json


def require_same_data(runs: Sequence[PlannedRun], data: DataConfig) -> None:
    """Check the runs that are taken over or gone on with.

    Raises:
        ConfigError: the training split has changed since one of them was started.
        DataError: the split is unusable.
    """
    recorded = {run.folder: _recorded(run.folder) for run in runs if run.finished or run.begun}
    if not any(recorded.values()):
        return  # without a scan, which may take minutes
    present = build_index(data, "train").fingerprint()
    for folder, mark in recorded.items():
        if mark not in ("", present):
            what = f"holds a run on a training split that has changed since ({data.file})"
            raise ConfigError(folder, what, fix="choose another --name, or remove that run")


def changed_datasets(candidates: Sequence[Candidate]) -> list[str]:
    """Return a warning about finished weights whose training split has changed since, as far as is known.

    That a data set is not there is no matter of this function; `overlaps` says so.
    """
    marks: dict[str, str] = {}
    found = []
    for candidate in candidates:
        for folder in [folder for folder in map(run_folder, candidate.weights) if folder is not None]:
            try:
                recorded = _recorded(folder)
                if not recorded or not candidate.data:
                    continue
                if candidate.data not in marks:
                    marks[candidate.data] = build_index(open_data(candidate.data), "train").fingerprint()
            except DetectorError:
                continue
            if recorded != marks[candidate.data]:
                found.append(folder.name)
    if not found:
        return []
    return [f"Trained on a training split that has changed since: {', '.join(found)}."]


def _recorded(folder: Path) -> str:
    """Return the fingerprint of the training split that a run was started with; empty where none is kept.

    Raises:
        ConfigError: env.json is damaged.
    """
    path = folder / "env.json"
    content = load_json(path) if path.is_file() else None
    return str(content.get("dataset", "")) if isinstance(content, dict) else ""
