"""Decides which image goes into which split or fold: as the source has it, or by class and group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from utils.datasets.config import SPLITS
from utils.datasets.convert.annotated import AnnotatedImage
from utils.datasets.convert.layout import split_in
from utils.datasets.grouping import group_images
from utils.datasets.near_duplicates import compute_signatures, find_duplicates
from utils.datasets.split_by_class import assign_folds, assign_splits, class_fraction_differences
from utils.errors import DataError
from utils.log import LOGGER


@dataclass(frozen=True)
class Division:
    """The split of each image, and its fold."""

    splits: list[str]
    folds: list[int] = field(default_factory=list)  # -1: in no fold; [] without folds
    words: str = ""  # how it was decided


def divide(
    images: Sequence[AnnotatedImage],
    folder: Path,
    names: Sequence[str],
    *,
    fractions: Sequence[float],
    replace_splits: bool,
    folds: int,
    seed: int,
) -> Division:
    """Return the division of a data set.

    Splits of the source are kept and checked for near-duplicates between them, unless `replace_splits`. Where it has
    no val, the training images are divided, by class and so that groups of similar images stay together. With `folds`,
    all images but those of test are divided into folds instead.

    Args:
        images: all images.
        folder: the source, against which `AnnotatedImage.file` is relative.
        names: the class names.
        fractions: sizes of train, val and test, in any unit.
        replace_splits: divide anew, whatever the source has.
        folds: number of folds; 0 for none.
        seed: of the division.

    Raises:
        DataError: there are fewer images than parts.
    """
    existing = ["" if replace_splits else split_in(image.split) for image in images]
    has = set(existing)
    if len(has) == 1:  # a name that all have in common says nothing
        existing = [""] * len(images)
    elif "val" in has and has & {"train", ""} and not folds:
        splits = [split or "train" for split in existing]
        _check_kept(images, folder, splits, names)
        return Division(splits, words=f"kept as the source has them ({_counted(splits)})")
    free = np.array([index for index, split in enumerate(existing) if split != "test"], np.int64)
    parts = folds or 2
    if len(free) < parts:
        raise DataError(folder, f"has {len(free)} images to divide into {parts} parts", fix="add images")
    counts = class_counts([images[index] for index in free], names)
    group, reasons = _groups([str(folder / images[index].file) for index in free], parts)
    if folds:
        fold_of = np.full(len(images), -1)
        fold_of[free] = assign_folds(counts, group, folds, seed)
        splits = ["test" if split == "test" else "train" for split in existing]
        return Division(splits, [*map(int, fold_of)], f"{folds} folds by class{reasons}")
    sizes = [*fractions[:2]] if "test" in existing else [*fractions, 0.0][:3]
    assigned = assign_splits(counts, group, sizes, seed)
    splits = [*existing]
    for index, split in zip(free, assigned, strict=True):
        splits[index] = SPLITS[int(split)]
    _warn_of_differences(counts, assigned, names)
    ratio = " ".join(f"{size:g}" for size in sizes)
    return Division(splits, words=f"--split {ratio} by class, seed {seed} ({_counted(splits)}){reasons}")


def _check_kept(images: Sequence[AnnotatedImage], folder: Path, splits: Sequence[str], names: Sequence[str]) -> None:
    """Log how the class distributions of the source's splits differ, and images in several of them, or nearly so."""
    _warn_of_differences(class_counts(images, names), np.array([SPLITS.index(split) for split in splits]), names)
    signatures = compute_signatures([str(folder / image.file) for image in images])
    leaks = [
        (pair.first, pair.second) if splits[pair.second] == "train" else (pair.second, pair.first)
        for pair in find_duplicates(signatures)
        if splits[pair.first] != splits[pair.second]
    ]
    if leaks:
        count = len({first for first, _ in leaks})
        first, second = (images[index].file for index in leaks[0])
        LOGGER.warning(
            f"{count} images have a copy or near-duplicate in another split, such as {first} and {second}; "
            "--split 8 1 1 divides anew and keeps them together"
        )


def class_counts(images: Sequence[AnnotatedImage], names: Sequence[str]) -> np.ndarray:
    """Return the (n, c) int32 numbers of objects of each class in each image."""
    class_ids = {name: class_id for class_id, name in enumerate(names)}
    counts = np.zeros((len(images), len(names)), np.int32)
    for row, image in zip(counts, images, strict=True):
        for label in image.labels:
            row[class_ids[label.name]] += 1
    return counts


def _groups(paths: Sequence[str], parts: int) -> tuple[np.ndarray, str]:
    """Return the (n,) groups of images that stay together, and what they are in words."""
    groups = group_images(paths)
    if len(np.unique(groups.group)) < parts:
        LOGGER.warning("all images look like one group, such as one video: they are divided in their order instead")
        blocks = min(10 * parts, len(paths))
        return np.arange(len(paths)) * blocks // len(paths), ""
    return groups.group, f"; kept together: {groups.words}" if groups.words else ""


def _counted(splits: Sequence[str]) -> str:
    counts = Counter(splits)
    return ", ".join(f"{counts[split]} {split}" for split in SPLITS if counts[split])


def _warn_of_differences(counts: np.ndarray, assigned: np.ndarray, names: Sequence[str]) -> None:
    """Log by how much the class distributions of the splits differ."""
    if counts.any():
        differences = class_fraction_differences(counts, assigned)
        worst = int(differences.argmax())
        LOGGER.info(
            f"Class balance: the fraction of a class differs by up to {100 * differences[worst]:.1f} percentage points "
            f"between the splits ({names[worst]!r}), {100 * differences.mean():.1f} on average"
        )
