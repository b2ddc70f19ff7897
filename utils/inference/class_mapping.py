"""Whether weights and a data set mean the same classes, and class names that can be told apart."""

from __future__ import annotations

from collections.abc import Sequence


def disagreement(of_data: Sequence[str], of_model: Sequence[str]) -> str:
    """Say which class a data set and a model first call by different names.

    Args:
        of_data: class names of the data set.
        of_model: class names of the model, as many.

    Returns:
        "" if the names agree, or if those of one side are only made from numbers.
    """
    if not (_are_numbers(of_data) or _are_numbers(of_model)):
        for number, (ours, theirs) in enumerate(zip(of_data, of_model, strict=True)):
            if ours != theirs:
                told = f"class {number} is {ours!r} in the data set, but {theirs!r} in the model"
                return f"{told}; only the numbers count"
    return ""


def distinct_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return class names of which none stands twice: where one does, all get their numbers, as `cell (0)`."""
    if len(set(names)) == len(names):
        return tuple(names)
    return tuple(f"{name} ({number})" for number, name in enumerate(names))


def _are_numbers(names: Sequence[str]) -> bool:
    """Tell whether names stand in for missing ones: `0`, `1`... in weights, `class0`, `class1`... of a bare `nc`."""
    return all(name in (str(number), f"class{number}") for number, name in enumerate(names))
