"""How much there is to judge by: objects and pictures of each class and size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from utils.metrics.bootstrap import JudgedSet
from utils.metrics.object_size import SIZES

# A class with less of one size has no part in that size's mean: an object or two would move it by a third.
LEAST_OBJECTS, LEAST_PICTURES = 5, 3


@dataclass(frozen=True, kw_only=True)
class Amount:
    """How many objects of a class there are, in how many pictures."""

    number: int
    objects: int
    pictures: int

    @property
    def enough(self) -> bool:
        """Whether there are enough of one size to count in the size's mean."""
        return self.objects >= LEAST_OBJECTS and self.pictures >= LEAST_PICTURES


def amounts_of_size(judged: JudgedSet, sizes: np.ndarray, size: int) -> list[Amount]:
    """Return what there is of each class in one size, classes without any left out.

    Args:
        judged: detections and labels.
        sizes: (m,) of the labels, indices of `SIZES`.
        size: one of them.
    """
    return _amounts(judged, sizes == size)


def _amounts(judged: JudgedSet, chosen: np.ndarray) -> list[Amount]:
    found = []
    for number in np.unique(judged.label_classes[chosen]):
        mine = chosen & (judged.label_classes == number)
        pictures = len(np.unique(judged.label_images[mine]))
        found.append(Amount(number=int(number), objects=int(mine.sum()), pictures=pictures))
    return found


def amounts_of(judged: JudgedSet, sizes: np.ndarray, names: Sequence[str]) -> dict[tuple[str, str], tuple[int, int]]:
    """Return by ("class", name) and ("size", name) how many objects there are, and in how many pictures."""
    every = _amounts(judged, np.ones(len(judged.label_classes), bool))
    found = {("class", names[own.number]): (own.objects, own.pictures) for own in every}
    for number, size in enumerate(SIZES):
        mine = sizes == number
        if mine.any():
            found["size", size] = int(mine.sum()), len(np.unique(judged.label_images[mine]))
    return found


def left_out_of_sizes(judged: JudgedSet, sizes: np.ndarray, names: Sequence[str]) -> list[str]:
    """Say which classes have objects of a size, but too few to count in its mean."""
    return [
        f"{names[own.number]} of {size} ({own.objects} in {own.pictures})"
        for number, size in enumerate(SIZES)
        for own in amounts_of_size(judged, sizes, number)
        if not own.enough
    ]
