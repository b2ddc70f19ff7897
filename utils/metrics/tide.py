"""The kinds of error behind a lost average precision: what AP at IoU 0.5 would gain if one kind were corrected.

Source: Bolya et al. 2020, "TIDE: A General Toolbox for Identifying Object Detection Errors", arXiv 2008.08115, sections
2.2 and 2.3. Where the paper leaves a choice (IoUs equal to a threshold, equal confidences, a classification and a
localization error on one label), the choice is the one that gives the numbers of its authors' tool, tidecv.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from utils.boxes import pairwise_iou
from utils.metrics.evaluated_set import EvaluatedSet

FOREGROUND_IOU, BACKGROUND_IOU = 0.5, 0.1
MAX_DETECTIONS = 100  # per image, the most confident ones, as COCO counts
CLASSIFICATION, LOCALIZATION, BOTH, DUPLICATE, BACKGROUND = range(5)
TRUE_POSITIVE, NOT_COUNTED = 5, 6
MISSED = 5  # a kind of error of labels
ERRORS = ("classification", "localization", "both", "duplicate", "background", "missed")  # by the numbers above
FALSE_POSITIVES, FALSE_NEGATIVES = "false positives", "false negatives"
AP = "AP"
CHUNK_ELEMENTS = 4_000_000


@dataclass(frozen=True, kw_only=True)
class AssignedErrors:
    """The kind of each detection and of each label of a set."""

    kinds: np.ndarray  # (n,) one of the numbers above, of each detection
    # (n,) index of the label on which a true positive lies, or to which a classification or localization error would
    # be corrected; -1 for the others
    targets: np.ndarray
    matched: np.ndarray  # (m,) bool, labels with a true positive
    missed: np.ndarray  # (m,) bool, labels without one and without an error that could be corrected to one


def assign_errors(evaluated: EvaluatedSet, *, max_detections: int = MAX_DETECTIONS) -> AssignedErrors:
    """Assign a kind to each detection: by confidence, each takes the free label of its class with the largest IoU.

    The labels must be image by image, as the detections.
    """
    count, label_count = len(evaluated.image_ids), len(evaluated.label_image_ids)
    images = np.arange(evaluated.num_images + 1)
    starts = np.searchsorted(evaluated.image_ids, images)
    label_starts = np.searchsorted(evaluated.label_image_ids, images)
    kinds, targets = np.full(count, BACKGROUND), np.full(count, -1)
    kinds[np.arange(count) - starts[evaluated.image_ids] >= max_detections] = NOT_COUNTED
    ends = np.minimum(starts[1:], starts[:-1] + max_detections)
    for image in np.flatnonzero((starts[:-1] < ends) & (label_starts[:-1] < label_starts[1:])):
        rows = slice(starts[image], ends[image])
        labels = slice(label_starts[image], label_starts[image + 1])
        boxes, label_boxes = (b.astype(np.float64) for b in (evaluated.boxes[rows], evaluated.label_boxes[labels]))
        iou = pairwise_iou(boxes, label_boxes, eps=1e-300)  # only to divide by: an IoU of exactly 0.5 stays one
        same_class = evaluated.classes[rows, None] == evaluated.label_classes[None, labels]
        kinds[rows], of_image = _assign_image(iou, same_class)
        targets[rows] = np.where(of_image < 0, -1, labels.start + of_image)
    matched, covered = np.zeros(label_count, bool), np.zeros(label_count, bool)
    matched[targets[kinds == TRUE_POSITIVE]] = True
    covered[targets[targets >= 0]] = True
    return AssignedErrors(kinds=kinds, targets=targets, matched=matched, missed=~covered)


def _assign_image(iou: np.ndarray, same_class: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (n,) kinds and targets from the (n, m) IoU of detections by descending confidence with m > 0 labels."""
    same, other = np.where(same_class, iou, -1.0), np.where(same_class, -1.0, iou)
    best_same, best_other = same.max(1), other.max(1)
    located = (best_same >= BACKGROUND_IOU) & (best_same <= FOREGROUND_IOU)
    is_background = np.maximum(best_same, best_other) <= BACKGROUND_IOU
    conditions = [located, best_other >= FOREGROUND_IOU, best_same > FOREGROUND_IOU, is_background]
    kinds = np.select(conditions, [LOCALIZATION, CLASSIFICATION, DUPLICATE, BACKGROUND], BOTH)
    targets = np.select(conditions[:2], [same.argmax(1), other.argmax(1)], -1)
    free = same.copy()
    for row in np.flatnonzero(best_same >= FOREGROUND_IOU):
        label = int(free[row].argmax())
        if free[row, label] >= FOREGROUND_IOU:
            kinds[row], targets[row] = TRUE_POSITIVE, label
            free[:, label] = -1.0
    return kinds, targets


def error_scores(
    evaluated: EvaluatedSet, weights: np.ndarray | None = None, *, max_detections: int = MAX_DETECTIONS
) -> dict[str, np.ndarray]:
    """Compute AP at IoU 0.5 and the gain of AP from correcting each kind of error, in every resample of the images.

    Only the weights of the images differ between resamples: the kinds are assigned once, since a detection's kind
    depends on its own image alone.

    Args:
        evaluated: the set.
        weights: (r, images) integers, how many times each resample contains each image; None is the set itself, r = 1.
        max_detections: of an image; the others do not count.

    Returns:
        (r,) each, in [0, 1]: `AP`, the mean over the classes that have labels or detections, 0 if there are none; the
        gain by each of `ERRORS`, 0 if there is a loss; and by removing all false positives or all false negatives.
    """
    errors = assign_errors(evaluated, max_detections=max_detections)
    by_image = np.ones((evaluated.num_images, 1), np.int32) if weights is None else np.ascontiguousarray(weights.T)
    is_tp = errors.kinds == TRUE_POSITIVE
    by_confidence = np.argsort(-evaluated.confidences, kind="stable")
    pessimistic = np.lexsort((is_tp, -evaluated.confidences))  # false positives rank first among equal confidences
    actual = _Ranking(evaluated, errors.kinds != NOT_COUNTED, is_tp, evaluated.classes, by_confidence)
    ap = actual.mean_ap(by_image)
    scores = {AP: ap}
    for name, corrected in _corrections(evaluated, errors, pessimistic):
        gain = corrected.mean_ap(by_image) - ap
        scores[name] = np.maximum(gain, 0.0) if name in ERRORS else gain
    return scores


