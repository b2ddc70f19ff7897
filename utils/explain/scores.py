"""How well maps agree with labelled boxes and with each other, and paired differences between models."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from utils.metrics.paired_difference import CONFIDENCE_LEVEL
from utils.metrics.student_t import two_sided_p_value, two_sided_quantile


@dataclass(frozen=True, kw_only=True)
class MeanDifference:
    """A mean difference over images with its 95 % interval; all but the first and the last nan if it has none."""

    value: float
    low: float
    high: float
    p_value: float
    images: int  # how many have both values


def box_mask(boxes_xyxy: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Return (H, W) bool: the pixels whose centres lie in any of (n, 4) boxes in pixels."""
    y, x = (np.arange(side) + 0.5 for side in size_hw)
    mask = np.zeros(size_hw, bool)
    for x1, y1, x2, y2 in boxes_xyxy:
        mask |= ((y >= y1) & (y < y2))[:, None] & ((x >= x1) & (x < x2))
    return mask


def map_scores(heat: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """Return how well a map (H, W) agrees with the mask (H, W) of the labelled box.

    `energy_inside` is the fraction of its sum in the mask, `points_inside` 1 if its maximum lies there, else 0: the
    pointing game of Zhang et al. 2016 without a tolerance. Both are 0 for a map without positive values. `area_inside`
    is the mask's fraction of the image, which is the energy of a map without information.
    """
    total = float(heat.sum())
    return {
        "energy_inside": float(heat[mask].sum()) / total if total > 0 else 0.0,
        "points_inside": float(total > 0 and mask.ravel()[heat.argmax()]),
        "area_inside": float(mask.mean()),
    }


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Return Spearman's rank correlation of two maps, equal values sharing their mean rank; 0 if a map is constant."""
    ranks = [pd.Series(values.ravel()).rank().to_numpy() for values in (first, second)]
    if min(np.ptp(values) for values in ranks) == 0:
        return 0.0
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def difference_over_images(model: np.ndarray, baseline: np.ndarray) -> MeanDifference | None:
    """Return the mean of (n,) values minus that of the baseline's on the same images, with Student's t interval.

    Images where either is nan are left out; None if none remains. There is no interval of one image, nor of equal
    differences, whose variance is unknown. It holds for these weights: other seeds of the training are not covered.
    """
    differences = (model - baseline)[np.isfinite(model - baseline)]
    count = len(differences)
    if not count:
        return None
    value, low, high, p_value = float(differences.mean()), math.nan, math.nan, math.nan
    error = float(differences.std(ddof=1)) / math.sqrt(count) if count > 1 else 0.0
    if error > 0:
        half = two_sided_quantile(CONFIDENCE_LEVEL, count - 1) * error
        low, high, p_value = value - half, value + half, two_sided_p_value(value / error, count - 1)
    return MeanDifference(value=value, low=low, high=high, p_value=p_value, images=count)
