"""Bootstrap over images: the average precision of resampled image sets.

A resample draws as many images as the set has, with replacement; an image drawn twice counts twice. Instead of
repeating arrays, each image gets an integer weight, and all resamples are computed at once. The result equals that of
`average_precision.precision_recall` on the repeated images up to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from utils.metrics.average_precision import RECALL_POINTS
from utils.metrics.evaluated_set import EvaluatedSet

CHUNK_ELEMENTS = 8_000_000
CHUNK_RESAMPLES = 128


@dataclass(frozen=True, kw_only=True)
class ResampledAP:
    """Average precision of each resample."""

    class_ids: np.ndarray  # (c,) of the classes that have labels in the whole set
    ap: np.ndarray  # (r, c, t); nan where a resample has no label of the class

    def mean(self, thresholds: slice | int = slice(None)) -> np.ndarray:
        """Return (r,) mAP over the classes that a resample has and the chosen IoU thresholds; nan without any."""
        ap = self.ap[:, :, thresholds]
        by_class = ap if ap.ndim == 2 else ap.mean(2)  # (r, c)
        present = np.isfinite(by_class)
        count = present.sum(1)
        total = np.where(present, by_class, 0.0).sum(1)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)

    def of_class(self, class_id: int, thresholds: slice | int = slice(None)) -> np.ndarray:
        """Return (r,) AP of one class, averaged over the chosen IoU thresholds."""
        ap = self.ap[:, int(np.flatnonzero(self.class_ids == class_id)[0]), thresholds]
        return ap if ap.ndim == 1 else ap.mean(1)


def draw_resamples(images: int, resamples: int, *, seed: int) -> np.ndarray:
    """Return (r, images) int32: how many times each resample contains each image.

    Equal arguments give equal resamples, so models evaluated on the same images are compared in pairs.
    """
    if images == 0:
        return np.zeros((resamples, 0), np.int32)
    generator = np.random.default_rng(seed)
    return generator.multinomial(images, np.full(images, 1 / images), size=resamples).astype(np.int32)


def resample_ap(
    evaluated: EvaluatedSet, weights: np.ndarray, *, ignored: np.ndarray | None = None, rule: Rule | None = None
) -> ResampledAP:
    """Compute the AP of every class and IoU threshold in every resample, by the 101-point rule of `average_precision`.

    Args:
        evaluated: the set.
        weights: (r, images) integers, how many times each resample contains each image. Ones give the set's own AP.
        ignored: (n, t) bool, detections that count neither as true nor as false positives; a true positive always
            counts. None ignores nothing.
        rule: `COCO` and `TIDE` sample the precision at 101 recalls as a step function; None is `TRAPEZOID`.
    """
    class_ids = np.unique(evaluated.label_classes.astype(np.int64))
    ap = np.full((len(weights), len(class_ids), evaluated.tp.shape[1]), np.nan)
    for column, class_id in enumerate(class_ids):
        label_images = evaluated.label_image_ids[evaluated.label_classes == class_id]
        labels = np.bincount(label_images, minlength=evaluated.num_images)
        ranked = _RankedDetections.of_class(evaluated, int(class_id), ignored)
        ap[:, column] = _class_ap(ranked, weights, weights @ labels, rule or TRAPEZOID)
    return ResampledAP(class_ids=class_ids, ap=ap)


@dataclass(frozen=True, kw_only=True)
class _RankedDetections:
    """The f detections of a class that are false positives at every IoU threshold, and the u others, by rank."""

    false_images: np.ndarray  # (f,)
    images: np.ndarray  # (u,)
    false_before: np.ndarray  # (u,) how many of the f rank before each
    tp: np.ndarray  # (u, t)
    counted: np.ndarray  # (u, t), not ignored

    @classmethod
    def of_class(cls, evaluated: EvaluatedSet, class_id: int, ignored: np.ndarray | None) -> _RankedDetections:
        """Rank the detections of a class; equal confidences keep their order."""
        rows = np.flatnonzero(evaluated.classes == class_id)
        rows = rows[np.argsort(-evaluated.confidences[rows], kind="stable")]
        tp = evaluated.tp[rows].astype(bool)
        counted = np.ones_like(tp) if ignored is None else ~ignored[rows] | tp
        varies = tp.any(1) | (counted.any(1) & ~counted.all(1))
        false = ~varies & counted.all(1)
        images = evaluated.image_ids[rows]
        return cls(
            false_images=images[false],
            images=images[varies],
            false_before=np.cumsum(false)[varies],
            tp=tp[varies],
            counted=counted[varies],
        )


def _class_ap(ranked: _RankedDetections, weights: np.ndarray, labels: np.ndarray, rule: Rule) -> np.ndarray:
    """Return (r, t) AP of a class, nan where a resample has none of its (r,) labels; in chunks, to bound memory."""
    ap = np.full((len(weights), ranked.tp.shape[1]), np.nan)
    longest = max(len(ranked.false_images), len(ranked.images), 1)
    step = min(max(CHUNK_ELEMENTS // longest, 1), CHUNK_RESAMPLES)
    rows = np.flatnonzero(labels > 0)
    for start in range(0, len(rows), step):
        chunk = rows[start : start + step]
        ap[chunk] = _chunk_ap(ranked, np.ascontiguousarray(weights[chunk].T), labels[chunk], rule).T
    return ap


def _chunk_ap(ranked: _RankedDetections, weights: np.ndarray, labels: np.ndarray, rule: Rule) -> np.ndarray:
    """Return (t, r) AP from (images, r) weights and (r,) label counts above 0; resamples last, for speed.

    Only the ranks of true positives matter, since the envelope of the precision is constant between the recalls of two
    of them. A detection of weight w equals w such steps of the same height, that is, one wider step. After the last
    true positive the curve falls in a straight line from the precision of all detections to 0 at recall 1, or by
    COCO's rule at once.
    """
    before, all_false = _false_ranks(ranked, weights)  # (u, r), (r,)
    multiplicity = weights[ranked.images]  # (u, r)
    everything_counts = bool(ranked.counted.all())
    covered = _covered_recalls(labels, rule)  # (h, r)
    area_below = rule.area_below[covered].ravel()
    columns = np.arange(len(labels))
    ap = np.zeros((ranked.tp.shape[1], len(labels)))
    rank = before + np.cumsum(multiplicity, axis=0, dtype=np.int32)
    for row in range(len(ap)):
        positive = np.flatnonzero(ranked.tp[:, row])
        if not len(positive):
            continue
        if not everything_counts:
            rank = before + np.cumsum(multiplicity * ranked.counted[:, row, None], axis=0, dtype=np.int32)
        hits = np.cumsum(multiplicity[positive], axis=0, dtype=np.int32)  # (k, r)
        envelope = hits / np.maximum(rank[positive], 1)
        np.maximum.accumulate(envelope[::-1], axis=0, out=envelope[::-1])
        area = area_below.take(hits * len(labels) + columns)  # of all recalls up to that of the k-th
        steps = np.einsum("kr,kr->r", envelope, area) - np.einsum("kr,kr->r", envelope[1:], area[:-1])
        last = hits[-1] / np.maximum(all_false + (rank[-1] - before[-1]), 1)
        rest = np.maximum(1 - hits[-1] / labels, 1e-300)
        ap[row] = steps + last / rest * rule.fall_above[covered[hits[-1], columns]]
    return ap


def _false_ranks(ranked: _RankedDetections, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how many of `false_images`' detections rank before each other detection, (u, r), and their sum, (r,)."""
    falling = np.zeros((len(ranked.false_images) + 1, weights.shape[1]), np.int32)
    np.cumsum(weights[ranked.false_images], axis=0, dtype=np.int32, out=falling[1:])
    return falling[ranked.false_before], falling[-1]


