"""Class names of weights and data sets: whether they agree, and how to make them unique."""

from __future__ import annotations

from collections.abc import Sequence


def class_name_mismatch(data_names: Sequence[str], model_names: Sequence[str]) -> str:
    """Describe the first class whose name differs between a data set and a model with equally many classes.

    Returns:
        "" if all names agree, or if those of either are placeholders such as `class0`.
    """
    if not (_are_placeholders(data_names) or _are_placeholders(model_names)):
        for class_id, (in_data, in_model) in enumerate(zip(data_names, model_names, strict=True)):
            if in_data != in_model:
                difference = f"class {class_id} is {in_data!r} in the data set, but {in_model!r} in the model"
                return f"{difference}; classes are matched by id"
    return ""


def distinct_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return unique class names: if any occurs twice, all get their class id, as `cell (0)`."""
    if len(set(names)) == len(names):
        return tuple(names)
    return tuple(f"{name} ({class_id})" for class_id, name in enumerate(names))


def _are_placeholders(names: Sequence[str]) -> bool:
    """Whether names only repeat the class ids: `0`, `1`... in weights, `class0`, `class1`... of a bare `nc`."""
    return all(name in (str(class_id), f"class{class_id}") for class_id, name in enumerate(names))
