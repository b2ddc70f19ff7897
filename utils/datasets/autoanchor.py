"""Fit anchors to the box sizes of a data set: k-means, then random mutation.

Source: k-means for anchors, arXiv 1612.08242, sec. 2.
"""

from __future__ import annotations

import numpy as np

from utils.log import LOGGER

MIN_RECALL = 0.98
MUTATIONS = 1000
KMEANS_ITERATIONS = 30


def best_ratio(boxes_wh: np.ndarray, anchors_wh: np.ndarray) -> np.ndarray:
    """Return the ratio, in (0, 1], of the worse side of each of (n, 2) boxes to that of the best of (k, 2) anchors."""
    best = np.zeros(len(boxes_wh))
    for anchor in anchors_wh:  # one by one: all ratios at once would be larger than the data set's labels
        ratio = boxes_wh / anchor
        ratio = np.minimum(ratio, 1 / ratio)
        np.maximum(best, np.minimum(ratio[:, 0], ratio[:, 1]), out=best)
    return best


def best_possible_recall(boxes_wh: np.ndarray, anchors_wh: np.ndarray, *, max_ratio: float) -> float:
    """Return the fraction of boxes whose sides differ from those of some anchor by less than a factor `max_ratio`."""
    return float((best_ratio(boxes_wh, anchors_wh) > 1 / max_ratio).mean())


def fit_anchors(
    boxes_wh: np.ndarray,
    anchors_wh: np.ndarray,
    *,
    max_ratio: float,
    image_size: int,
    seed: int = 0,
    force: bool = False,
) -> np.ndarray | None:
    """Return better anchors, or None to keep the model's: they fit already, or there are fewer objects than anchors.

    Args:
        boxes_wh: (n, 2) in pixels of the network's input, a square of `image_size`.
        anchors_wh: (levels, A, 2) the model's anchors in the same pixels; the result is like it, by ascending area.
        max_ratio: maximum factor between a side of a box and of its anchor, `anchor_t`.
        image_size: for the log.
        seed: of k-means and mutation.
        force: replace anchors that fit, because the model's are placeholders; logs a warning if they have to stay.
    """
    boxes = boxes_wh[(boxes_wh >= 2).any(1)].astype(np.float64)
    flat = anchors_wh.reshape(-1, 2)
    if len(boxes) < len(flat):
        if force:
            LOGGER.warning(
                f"{len(boxes)} objects are too few to fit {len(flat)} anchors; using squares from {flat.min():.0f} to "
                f"{flat.max():.0f} px. Fix: write w, h pairs into the model yaml's anchors"
            )
        return None
    recall = best_possible_recall(boxes, flat, max_ratio=max_ratio)
    fits = recall > MIN_RECALL
    verdict = "fit" if fits else "do not fit"
    LOGGER.info(f"Best possible recall {recall:.4f} at {image_size} px (anchors {verdict} the data)")
    if fits and not force:
        return None
    rng = np.random.Generator(np.random.Philox(seed))
    fitted = _mutate(boxes, _kmeans(boxes, len(flat), rng), rng, max_ratio=max_ratio)
    fitted = fitted[np.argsort(fitted.prod(1))]
    new_recall = best_possible_recall(boxes, fitted, max_ratio=max_ratio)
    if new_recall <= recall and not force:
        LOGGER.info("New anchors do not improve recall; keeping the model's")
        return None
    LOGGER.info(f"Best possible recall {new_recall:.4f} with new anchors {fitted.round().astype(int).tolist()}")
    return fitted.reshape(anchors_wh.shape).astype(np.float32)


def _kmeans(boxes: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return `count` cluster centres of box sizes; distances are in standard deviations of each side."""
    deviation = boxes.std(0) + 1e-9
    points = boxes / deviation
    centres = points[np.sort(rng.choice(len(points), count, replace=False))]
    x, y = np.ascontiguousarray(points.T)
    for _ in range(KMEANS_ITERATIONS):
        nearest, shortest = np.zeros(len(points), np.int64), np.full(len(points), np.inf)
        for i, centre in enumerate(centres):
            distance = (x - centre[0]) ** 2 + (y - centre[1]) ** 2
            nearest[distance < shortest] = i
            np.minimum(shortest, distance, out=shortest)
        for i in range(count):
            if (nearest == i).any():
                centres[i] = points[nearest == i].mean(0)
    return np.asarray(centres * deviation)


def _mutate(boxes: np.ndarray, anchors: np.ndarray, rng: np.random.Generator, *, max_ratio: float) -> np.ndarray:
    """Mutate the anchors and keep improvements of the fitness: the mean `best_ratio`, 0 where no anchor fits."""

    def fitness(candidate: np.ndarray) -> float:
        ratio = best_ratio(sample, candidate)
        return float((ratio * (ratio > 1 / max_ratio)).mean())

    sample = boxes if len(boxes) <= 5000 else boxes[rng.choice(len(boxes), 5000, replace=False)]
    best, best_fitness = anchors, fitness(anchors)
    for _ in range(MUTATIONS):
        factor = np.where(rng.random(anchors.shape) < 0.9, 1 + rng.random() * rng.normal(0, 0.1, anchors.shape), 1)
        candidate = (best * factor.clip(0.3, 3)).clip(2)
        if (value := fitness(candidate)) > best_fitness:
            best, best_fitness = candidate, value
    return best
