"""The class names of a prepared data set: from the data themselves, never dropped in silence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from utils.datasets.convert.annotated import AnnotatedSet
from utils.datasets.convert.class_names import find_class_names
from utils.datasets.convert.layout import Source
from utils.datasets.convert.voc import NAMES as VOC_NAMES
from utils.errors import ConfigError, DataError, did_you_mean
from utils.preparation.findings import joined

MAX_NAMED = 5  # classes that a message names


@dataclass(frozen=True)
class Classes:
    """The class names in order, and where the order comes from."""

    names: tuple[str, ...]
    words: str


def choose_classes(
    found: AnnotatedSet, source: Source, *, given: Sequence[str], ignored: Collection[str], sort_names: bool
) -> Classes:
    """Return the classes of a data set, without the ignored ones.

    The order is that of `given`, or of the source if it has one, or else of first appearance; with `sort_names`, of
    the alphabet. A file of names such as classes.txt puts the classes of annotations in order that state names, if
    it has any of them; the names of LabelImg's predefined_classes.txt count only as far as they are in use.

    Raises:
        ConfigError: an ignored class does not exist.
        DataError: a class has objects but is not in `given`, there is no class, or two classes have one name.
    """
    counts = Counter(label.name for image in found.images for label in image.labels)
    names, words = _in_order(found, source, tuple(given), counts)
    for name in ignored:
        if name not in names and name not in counts:
            hint = did_you_mean(name, [*names, *counts]) or "correct --ignore-class"
            raise ConfigError("--ignore-class", f"there is no class {name!r}", fix=hint)
    dropped = [name for name in counts if name not in set(names) | set(ignored)]
    if dropped:
        what = f"{sum(counts[name] for name in dropped)} objects are of classes that --names lacks: {listed(dropped)}"
        raise DataError("--names", what, fix="add them, or leave them out with --ignore-class")
    names = tuple(name for name in names if name not in ignored)
    if len(set(names)) < len(names):
        twice = [name for name, count in Counter(names).items() if count > 1]
        raise DataError(words, f"names a class twice: {listed(twice)}", fix="rename one of them, or pass --names")
    if not names:
        raise DataError("--ignore-class" if ignored else "classes", "no class is left", fix="keep one class at least")
    return Classes(tuple(sorted(names)) if sort_names else names, "the alphabet" if sort_names else words)


def _in_order(
    found: AnnotatedSet, source: Source, given: tuple[str, ...], counts: Counter[str]
) -> tuple[tuple[str, ...], str]:
    """Return all class names in order, and where the order comes from."""
    if given:
        return given, "--names"
    if found.names_fixed:
        return found.names, found.names_from
    if counts.keys() == set(VOC_NAMES):
        return VOC_NAMES, "VOC's 20 classes"
    names, names_from = (found.names, found.names_from) if found.names else find_class_names(source)
    if names_from.endswith("predefined_classes.txt") or found.names:
        names = tuple(name for name in names if name in counts)
    if not counts.keys() & set(names):
        return tuple(counts), "first appearance"
    return (*names, *(name for name in counts if name not in set(names))), names_from


def without_ignored(found: AnnotatedSet, ignored: Collection[str]) -> int:
    """Remove the objects of ignored classes, and return their number."""
    total = 0
    for index, image in enumerate(found.images):
        labels = [label for label in image.labels if label.name not in ignored]
        total += len(image.labels) - len(labels)
        found.images[index] = replace(image, labels=labels)
    return total


def listed(names: Sequence[str]) -> str:
    """Return the first names, quoted, and how many more there are."""
    return joined([repr(name[:40]) for name in names], MAX_NAMED)
