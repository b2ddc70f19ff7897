"""Fit anchors to the sizes of a data set's boxes: k-means, then random improvement.

Source: k-means for anchors, arXiv 1612.08242, sec. 2.
"""

from __future__ import annotations

import numpy as np

from utils.log import LOGGER

ENOUGH_RECALL = 0.98
IMPROVEMENTS = 1000
KMEANS_ROUNDS = 30


def best_ratio(boxes_wh: np.ndarray, anchors_wh: np.ndarray) -> np.ndarray:
    """Return how near the nearest of (k, 2) anchors comes to each of (n, 2) sizes: the worse side's share, (0, 1]."""
    ratio = boxes_wh[:, None] / anchors_wh[None]
    return np.minimum(ratio, 1 / ratio).min(2).max(1)


def best_possible_recall(boxes_wh: np.ndarray, anchors_wh: np.ndarray, *, max_ratio: float) -> float:
    """Return the share of sizes that some anchor may answer for."""
    return float((best_ratio(boxes_wh, anchors_wh) > 1 / max_ratio).mean())


def fit_anchors(
    boxes_wh: np.ndarray,
    anchors_wh: np.ndarray,
    *,
    max_ratio: float,
    image_size: int,
    seed: int = 0,
    forced: bool = False,
) -> np.ndarray | None:
    """Return better anchors, or None if the present ones serve, or if there are fewer objects than anchors.

    Args:
        boxes_wh: (n, 2) widths and heights in pixels of the network's input.
        anchors_wh: (levels, A, 2) the present anchors in the same pixels.
        max_ratio: how many times a side may differ, `anchor_t`.
        image_size: side of the network's input.
        seed: of the random improvement.
        forced: fit in any case, as when the present ones are placeholders; a warning tells when they have to stay.
    """
    boxes = boxes_wh[(boxes_wh >= 2).any(1)].astype(np.float64)
    flat = anchors_wh.reshape(-1, 2)
    if len(boxes) < len(flat):
        if forced:
            LOGGER.warning(
                f"{len(boxes)} objects are too few to fit {len(flat)} anchors to: squares from {flat.min():.0f} to "
                f"{flat.max():.0f} px serve in their place. Fix: write w, h pairs into the model yaml's anchors"
            )
        return None
    recall = best_possible_recall(boxes, flat, max_ratio=max_ratio)
    LOGGER.info(f"Anchors serve {recall:.2%} of the objects at {image_size} px")
    if recall > ENOUGH_RECALL and not forced:
        return None
    rng = np.random.Generator(np.random.Philox(seed))
    fitted = _improve(boxes, _kmeans(boxes, len(flat), rng), rng, max_ratio=max_ratio)
    fitted = fitted[np.argsort(fitted.prod(1))]
    new_recall = best_possible_recall(boxes, fitted, max_ratio=max_ratio)
    if new_recall <= recall and not forced:
        LOGGER.info("PreprocessedImage anchors are no better; the model's own are kept")
        return None
    LOGGER.info(f"Anchors fitted to the data serve {new_recall:.2%}: {fitted.round().astype(int).tolist()}")
    return fitted.reshape(anchors_wh.shape).astype(np.float32)


def _kmeans(boxes: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return `count` cluster centres of sizes, in units of the spread of each side."""
    spread = boxes.std(0) + 1e-9
    points = boxes / spread
    centres = points[np.sort(rng.choice(len(points), count, replace=False))]
    for _ in range(KMEANS_ROUNDS):
        nearest = ((points[:, None] - centres[None]) ** 2).sum(2).argmin(1)
        for number in range(count):
            if (nearest == number).any():
                centres[number] = points[nearest == number].mean(0)
    return np.asarray(centres * spread)


def _improve(boxes: np.ndarray, anchors: np.ndarray, rng: np.random.Generator, *, max_ratio: float) -> np.ndarray:
    """Change the anchors at random, keeping what serves better: the mean nearness of the sizes that are served."""

    def fitness(candidate: np.ndarray) -> float:
        near = best_ratio(sample, candidate)
        return float((near * (near > 1 / max_ratio)).mean())

    sample = boxes if len(boxes) <= 5000 else boxes[rng.choice(len(boxes), 5000, replace=False)]
    best, best_fitness = anchors, fitness(anchors)
    for _ in range(IMPROVEMENTS):
        change = np.where(rng.random(anchors.shape) < 0.9, 1 + rng.random() * rng.normal(0, 0.1, anchors.shape), 1)
        candidate = (best * change.clip(0.3, 3)).clip(2)
        value = fitness(candidate)
        if value > best_fitness:
            best, best_fitness = candidate, value
    return best
