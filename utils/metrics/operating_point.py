"""Bootstrap over images of precision, recall and F1, each resample at its own confidence of the best mean F1.

The result equals that of `average_precision.precision_recall` on images repeated as often as their weights say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from utils.metrics.average_precision import CURVE_POINTS, EPS, F1_SMOOTHING, smooth
from utils.metrics.evaluated_set import EvaluatedSet

CHUNK_RESAMPLES = 64


@dataclass(frozen=True, kw_only=True)
class ResampledPoint:
    """Precision, recall and F1 of each resample, (r, c) each; nan where a resample has no label of the class."""

    class_ids: np.ndarray  # (c,) of the classes that have labels in the whole set
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray

    def mean(self, metric: str) -> np.ndarray:
        """Return the (r,) mean of "precision", "recall" or "f1" over the classes that a resample has."""
        values = getattr(self, metric)
        present = np.isfinite(values)
        total, count = np.where(present, values, 0.0).sum(1), present.sum(1)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def resample_point(evaluated: EvaluatedSet, weights: np.ndarray) -> ResampledPoint:
    """Compute precision, recall and F1 at IoU 0.5 in every resample, of (r, images) integer weights."""
    class_ids = np.unique(evaluated.label_classes.astype(np.int64))
    classes = [_GroupedDetections.of_class(evaluated, int(class_id)) for class_id in class_ids]
    values = np.full((3, len(weights), len(class_ids)), np.nan)
    for start in range(0, len(weights), CHUNK_RESAMPLES):
        chunk = np.ascontiguousarray(weights[start : start + CHUNK_RESAMPLES].T)  # (images, r)
        labels = [of_class.labels @ chunk for of_class in classes]
        curves = [of_class.curves(chunk, count) for of_class, count in zip(classes, labels, strict=True)]
        present = np.array([count > 0 for count in labels]).reshape(len(classes), chunk.shape[1])
        mean_f1 = np.zeros((CURVE_POINTS, chunk.shape[1]))
        for curve, counts in zip(curves, present, strict=True):
            mean_f1 += _f1(*curve.at(curve.passed, _GRID[:, None])) * counts
        mean_f1 /= np.maximum(present.sum(0), 1)
        best = np.array([smooth(column, F1_SMOOTHING).argmax() for column in mean_f1.T])
        for row, curve in enumerate(curves):
            at_best = curve.at((curve.passed[best], np.arange(len(best))), _GRID[best])
            values[:, start : start + len(best), row] = np.where(present[row], (*at_best, _f1(*at_best)), np.nan)
    return ResampledPoint(class_ids=class_ids, precision=values[0], recall=values[1], f1=values[2])


def _f1(precision: np.ndarray, recall: np.ndarray) -> np.ndarray:
    return 2 * precision * recall / (precision + recall + EPS)


@dataclass(frozen=True, kw_only=True)
class _Curves:
    """Precision and recall over confidence of a class in r resamples, in s + 1 intervals of confidence.

    Within an interval both are linear functions of the confidence, between the last detection that a resample has above
    the interval and the first one below.
    """

    passed: np.ndarray  # (points,) interval of each confidence of the curve
    start: np.ndarray  # (s + 1, r) confidence of the detection above, as the others
    precision: np.ndarray
    recall: np.ndarray
    precision_slope: np.ndarray
    recall_slope: np.ndarray

    def at(self, interval: Any, confidence: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # noqa: ANN401
        """Return precision and recall at confidences in the intervals of an index."""
        distance = self.start[interval] - confidence
        return (
            self.precision[interval] + self.precision_slope[interval] * distance,
            self.recall[interval] + self.recall_slope[interval] * distance,
        )


@dataclass(frozen=True, kw_only=True)
class _GroupedDetections:
    """The n detections of a class by rank, in g groups: of one image, and between two confidences of the curve."""

    confidences: np.ndarray  # (n + 1,) float64, the last one for none
    tp: np.ndarray  # (n + 1,) int
    labels: np.ndarray  # (images,) number of labels
    images: np.ndarray  # (g,) of each group
    counts: np.ndarray  # (g, 1) detections in each, of which `tp_counts` are true positives
    tp_counts: np.ndarray
    first: np.ndarray  # (g, 1) rank of the first detection of each group, `last` of its last
    last: np.ndarray
    starts: np.ndarray  # (s,) where the groups of each interval of confidence begin
    passed: np.ndarray  # (points,) how many of the s intervals lie above each confidence of the curve

    @classmethod
    def of_class(cls, evaluated: EvaluatedSet, class_id: int) -> _GroupedDetections:
        """Rank and group the detections of a class; equal confidences keep their order."""
        rows = np.flatnonzero(evaluated.classes == class_id)
        rows = rows[np.argsort(-evaluated.confidences[rows], kind="stable")]
        confidences = evaluated.confidences[rows].astype(np.float64)
        tp = evaluated.tp[rows, 0].astype(np.int64)
        interval = CURVE_POINTS - np.searchsorted(_GRID, confidences, side="right")  # 0 from confidence 1 on
        key = interval * max(evaluated.num_images, 1) + evaluated.image_ids[rows]
        groups, first, of_group, counts = np.unique(key, return_index=True, return_inverse=True, return_counts=True)
        last = len(rows) - 1 - np.unique(key[::-1], return_index=True)[1]
        intervals, starts = np.unique(interval[first], return_index=True)
        label_images = evaluated.label_image_ids[evaluated.label_classes == class_id]
        return cls(
            confidences=np.append(confidences, 0.0),
            tp=np.append(tp, 0),
            labels=np.bincount(label_images, minlength=evaluated.num_images),
            images=evaluated.image_ids[rows][first],
            counts=counts[:, None],
            tp_counts=np.bincount(of_group, tp, minlength=len(groups)).astype(np.int64)[:, None],
            first=first[:, None],
            last=last[:, None],
            starts=starts,
            passed=np.searchsorted(intervals, CURVE_POINTS - 1 - np.arange(CURVE_POINTS), side="right"),
        )

    def curves(self, weights: np.ndarray, labels: np.ndarray) -> _Curves:
        """Return the curves of the resamples, from (images, r) weights and (r,) numbers of labels."""
        drawn = weights[self.images]  # (g, r)
        none, absent = len(self.tp) - 1, drawn == 0
        edge = np.zeros((1, len(labels)), np.int64)  # before the first interval, or after the last
        sums = [drawn * counts for counts in (self.counts, self.tp_counts)]
        above, below = np.where(absent, -1, self.last), np.where(absent, none, self.first)
        if len(drawn):  # reduceat does not allow an empty array
            sums = [np.add.reduceat(array, self.starts).cumsum(0) for array in sums]
            above, below = np.maximum.reduceat(above, self.starts), np.minimum.reduceat(below, self.starts)
        detections, hits = (np.concatenate((edge, array)) for array in sums)  # (s + 1, r), as all below
        above = np.maximum.accumulate(np.concatenate((edge - 1, above)))
        below = np.minimum.accumulate(np.concatenate((below, edge + none))[::-1])[::-1]
        between = (above >= 0) & (below < none)
        gap = np.where(between, self.confidences[above] - self.confidences[below], np.inf)
        hits_below = hits + self.tp[below]
        precision, recall = hits / np.maximum(detections, 1), hits / (labels + EPS)
        curves = _Curves(
            passed=self.passed,
            start=self.confidences[above],
            precision=precision,
            recall=recall,
            precision_slope=(hits_below / (detections + 1) - precision) / gap,
            recall_slope=(hits_below / (labels + EPS) - recall) / gap,
        )
        precision[(above < 0) & (below < none)] = 1.0  # above the first detection
        return curves


_GRID = np.linspace(0, 1, CURVE_POINTS)