def _covered_recalls(labels: np.ndarray, rule: Rule) -> np.ndarray:
    """Return (h, r): how many of the 101 recalls lie below the recall of h true positives among (r,) labels.

    By the other rules than `TRAPEZOID` a recall that is equal counts too.
    """
    counts, position = np.unique(labels, return_inverse=True)
    recall = np.arange(int(labels.max()) + 1)[:, None] / counts
    return np.searchsorted(rule.grid, recall, side=rule.side).astype(np.int8)[:, position]


_GRID = np.linspace(0, 1, RECALL_POINTS)
_STEPS = np.diff(_GRID)
_WEIGHTS = (np.concatenate((_STEPS, [0.0])) + np.concatenate(([0.0], _STEPS))) / 2  # of the trapezoid rule


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How a precision-recall curve is integrated over the grid of recalls."""

    grid: np.ndarray  # (101,) recalls
    side: Literal["left", "right"]  # whether a recall of the grid is covered from above it, or from itself on
    area_below: np.ndarray  # (102,) weight of the first m recalls
    fall_above: np.ndarray  # (102,) weight of 1 - recall from the m-th recall on


TRAPEZOID = Rule(
    grid=_GRID,
    side="left",
    area_below=np.concatenate(([0.0], np.cumsum(_WEIGHTS))),
    fall_above=np.concatenate((np.cumsum((_WEIGHTS * (1 - _GRID))[::-1])[::-1], [0.0])),
)
_POINTS_BELOW = np.arange(RECALL_POINTS + 1) / RECALL_POINTS
COCO = Rule(grid=_GRID, side="right", area_below=_POINTS_BELOW, fall_above=np.zeros(RECALL_POINTS + 1))
# tidecv divides by 100, which gives 0.35 where the grid has 0.35000000000000003
TIDE = replace(COCO, grid=np.arange(RECALL_POINTS) / (RECALL_POINTS - 1))
