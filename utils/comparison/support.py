"""How much there is to judge by: objects and images of each class and size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from utils.metrics.evaluated_set import EvaluatedSet
from utils.metrics.object_size import SIZES, size_bins

# A class with less of one size has no part in that size's mean: an object or two would move it by a third.
MIN_OBJECTS, MIN_IMAGES = 5, 3


@dataclass(frozen=True, kw_only=True)
class Support:
    """How many objects of a class there are, in how many images."""

    number: int
    objects: int
    images: int

    @property
    def enough(self) -> bool:
        """Whether there are enough of one size to count in the size's mean."""
        return self.objects >= MIN_OBJECTS and self.images >= MIN_IMAGES


def support_by_size(judged: EvaluatedSet, size: int) -> list[Support]:
    """Return what there is of each class in one size, classes without any left out.

    Args:
        judged: detections and labels.
        size: an index of `SIZES`.
    """
    return _amounts(judged, size_bins(judged.label_areas) == size)


def _amounts(judged: EvaluatedSet, chosen: np.ndarray) -> list[Support]:
    found = []
    for number in np.unique(judged.label_classes[chosen]):
        mine = chosen & (judged.label_classes == number)
        images = len(np.unique(judged.label_image_ids[mine]))
        found.append(Support(number=int(number), objects=int(mine.sum()), images=images))
    return found


def support_by_class(judged: EvaluatedSet, names: Sequence[str]) -> dict[tuple[str, str], tuple[int, int]]:
    """Return by ("class", name) and ("size", name) how many objects there are, and in how many images."""
    every = _amounts(judged, np.ones(len(judged.label_classes), bool))
    found = {("class", names[own.number]): (own.objects, own.images) for own in every}
    for number, size in enumerate(SIZES):
        mine = size_bins(judged.label_areas) == number
        if mine.any():
            found["size", size] = int(mine.sum()), len(np.unique(judged.label_image_ids[mine]))
    return found


def excluded_by_size(judged: EvaluatedSet, names: Sequence[str]) -> list[str]:
    """Say which classes have objects of a size, but too few to count in its mean."""
    return [
        f"{names[own.number]} of {size} ({own.objects} in {own.images})"
        for number, size in enumerate(SIZES)
        for own in support_by_size(judged, number)
        if not own.enough
    ]
