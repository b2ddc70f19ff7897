"""What a command left after a crash: the results of a run that was not interrupted, or one line on what is gone."""

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from tests.fault_injection.power_loss.disk import Tree, read_tree
from tests.fault_injection.power_loss.scenarios import Scenario
from tests.fault_injection.power_loss.server import Outcome, Server
from tests.fault_injection.power_loss.unread import UNREAD, is_leftover, is_unread
from utils.weights.checkpoint import content_hash, load_checkpoint

Results = dict[str, str]  # by path: a hash of what must be the same
STATE = ("epoch", "model", "ema", "updates", "optimizer", "gradients", "scaler", "names", "config", "hyperparameters")
MEASURED = (
    "training_seconds peak_memory_gb training_memory_gb seconds cost fps_network fps_end_to_end environment options "
    "commands warnings git"
).split()
CALLERS = (
    ".debug_pkl",
    "/serialization_id",
)  # in TorchScript: who called the tracer, here the tests, and a hash with it
WITHOUT_RESULTS = re.compile(r"(^|/)\.lock$|\.log$|^cache(/|$)|last\.bak\.pt$")
REPORTS = re.compile(r"\.(md|html)$|/compare\.png$|/trade_off\.\w+$")  # with measured times


def as_read(tree: Tree) -> Tree:
    """Return the part of a tree on which commands depend; that they read nothing else is checked in each state.

    Leftovers are removed or ignored by their names, images and reports of compare.py are written anew.
    """
    kept = {name: content for name, content in tree.items() if content is None or not is_unread(PurePath(name))}
    kept = {name: content for name, content in kept.items() if not is_leftover(PurePath(name))}
    return kept | {f"{Path(name).parent}/leftover": None for name in tree if is_leftover(PurePath(name))}


def results(tree: Tree) -> Results:
    """Return the hashes of all results in a tree, without what is measured or differs by where a run was resumed."""
    found = {}
    for name, content in tree.items():
        if isinstance(content, bytes) and not WITHOUT_RESULTS.search(name) and not is_leftover(PurePath(name)):
            found[name] = _digest(name, content)
    return found


def _digest(name: str, content: bytes) -> str:
    suffix = Path(name).suffix
    if suffix == ".pt":
        state = load_checkpoint(Path(name), data=content)
        kept: dict[str, Any] = {key: state[key] for key in STATE if key in state}
        progress = {key: value for key, value in state.get("progress", {}).items() if key not in MEASURED}
        return content_hash([kept, progress])
    if suffix == ".json":
        return hashlib.sha256(json.dumps(_unmeasured(json.loads(content)), sort_keys=True).encode()).hexdigest()
    if suffix == ".npz":
        with np.load(io.BytesIO(content)) as arrays:
            digest = hashlib.sha256()
            for key in sorted(arrays):
                if key != "key":  # holds the hash of a checkpoint's file
                    digest.update(key.encode() + arrays[key].tobytes())
        return digest.hexdigest()
    if suffix == ".torchscript":
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            parts = sorted((part, archive.read(part)) for part in archive.namelist() if not part.endswith(CALLERS))
        return content_hash(repr(parts))
    return "written" if REPORTS.search(name) else hashlib.sha256(content).hexdigest()


def _unmeasured(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _unmeasured(inner) for key, inner in value.items() if key not in MEASURED and "ms" not in key}
    return [_unmeasured(inner) for inner in value] if isinstance(value, list) else value


def lost_when_said(flushed: Tree, final: Tree) -> list[str]:
    """Return the results of a finished run that are not on disk, although it has ended."""
    return sorted(
        name
        for name, content in final.items()
        if not WITHOUT_RESULTS.search(name) and (name not in flushed or flushed[name] != content)
    )


def evaluate(server: Server, scenario: Scenario, promised: int, expected: Results, older: Results) -> str:
    """Run the commands that follow a crash in the present tree, and return what is wrong, or nothing."""
    outcome = server.execute(scenario.after)
    problem = _unreadable(outcome)
    if problem or not scenario.trains:
        return problem or _refused(outcome, server, expected) or _differing(server, expected)
    if outcome.code == 0:
        resumed = re.search(r"^Resumed after epoch (\d+)", outcome.text, re.MULTILINE)
        if resumed is None or int(resumed[1]) < promised:
            return f"{promised} epochs were reported, but resumed after {resumed and resumed[1]}"
    elif "has finished its" in outcome.errors[0]:
        pass
    elif "no last.pt" in outcome.errors[0] and not promised and scenario.again:
        outcome = server.execute(scenario.again)
        problem = _unreadable(outcome) or (f"exit code {outcome.code}: {outcome.text[-300:]}" if outcome.code else "")
    else:
        return f"after {promised} epochs: {outcome.errors[0]}"
    same = problem or _differing(server, expected)
    if same and not promised and not problem and older and not _differing(server, older):
        return ""  # the new run has left no trace
    return same


def _unreadable(outcome: Outcome) -> str:
    """Return what is wrong with how a command ended and what it printed."""
    if outcome.code == UNREAD:
        return f"read a leftover, image or report: {outcome.text[-300:]}"
    if outcome.code not in (0, 2) or "Traceback" in outcome.text:
        return f"exit code {outcome.code}: {outcome.text[-1500:]}"
    if len(outcome.errors) != (outcome.code == 2):
        return f"exit code {outcome.code} with {len(outcome.errors)} error lines: {outcome.text[-500:]}"
    return ""


def _refused(outcome: Outcome, server: Server, expected: Results) -> str:
    """Return the error of a command, unless it says that the results exist, and they are complete."""
    if outcome.code == 0 or ("exists already" in outcome.errors[0] and not _differing(server, expected)):
        return ""
    return outcome.errors[0]


def _differing(server: Server, expected: Mapping[str, str]) -> str:
    """Return which results differ from those of the run that was not interrupted."""
    found = results(read_tree(server.root))
    names = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
    return f"differ: {', '.join(names)}" if names else ""
