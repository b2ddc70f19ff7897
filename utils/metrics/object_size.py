"""COCO's size bins (small, medium, large) of objects, and which detections count for each."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from utils.metrics.evaluated_set import EvaluatedSet

SIZES = ("small", "medium", "large")
AREA_LIMITS = (32.0**2, 96.0**2)  # square pixels of the image file: small below the first, large from the second


def size_bins(areas: np.ndarray) -> np.ndarray:
    """Return (n,) int indices of `SIZES` for areas in square pixels of the image file."""
    return np.searchsorted(np.array(AREA_LIMITS), areas, side="right").astype(np.int8)


def restrict_to_size(evaluated: EvaluatedSet, size_bin: int) -> tuple[EvaluatedSet, np.ndarray]:
    """Restrict a set to the labels of one size.

    A true positive counts if its label has the size, a false positive if its own box has it; others are ignored.

    Returns:
        The set with the labels and true positives of `SIZES[size_bin]`, and (n, t) bool, which detections are ignored.
    """
    labels = size_bins(evaluated.label_areas) == size_bin
    claims = (size_bins(evaluated.claimed_areas) == size_bin) & (evaluated.claimed_areas >= 0)
    tp = evaluated.tp & claims[:, None]
    counted = np.where(evaluated.tp, tp, (size_bins(evaluated.areas) == size_bin)[:, None])
    restricted = replace(
        evaluated,
        tp=tp,
        label_image_ids=evaluated.label_image_ids[labels],
        label_classes=evaluated.label_classes[labels],
        label_areas=evaluated.label_areas[labels],
    )
    return restricted, ~counted
