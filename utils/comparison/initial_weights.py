"""What the finished weights of a comparison were trained from: scratch, or the weights of which file."""

from __future__ import annotations

from collections.abc import Sequence

from utils.comparison.candidates import Candidate
from utils.comparison.logs import log_of, transferred_share


def initial_weights(candidates: Sequence[Candidate]) -> str:
    """Say what finished weights were trained from, as far as they tell; the share that was taken if a log does.

    Args:
        candidates: of the comparison.

    Returns:
        A sentence; empty without finished weights that tell.
    """
    finished = [candidate for candidate in candidates if candidate.weights]
    told = {candidate.label: _start(candidate) for candidate in finished if "weights" in candidate.options}
    if not told:
        return ""
    if len(told) == len(finished) and len(set(told.values())) == 1:
        return f"The finished weights were trained from {next(iter(told.values()))}."
    known = ", ".join(f"{label} from {start}" for label, start in told.items())
    unknown = [candidate.label for candidate in finished if candidate.label not in told]
    rest = f"; of {', '.join(unknown)} it is not known" if unknown else ""
    return f"Of the finished weights were trained: {known}{rest}."


def _start(candidate: Candidate) -> str:
    """Return the file that a model's training started from, with the share of parameters taken, or "scratch"."""
    source = str(candidate.options["weights"])
    if not source:
        return "scratch"
    folders = [path.resolve().parent.parent for path in candidate.weights]
    shares = [transferred_share(log_of(folder)) for folder in folders]
    share = next(filter(None, shares), "")
    return f"{source} ({share} of the parameters)" if share else source
