"""Precision, recall, F1 and average precision of an evaluated set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from utils.metrics.evaluated_set import EvaluatedSet

CURVE_POINTS = 1000
RECALL_POINTS = 101
F1_SMOOTHING = 0.1  # width of the running mean, as a fraction of the curve
EPS = 1e-16  # guards divisions


@dataclass(frozen=True, kw_only=True)
class PrecisionRecall:
    """Metrics of each class that has labels, at the confidence where the smoothed mean F1 of all classes peaks."""

    class_ids: np.ndarray  # (c,) ascending; `label_counts`, `precision`, `recall` and `f1` are (c,) too
    label_counts: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    ap: np.ndarray  # (c, t) average precision at each IoU threshold
    confidences: np.ndarray  # (1000,) from 0 to 1, where the curves over confidence are sampled
    precision_curve: np.ndarray  # (c, 1000) over confidence, at IoU 0.5; `recall_curve` and `f1_curve` likewise
    recall_curve: np.ndarray
    f1_curve: np.ndarray
    precision_by_recall: np.ndarray  # (c, 1000) over recall from 0 to 1, at IoU 0.5
    best_confidence: float  # where precision, recall and F1 are read
    max_confidences: np.ndarray  # (c,) of a detection of each class, 1 without any

    @property
    def defined_precision(self) -> np.ndarray:
        """The `precision_curve`, but nan above the last detection of a class, where the curve is 1 by convention."""
        return np.where(self.confidences > self.max_confidences[:, None], np.nan, self.precision_curve)

    @property
    def map50(self) -> float:
        """Mean AP over classes at IoU 0.5; 0 without labels, as all means."""
        return _mean(self.ap[:, 0])

    @property
    def map75(self) -> float:
        """Mean AP over classes at IoU 0.75."""
        return _mean(self.ap[:, 5])

    @property
    def map50_95(self) -> float:
        """Mean AP over classes and all IoU thresholds."""
        return _mean(self.ap)

    @property
    def mean_precision(self) -> float:
        """Mean precision over classes."""
        return _mean(self.precision)

    @property
    def mean_recall(self) -> float:
        """Mean recall over classes."""
        return _mean(self.recall)

    @property
    def fitness(self) -> float:
        """Weighted mean of mAP50 and mAP50-95 that selects the best epoch."""
        return fitness(self.map50, self.map50_95)


def fitness(map50: float, map50_95: float) -> float:
    """Return the figure by which epochs and hyperparameters are ranked, in [0, 1]."""
    return 0.1 * map50 + 0.9 * map50_95


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else 0.0


def average_precision(recall: np.ndarray, precision: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Integrate a precision-recall curve.

    Args:
        recall: (n,) ascending.
        precision: (n,).

    Returns:
        The area by the trapezoid rule over 101 recalls; the recall and the descending precision envelope, with ends.
    """
    recall = np.concatenate(([0.0], recall, [1.0]))
    precision = np.concatenate(([1.0], precision, [0.0]))
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    grid = np.linspace(0, 1, RECALL_POINTS)
    return float(np.trapezoid(np.interp(grid, recall, envelope), grid)), recall, envelope


def smooth(values: np.ndarray, fraction: float) -> np.ndarray:
    """Return the running mean of (n,) values over about `fraction` of them, with the end values repeated outside."""
    window = round(len(values) * fraction * 2) // 2 + 1
    padding = np.ones(window // 2)
    padded = np.concatenate((padding * values[0], values, padding * values[-1]))
    return np.convolve(padded, np.ones(window) / window, mode="valid")


def precision_recall(evaluated: EvaluatedSet) -> PrecisionRecall:
    """Compute all metrics of a set; among equal confidences the earlier detection ranks first."""
    order = np.argsort(-evaluated.confidences, kind="stable")
    tp, scores, classes = evaluated.tp[order], evaluated.confidences[order], evaluated.classes[order]
    class_ids, label_counts = np.unique(evaluated.label_classes.astype(np.int64), return_counts=True)
    confidences = np.linspace(0, 1, CURVE_POINTS)
    shape = (len(class_ids), CURVE_POINTS)
    p_curve, r_curve, pr_curve = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    ap, max_confidences = np.zeros((len(class_ids), tp.shape[1])), np.ones(len(class_ids))
    for row, (class_id, count) in enumerate(zip(class_ids, label_counts, strict=True)):
        in_class = classes == class_id
        if not in_class.any():
            continue
        tp_count = tp[in_class].cumsum(0)
        fp_count = (~tp[in_class]).cumsum(0)
        recall = tp_count / (count + EPS)
        precision = tp_count / (tp_count + fp_count)
        max_confidences[row] = scores[in_class][0]
        ascending = -scores[in_class]  # np.interp wants rising abscissas
        r_curve[row] = np.interp(-confidences, ascending, recall[:, 0], left=0)
        p_curve[row] = np.interp(-confidences, ascending, precision[:, 0], left=1)
        for column in range(tp.shape[1]):
            ap[row, column], curve_r, curve_p = average_precision(recall[:, column], precision[:, column])
            if column == 0:
                pr_curve[row] = np.interp(confidences, curve_r, curve_p)
    f1_curve = 2 * p_curve * r_curve / (p_curve + r_curve + EPS)
    best = int(smooth(f1_curve.mean(0), F1_SMOOTHING).argmax()) if len(class_ids) else 0
    return PrecisionRecall(
        class_ids=class_ids,
        label_counts=label_counts,
        precision=p_curve[:, best],
        recall=r_curve[:, best],
        f1=f1_curve[:, best],
        ap=ap,
        confidences=confidences,
        precision_curve=p_curve,
        recall_curve=r_curve,
        f1_curve=f1_curve,
        precision_by_recall=pr_curve,
        best_confidence=float(confidences[best]),
        max_confidences=max_confidences,
    )
