"""Average precision of resampled image sets: what mAP would have been on other images of the same kind.

A resample draws as many images as there are, with replacement, and an image drawn twice counts twice. Repeating
arrays for each resample would be slow, so images get whole-number weights instead and all resamples are computed at
once. The result is that of `average_precision.precision_recall` on the repeated images, to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from utils.metrics.average_precision import RECALL_POINTS

CHUNK_ELEMENTS = 8_000_000
CHUNK_RESAMPLES = 128


@dataclass(frozen=True, kw_only=True)
class EvaluatedSet:
    """All detections and labels of a set of images, in the images' order and best first within each.

    Attributes:
        images: how many images there are.
        detection_images: (n,) int, which image each detection is in, from 0 to images - 1, rising.
        scores: (n,) confidences.
        classes: (n,) int.
        correct: (n, t) bool, which detections are right at each overlap.
        counted: (n, t) bool, which detections count at all; a correct one counts. None means all.
        label_images: (m,) int, which image each label is in.
        label_classes: (m,) int.
    """

    images: int
    detection_images: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    correct: np.ndarray
    label_images: np.ndarray
    label_classes: np.ndarray
    counted: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class ResampledAP:
    """Average precision of each resample.

    Attributes:
        classes: (c,) the numbers of the classes that have labels at all.
        ap: (r, c, t); nan where a resample has no label of the class.
    """

    classes: np.ndarray
    ap: np.ndarray

    def mean(self, thresholds: slice | int = slice(None)) -> np.ndarray:
        """Return (r,) mean AP over the classes present in each resample and the overlaps chosen; nan without any."""
        ap = self.ap[:, :, thresholds]
        by_class = ap if ap.ndim == 2 else ap.mean(2)  # (r, c)
        present = np.isfinite(by_class)
        count = present.sum(1)
        total = np.where(present, by_class, 0.0).sum(1)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)

    def of_class(self, number: int, thresholds: slice | int = slice(None)) -> np.ndarray:
        """Return (r,) AP of one class, meant over the overlaps chosen."""
        ap = self.ap[:, int(np.flatnonzero(self.classes == number)[0]), thresholds]
        return ap if ap.ndim == 1 else ap.mean(1)


def draw_resamples(images: int, resamples: int, *, seed: int) -> np.ndarray:
    """Return (r, images) int32: how often each resample holds each image.

    Equal for equal arguments, so that models judged on the same images are resampled alike: that pairs them.
    """
    if images == 0:
        return np.zeros((resamples, 0), np.int32)
    generator = np.random.default_rng(seed)
    return generator.multinomial(images, np.full(images, 1 / images), size=resamples).astype(np.int32)


def resample_ap(judged: EvaluatedSet, weights: np.ndarray) -> ResampledAP:
    """Compute the AP of every class and overlap in every resample.

    Args:
        judged: the images.
        weights: (r, images) whole numbers, how often each image is in each resample. Ones give the set's own AP.

    Returns:
        The AP, by the 101-point rule of `average_precision`.
    """
    present = np.unique(judged.label_classes.astype(np.int64))
    thresholds = judged.correct.shape[1]
    ap = np.full((len(weights), len(present), thresholds), np.nan)
    for column, number in enumerate(present):
        labels = np.bincount(judged.label_images[judged.label_classes == number], minlength=judged.images)
        ap[:, column] = _class_ap(_Ranked.of(judged, int(number)), weights, weights @ labels)
    return ResampledAP(classes=present, ap=ap)


@dataclass(frozen=True, kw_only=True)
class _Ranked:
    """One class's detections, best first, in two kinds: those whose part depends on the overlap, and plain false ones.

    Attributes:
        false_images: (f,) images of the detections that are false at every overlap.
        images: (u,) images of the others.
        false_before: (u,) how many plain false ones are ranked before each.
        correct: (u, t).
        counted: (u, t).
    """

    false_images: np.ndarray
    images: np.ndarray
    false_before: np.ndarray
    correct: np.ndarray
    counted: np.ndarray

    @classmethod
    def of(cls, judged: EvaluatedSet, number: int) -> _Ranked:
        """Rank the detections of a class; equal scores keep their order."""
        mine = np.flatnonzero(judged.classes == number)
        mine = mine[np.argsort(-judged.scores[mine], kind="stable")]
        correct = judged.correct[mine].astype(bool)
        counted = np.ones_like(correct) if judged.counted is None else judged.counted[mine].astype(bool) | correct
        varies = correct.any(1) | (counted.any(1) & ~counted.all(1))
        false = ~varies & counted.all(1)
        images = judged.detection_images[mine]
        return cls(
            false_images=images[false],
            images=images[varies],
            false_before=np.cumsum(false)[varies],
            correct=correct[varies],
            counted=counted[varies],
        )


def _class_ap(ranked: _Ranked, weights: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return (r, t) AP of a class, nan where a resample has none of its (r,) labels; in chunks, to bound memory."""
    ap = np.full((len(weights), ranked.correct.shape[1]), np.nan)
    longest = max(len(ranked.false_images), len(ranked.images), 1)
    step = min(max(CHUNK_ELEMENTS // longest, 1), CHUNK_RESAMPLES)
    rows = np.flatnonzero(labels > 0)
    for start in range(0, len(rows), step):
        chunk = rows[start : start + step]
        ap[chunk] = _chunk_ap(ranked, np.ascontiguousarray(weights[chunk].T), labels[chunk]).T
    return ap


def _chunk_ap(ranked: _Ranked, weights: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return (t, r) AP from (images, r) weights and (r,) label counts above 0; resamples last, as that is fastest.

    Only the ranks of right detections matter. False ones between two right ones lower the precision of what follows,
    and the falling envelope hides their own; so the curve is a staircase: on recalls from that before the k-th right
    one up to its own, the envelope at the k-th. A detection of weight w is w equal steps of that staircase, that is,
    one wider step. After the last right one the curve falls straight from the precision of all detections to 0 at
    recall 1.
    """
    before, all_false = _false_ranks(ranked, weights)  # (u, r), (r,)
    own = weights[ranked.images]  # (u, r)
    everything_counts = bool(ranked.counted.all())
    covered = _covered(labels)  # (hits, r)
    area_below = _AREA_BELOW[covered].ravel()
    columns = np.arange(len(labels))
    ap = np.zeros((ranked.correct.shape[1], len(labels)))
    rank = before + np.cumsum(own, axis=0, dtype=np.int32)
    for row in range(len(ap)):
        hit = np.flatnonzero(ranked.correct[:, row])
        if not len(hit):
            continue
        if not everything_counts:
            rank = before + np.cumsum(own * ranked.counted[:, row, None], axis=0, dtype=np.int32)
        hits = np.cumsum(own[hit], axis=0, dtype=np.int32)  # (k, r)
        envelope = hits / np.maximum(rank[hit], 1)
        np.maximum.accumulate(envelope[::-1], axis=0, out=envelope[::-1])
        area = area_below.take(hits * len(labels) + columns)  # of all recalls up to that of the k-th
        steps = np.einsum("kr,kr->r", envelope, area) - np.einsum("kr,kr->r", envelope[1:], area[:-1])
        last = hits[-1] / np.maximum(all_false + (rank[-1] - before[-1]), 1)
        rest = np.maximum(1 - hits[-1] / labels, 1e-300)
        ap[row] = steps + last / rest * _FALL_ABOVE[covered[hits[-1], columns]]
    return ap


def _false_ranks(ranked: _Ranked, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how many plain false detections are ranked before each other one, (u, r), and in all, (r,)."""
    falling = np.zeros((len(ranked.false_images) + 1, weights.shape[1]), np.int32)
    np.cumsum(weights[ranked.false_images], axis=0, dtype=np.int32, out=falling[1:])
    return falling[ranked.false_before], falling[-1]


def _covered(labels: np.ndarray) -> np.ndarray:
    """Return (h, r): how many of the 101 recalls lie below the recall that h right detections of (r,) labels make."""
    kinds, kind_of = np.unique(labels, return_inverse=True)
    recall = np.arange(int(labels.max()) + 1)[:, None] / kinds
    return np.searchsorted(_GRID, recall).astype(np.int8)[:, kind_of]


def _trapezoid_weights(grid: np.ndarray) -> np.ndarray:
    """Return the weight of each point in the trapezoid rule."""
    steps = np.diff(grid)
    return (np.concatenate((steps, [0.0])) + np.concatenate(([0.0], steps))) / 2


_GRID = np.linspace(0, 1, RECALL_POINTS)
_WEIGHTS = _trapezoid_weights(_GRID)
_AREA_BELOW = np.concatenate(([0.0], np.cumsum(_WEIGHTS)))  # [m]: weight of the first m recalls
_FALL_ABOVE = np.concatenate((np.cumsum((_WEIGHTS * (1 - _GRID))[::-1])[::-1], [0.0]))  # [m]: of 1 - recall from m on
