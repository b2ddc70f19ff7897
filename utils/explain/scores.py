"""How well maps agree with labelled boxes and with each other, and paired differences between models."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd

from utils.metrics.bootstrap import draw_resamples
from utils.metrics.paired_difference import Difference, Scores, paired_difference

RESAMPLES = 2000


def box_mask(boxes_xyxy: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Return (H, W) bool: the pixels whose centres lie in any of (n, 4) boxes in pixels."""
    y, x = (np.arange(side) + 0.5 for side in size_hw)
    mask = np.zeros(size_hw, bool)
    for x1, y1, x2, y2 in boxes_xyxy:
        mask |= ((y >= y1) & (y < y2))[:, None] & ((x >= x1) & (x < x2))
    return mask


def energy_inside(heat: np.ndarray, mask: np.ndarray) -> float:
    """Return the fraction of a map's sum that lies in a mask, both (H, W); 0 for a map that is 0 everywhere.

    A map without any information gives the mask's fraction of the image.
    """
    total = float(heat.sum())
    return float(heat[mask].sum()) / total if total > 0 else 0.0


def points_inside(heat: np.ndarray, mask: np.ndarray) -> bool:
    """Whether the largest value of a map lies in a mask, both (H, W); not for a map that is 0 everywhere.

    Source: the pointing game of Zhang et al. 2016, without a tolerance.
    """
    return bool(heat.max() > 0 and mask.ravel()[heat.argmax()])


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Return Spearman's rank correlation of two maps, equal values sharing their mean rank; 0 if a map is constant."""
    ranks = [pd.Series(values.ravel()).rank().to_numpy() for values in (first, second)]
    if min(np.ptp(values) for values in ranks) == 0:
        return 0.0
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def difference_over_images(
    model: np.ndarray, baseline: np.ndarray, *, seed: int, limit: float = math.inf
) -> Difference | None:
    """Return the mean of (n,) values minus that of the baseline's on the same images, with a 95 % interval.

    Images where either is nan are left out; None if none remains. The interval is Student's t over images, cut at
    `limit`, the largest possible difference, and holds for these weights: other seeds of the training are not covered.
    """
    both = np.isfinite(model) & np.isfinite(baseline)
    count = int(both.sum())
    if not count:
        return None
    weights = draw_resamples(count, RESAMPLES, seed=seed) / count
    ours, theirs = (
        Scores(points=np.array([values[both].mean()]), resampled=(weights @ values[both])[None])
        for values in (model, baseline)
    )
    found = paired_difference(ours, theirs, num_images=count)
    low, high = (float(np.clip(bound, -limit, limit)) for bound in (found.low, found.high))
    return replace(found, low=low, high=high)