@dataclass(frozen=True)
class _Ranking:
    """What AP is computed from: detections, actual or corrected, and the labels that count."""

    evaluated: EvaluatedSet
    kept: np.ndarray  # (n,) bool, not suppressed
    tp: np.ndarray  # (n,) bool
    classes: np.ndarray  # (n,)
    order: np.ndarray  # (n,) of the detections
    uncounted: np.ndarray | None = None  # (m,) bool, labels that do not count
    witnesses: np.ndarray | None = None  # (n,) bool, detections whose classes count in the mean; None is `kept`

    def mean_ap(self, weights: np.ndarray) -> np.ndarray:
        """Return (r,) AP from (images, r) weights, averaged over classes."""
        of, resamples = self.evaluated, weights.shape[1]
        counted = np.ones(len(of.label_classes), bool) if self.uncounted is None else ~self.uncounted
        witnesses = self.kept if self.witnesses is None else self.witnesses
        order = self.order[self.kept[self.order]]
        classes = self.classes[order]
        total, present = np.zeros(resamples), np.zeros(resamples, np.int64)
        for class_id in np.union1d(of.classes, of.label_classes):
            rows = order[classes == class_id]
            of_class = counted & (of.label_classes == class_id)
            labels = np.bincount(of.label_image_ids[of_class], minlength=of.num_images) @ weights
            seen = of.image_ids[witnesses & (self.classes == class_id)]
            detections = np.bincount(seen, minlength=of.num_images) @ weights
            present += (labels > 0) | (detections > 0)
            total += _average_precision(of.image_ids[rows], self.tp[rows], weights, labels)
        return total / np.maximum(present, 1)


def _corrections(evaluated: EvaluatedSet, errors: AssignedErrors, order: np.ndarray) -> Iterator[tuple[str, _Ranking]]:
    """Yield what remains after one kind of error is corrected, kind by kind."""
    kinds, classes = errors.kinds, evaluated.classes
    kept, is_tp = kinds != NOT_COUNTED, kinds == TRUE_POSITIVE
    # Of the errors on one label the most confident becomes its true positive, unless the label has one already.
    fixable = order[np.isin(kinds[order], (CLASSIFICATION, LOCALIZATION))]
    first = np.unique(errors.targets[fixable], return_index=True)[1]
    becomes_tp = np.zeros(len(kinds), bool)
    becomes_tp[fixable[first]] = ~errors.matched[errors.targets[fixable[first]]]
    for kind in (CLASSIFICATION, LOCALIZATION):
        corrected = becomes_tp & (kinds == kind)
        new_classes = classes.copy()
        new_classes[corrected] = evaluated.label_classes[errors.targets[corrected]]
        yield (
            ERRORS[kind],
            _Ranking(evaluated, kept & (corrected | (kinds != kind)), is_tp | corrected, new_classes, order),
        )
    for kind in (BOTH, DUPLICATE, BACKGROUND):
        yield ERRORS[kind], _Ranking(evaluated, kept & (kinds != kind), is_tp, classes, order)
    yield ERRORS[MISSED], _Ranking(evaluated, kept, is_tp, classes, order, uncounted=errors.missed)
    yield FALSE_POSITIVES, _Ranking(evaluated, is_tp, is_tp, classes, order, witnesses=kept)
    yield FALSE_NEGATIVES, _Ranking(evaluated, kept, is_tp, classes, order, uncounted=~errors.matched)


def _average_precision(image_ids: np.ndarray, tp: np.ndarray, weights: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return (r,) AP of the ranked detections of a class: mean precision at the recalls 0, 0.01 ... 1.

    A detection of weight w equals w of them in a row; false positives after the last true positive do not matter.

    Args:
        image_ids: (n,) of the detections by rank.
        tp: (n,) bool.
        weights: (images, r).
        labels: (r,) counts; without any, AP is 0.
    """
    positive = np.flatnonzero(tp)
    ap = np.zeros(len(labels))
    if not len(positive):
        return ap
    counted = image_ids[: positive[-1] + 1]
    step = max(CHUNK_ELEMENTS // len(counted), 1)
    for start in range(0, len(labels), step):
        chunk = slice(start, start + step)
        multiplicity = weights[:, chunk][counted]  # (n', r')
        rank = np.cumsum(multiplicity, axis=0, dtype=np.int32)[positive]
        hits = np.cumsum(multiplicity[positive], axis=0, dtype=np.int64)
        envelope = hits / np.maximum(rank, 1)
        np.maximum.accumulate(envelope[::-1], axis=0, out=envelope[::-1])
        reached = 100 * hits // np.maximum(labels[chunk], 1) + 1  # recalls up to that of each true positive, exactly
        ap[chunk] = np.einsum("kr,kr->r", envelope, np.diff(reached, axis=0, prepend=0)) / 101
    return np.where(labels > 0, ap, 0.0)
