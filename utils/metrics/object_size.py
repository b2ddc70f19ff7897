"""Bins of object sizes (COCO's small, medium and large, or also tiny), and which detections count for each."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from utils.metrics.evaluated_set import EvaluatedSet

SIZES = ("small", "medium", "large")
AREA_LIMITS = (32.0**2, 96.0**2)  # square pixels of the image file: small below the first, large from the second


@dataclass(frozen=True)
class SizeScale:
    """Names of sizes, ascending, and the n - 1 areas in square pixels from which the next one begins."""

    names: tuple[str, ...]
    limits: tuple[float, ...]

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """Smallest and largest area of each size."""
        return dict(zip(self.names, zip((0.0, *self.limits), (*self.limits, 1e10), strict=True), strict=True))


COCO_SCALE = SizeScale(SIZES, AREA_LIMITS)
TINY_SCALE = SizeScale(("tiny", *SIZES), (16.0**2, *AREA_LIMITS))  # tiny objects do not count as small here


def size_bins(areas: np.ndarray, scale: SizeScale = COCO_SCALE) -> np.ndarray:
    """Return (n,) int indices of the scale's names for areas in square pixels of the image file."""
    return np.searchsorted(np.array(scale.limits), areas, side="right").astype(np.int8)


def restrict_to_size(
    evaluated: EvaluatedSet, size_bin: int, scale: SizeScale = COCO_SCALE
) -> tuple[EvaluatedSet, np.ndarray]:
    """Restrict a set to the labels of one size.

    A true positive counts if its label has the size, a false positive if its own box has it; others are ignored.

    Returns:
        The set with the labels and true positives of the size, and (n, t) bool, which detections are ignored.
    """
    labels = size_bins(evaluated.label_areas, scale) == size_bin
    claims = (size_bins(evaluated.claimed_areas, scale) == size_bin) & (evaluated.claimed_areas >= 0)
    tp = evaluated.tp & claims[:, None]
    counted = np.where(evaluated.tp, tp, (size_bins(evaluated.areas, scale) == size_bin)[:, None])
    restricted = replace(evaluated.select(np.arange(len(tp)), labels), tp=tp)
    return restricted, ~counted
