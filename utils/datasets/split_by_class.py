"""Divide images into splits or folds so that groups stay together and every class has the same fraction in each.

Iterative stratification (Sechidis, Tsoumakas, Vlahavas: On the stratification of multi-label data, 2011) over groups:
those with the class that has the fewest groups left are dealt out first. Beyond the paper, the split is chosen by all
classes of the group and its number of images, each relative to what the split should have, so that crowded images do
not all go to the largest split; and a class goes into as many splits as it has groups.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class _GroupCounts:
    """How much each group has of each class, without the zeros; the last class is the number of images."""

    starts: np.ndarray  # (g + 1,) int64: group i has the entries starts[i] to starts[i + 1]
    classes: np.ndarray  # (k,) int64
    values: np.ndarray  # (k,) float64, all > 0

    def of(self, group: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the classes of a group, the number of images last, and the counts."""
        entries = slice(self.starts[group], self.starts[group + 1])
        return self.classes[entries], self.values[entries]


def assign_splits(class_counts: np.ndarray, groups: np.ndarray, fractions: Sequence[float], seed: int) -> np.ndarray:
    """Return the (n,) int64 split of each image, from 0 to len(fractions) - 1.

    `class_counts` (n, c) is the number of objects of each class in each image, `groups` (n,) are the ids from 0 of the
    groups whose images stay together, and `fractions` the wanted sizes of the splits in any unit, as in (8, 1, 1). The
    result depends on the arguments alone. A class with fewer groups than there are splits goes to the largest splits
    first; a split is empty only if it is wanted to be or if there are fewer groups than splits.

    Raises:
        ValueError: the shapes differ, or the fractions are negative, not finite, or all zero.
    """
    wanted = np.asarray(fractions, np.float64)
    if class_counts.ndim != 2 or groups.shape != class_counts.shape[:1]:
        raise ValueError(f"class_counts {class_counts.shape} and groups {groups.shape} are not (n, c) and (n,)")
    if not np.isfinite(wanted).all() or (wanted < 0).any() or not wanted.any():
        raise ValueError(f"fractions must be at least 0 and not all 0 (got {list(fractions)})")
    used = np.flatnonzero(wanted)  # by falling size, in the given order where sizes are equal
    used = used[np.argsort(-wanted[used], kind="stable")]
    counts = _counts_of_groups(class_counts, groups)
    chosen = _deal_out(counts, class_counts.shape[1] + 1, wanted[used] / wanted.sum(), np.random.default_rng(seed))
    _cover_classes(chosen, counts, class_counts.shape[1] + 1, len(used))
    return used[chosen][groups]


def assign_folds(class_counts: np.ndarray, groups: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Return the (n,) int64 fold of each image, from 0 to folds - 1, as `assign_splits` does with equal fractions."""
    return assign_splits(class_counts, groups, [1.0] * folds, seed)


def class_fraction_differences(class_counts: np.ndarray, assignment: np.ndarray) -> np.ndarray:
    """Return (c,) float64: by how much a class's fraction of a split's objects differs at most between the splits.

    0.02 for a class that is 10 % of the objects of one split and 12 % of another's. Splits without objects are left
    out.
    """
    totals = [class_counts[assignment == split].sum(0, dtype=np.float64) for split in np.unique(assignment)]
    fractions = np.array([total / total.sum() for total in totals if total.any()])
    return np.ptp(fractions, axis=0) if len(fractions) else np.zeros(class_counts.shape[1])


def _counts_of_groups(class_counts: np.ndarray, groups: np.ndarray) -> _GroupCounts:
    """Add up the objects of each class and the images of each group."""
    count = int(groups.max(initial=-1)) + 1
    num_classes = class_counts.shape[1]
    groups = groups.astype(np.int64)
    images, classes = np.nonzero(class_counts)
    keys = np.concatenate([groups[images] * (num_classes + 1) + classes, groups * (num_classes + 1) + num_classes])
    values = np.concatenate([class_counts[images, classes], np.ones(len(groups))])
    unique, inverse = np.unique(keys, return_inverse=True)
    return _GroupCounts(
        starts=np.searchsorted(unique, np.arange(count + 1) * (num_classes + 1)),
        classes=unique % (num_classes + 1),
        values=np.bincount(inverse, weights=values, minlength=len(unique)),
    )


def _deal_out(counts: _GroupCounts, num_classes: int, fractions: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the (g,) split of each group."""
    count = len(counts.starts) - 1
    chosen = np.full(count, -1)
    wanted = np.outer(np.bincount(counts.classes, weights=counts.values, minlength=num_classes), fractions)
    missing = wanted.copy()  # (c, s), what each split still lacks of each class
    absent = np.ones(wanted.shape, bool)  # (c, s), no group of the class is in the split yet
    left = np.bincount(counts.classes, minlength=num_classes)  # of each class, groups that are not assigned yet
    # Entries by class; in a class the large groups first, which are hard to place; random among those of like size.
    owners = np.repeat(np.arange(count), np.diff(counts.starts))
    order = np.lexsort((rng.random(len(owners)), -np.floor(np.log2(counts.values)), counts.classes))
    bounds = np.searchsorted(counts.classes[order], np.arange(num_classes + 1))
    size = num_classes - 1  # the class that counts the images
    while left.any():
        scarce = int(np.argmin(np.where(left > 0, left, count + 1)))
        entries = order[bounds[scarce] : bounds[scarce + 1]]
        for entry in entries[chosen[owners[entries]] < 0]:
            group = owners[entry]
            classes, values = counts.of(group)
            if left[scarce] <= np.count_nonzero(absent[scarce]):
                split = int(np.argmax(absent[scarce]))
            else:
                # Of the sum of (count - wanted)² / wanted over all classes, what the group takes away in each split.
                gain = values @ ((missing[classes] - values[:, None] / 2) / wanted[classes])
                room = missing[size] - values[-1] / 2
                fits = room >= 0 if room.max() >= 0 else room == room.max()
                split = int(np.argmax(np.where(fits, gain, -np.inf)))
            chosen[group] = split
            missing[classes, split] -= values
            absent[classes, split] = False
            left[classes] -= 1
    return chosen


def _cover_classes(chosen: np.ndarray, counts: _GroupCounts, num_classes: int, num_splits: int) -> None:
    """Move small groups, in place, into splits that lack a class of theirs, if nothing is lacking where they were.

    Only so that no split is empty a group is moved even if its split then lacks a class.
    """
    owners = np.repeat(np.arange(len(chosen)), np.diff(counts.starts))
    present = np.zeros((num_classes, num_splits), np.int64)
    np.add.at(present, (counts.classes, chosen[owners]), 1)
    sizes = counts.values[counts.starts[1:] - 1]  # (g,), images
    by_class = np.argsort(counts.classes, kind="stable")
    bounds = np.searchsorted(counts.classes[by_class], np.arange(num_classes + 1))
    for class_id, split in zip(*np.nonzero((present == 0) & (present.sum(1, keepdims=True) > 1)), strict=True):
        candidates = owners[by_class[bounds[class_id] : bounds[class_id + 1]]]
        candidates = candidates[np.argsort(sizes[candidates], kind="stable")]
        movable: Iterator[int] = (g for g in candidates if (present[counts.of(g)[0], chosen[g]] > 1).all())
        if class_id == num_classes - 1:
            movable = itertools.chain(movable, (g for g in candidates if present[class_id, chosen[g]] > 1))
        group = -1 if present[class_id, split] else next(movable, -1)
        if group >= 0:
            classes, _ = counts.of(group)
            present[classes, chosen[group]] -= 1
            present[classes, split] += 1
            chosen[group] = split
