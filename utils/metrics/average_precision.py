"""Precision, recall, F1 and average precision from matched detections."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CURVE_POINTS = 1000
RECALL_POINTS = 101
SMOOTHING = 0.1


@dataclass(frozen=True, kw_only=True)
class PrecisionRecall:
    """Numbers of each class that has labels, at the confidence where the mean F1 of all classes is best.

    Attributes:
        classes: (c,) their numbers.
        labels: (c,) how many labels each has.
        true_positives: (c,) at overlap 0.5.
        false_positives: (c,).
        precision: (c,).
        recall: (c,).
        f1: (c,).
        ap: (c, t) average precision at each overlap.
        confidences: (1000,) the abscissa of the curves.
        precision_curve: (c, 1000) over confidence.
        recall_curve: (c, 1000) over confidence.
        precision_over_recall: (c, 1000), the abscissa being recall from 0 to 1.
        best_confidence: where precision, recall and F1 are read.
    """

    classes: np.ndarray
    labels: np.ndarray
    true_positives: np.ndarray
    false_positives: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    ap: np.ndarray
    confidences: np.ndarray
    precision_curve: np.ndarray
    recall_curve: np.ndarray
    precision_over_recall: np.ndarray
    best_confidence: float

    @property
    def map50(self) -> float:
        """Mean AP at overlap 0.5; 0 without labels."""
        return float(self.ap[:, 0].mean()) if len(self.ap) else 0.0

    @property
    def map50_95(self) -> float:
        """Mean AP over all overlaps; 0 without labels."""
        return float(self.ap.mean()) if len(self.ap) else 0.0

    @property
    def mean_precision(self) -> float:
        """Mean precision over classes; 0 without labels."""
        return float(self.precision.mean()) if len(self.precision) else 0.0

    @property
    def mean_recall(self) -> float:
        """Mean recall over classes; 0 without labels."""
        return float(self.recall.mean()) if len(self.recall) else 0.0


def average_precision(recall: np.ndarray, precision: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Area under the precision-recall curve.

    Args:
        recall: (n,) rising.
        precision: (n,).

    Returns:
        The area by the trapezoid rule over 101 recalls, and the curve's recall and falling precision, with its ends.
    """
    recall = np.concatenate(([0.0], recall, [1.0]))
    precision = np.concatenate(([1.0], precision, [0.0]))
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    grid = np.linspace(0, 1, RECALL_POINTS)
    return float(np.trapezoid(np.interp(grid, recall, envelope), grid)), recall, envelope


def smooth(values: np.ndarray, share: float) -> np.ndarray:
    """Running mean over about `share` of the (n,) values, the ends continued."""
    window = round(len(values) * share * 2) // 2 + 1
    padding = np.ones(window // 2)
    padded = np.concatenate((padding * values[0], values, padding * values[-1]))
    return np.convolve(padded, np.ones(window) / window, mode="valid")


def precision_recall(
    correct: np.ndarray, scores: np.ndarray, classes: np.ndarray, label_classes: np.ndarray, *, eps: float = 1e-16
) -> PrecisionRecall:
    """Make all numbers of a data set.

    Args:
        correct: (n, t) bool, which detections are right at each overlap.
        scores: (n,) confidences.
        classes: (n,) classes of the detections.
        label_classes: (m,) classes of all labels.
        eps: guards the divisions.
    """
    order = np.argsort(-scores, kind="stable")
    correct, scores, classes = correct[order], scores[order], classes[order]
    present, counts = np.unique(label_classes.astype(np.int64), return_counts=True)
    confidences = np.linspace(0, 1, CURVE_POINTS)
    shape = (len(present), CURVE_POINTS)
    p_curve, r_curve, pr_curve = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    ap = np.zeros((len(present), correct.shape[1]))
    for row, (label, count) in enumerate(zip(present, counts, strict=True)):
        mine = classes == label
        if not mine.any():
            continue
        hits = correct[mine].cumsum(0)
        misses = (~correct[mine]).cumsum(0)
        recall = hits / (count + eps)
        precision = hits / (hits + misses)
        falling = -scores[mine]
        r_curve[row] = np.interp(-confidences, falling, recall[:, 0], left=0)
        p_curve[row] = np.interp(-confidences, falling, precision[:, 0], left=1)
        for column in range(correct.shape[1]):
            ap[row, column], curve_r, curve_p = average_precision(recall[:, column], precision[:, column])
            if column == 0:
                pr_curve[row] = np.interp(confidences, curve_r, curve_p)
    f1_curve = 2 * p_curve * r_curve / (p_curve + r_curve + eps)
    best = int(smooth(f1_curve.mean(0), SMOOTHING).argmax()) if len(present) else 0
    precision_best, recall_best = p_curve[:, best], r_curve[:, best]
    hits_best = (recall_best * counts).round()
    return PrecisionRecall(
        classes=present,
        labels=counts,
        true_positives=hits_best,
        false_positives=(hits_best / (precision_best + eps) - hits_best).round(),
        precision=precision_best,
        recall=recall_best,
        f1=f1_curve[:, best],
        ap=ap,
        confidences=confidences,
        precision_curve=p_curve,
        recall_curve=r_curve,
        precision_over_recall=pr_curve,
        best_confidence=float(confidences[best]),
    )
