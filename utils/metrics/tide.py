"""The kinds of error behind a lost average precision: what AP at IoU 0.5 would gain if one kind were corrected.

Source: Bolya et al. 2020, "TIDE: A General Toolbox for Identifying Object Detection Errors", arXiv 2008.08115, sections
2.2 and 2.3. Where the paper leaves a choice (IoUs equal to a threshold, equal confidences, a classification and a
localization error on one label), the choice is the one that gives the numbers of its authors' tool, tidecv.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from utils.boxes import pairwise_iou
from utils.metrics.bootstrap import TIDE, resample_ap
from utils.metrics.evaluated_set import EvaluatedSet

FOREGROUND_IOU, BACKGROUND_IOU = 0.5, 0.1
MAX_DETECTIONS = 100  # per image, the most confident ones, as COCO counts
CLASSIFICATION, LOCALIZATION, BOTH, DUPLICATE, BACKGROUND = range(5)
TRUE_POSITIVE, NOT_COUNTED = 5, 6
MISSED = 5  # a kind of error of labels
ERRORS = ("classification", "localization", "both", "duplicate", "background", "missed")  # by the numbers above
FALSE_POSITIVES, FALSE_NEGATIVES = "false positives", "false negatives"
AP = "AP"


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
    weights = np.ones((1, evaluated.num_images), np.int32) if weights is None else weights
    every_label = np.ones(len(evaluated.label_classes), bool)
    tp = (errors.kinds == TRUE_POSITIVE)[:, None]
    actual = replace(evaluated, tp=tp).select(errors.kinds != NOT_COUNTED, every_label)
    scores = {AP: _mean_ap(actual, weights)}
    for name, corrected in _corrected_sets(replace(evaluated, tp=tp), errors, every_label):
        gain = _mean_ap(corrected, weights) - scores[AP]
        scores[name] = np.maximum(gain, 0.0) if name in ERRORS else gain
    return scores


def _mean_ap(evaluated: EvaluatedSet, weights: np.ndarray) -> np.ndarray:
    """Return (r,) AP, the mean over the classes with labels or detections; without labels it is 0."""
    ap = resample_ap(evaluated, weights, rule=TIDE).ap[:, :, 0]
    images = np.concatenate((evaluated.label_image_ids, evaluated.image_ids))
    class_ids, columns = np.unique(np.concatenate((evaluated.label_classes, evaluated.classes)), return_inverse=True)
    present = np.zeros((evaluated.num_images, len(class_ids)), np.float32)  # a type that multiplies fast
    present[images, columns] = 1
    count = (weights.astype(np.float32) @ present > 0).sum(1)
    return np.nansum(ap, axis=1) / np.maximum(count, 1)


def _corrected_sets(
    evaluated: EvaluatedSet, errors: AssignedErrors, every_label: np.ndarray
) -> Iterator[tuple[str, EvaluatedSet]]:
    """Yield what remains after one kind of error is corrected, kind by kind."""
    kinds, is_tp = errors.kinds, evaluated.tp[:, 0]
    order = np.lexsort((is_tp, -evaluated.confidences))  # false positives rank first among equal confidences
    order = order[kinds[order] != NOT_COUNTED]
    # Of the errors on one label the most confident becomes its true positive, unless the label has one already.
    fixable = order[np.isin(kinds[order], (CLASSIFICATION, LOCALIZATION))]
    first = fixable[np.unique(errors.targets[fixable], return_index=True)[1]]
    becomes_tp = np.zeros(len(kinds), bool)
    becomes_tp[first] = ~errors.matched[errors.targets[first]]
    for kind in (CLASSIFICATION, LOCALIZATION):
        fixed = becomes_tp & (kinds == kind)
        classes = np.where(fixed, np.append(evaluated.label_classes, -1)[errors.targets], evaluated.classes)
        corrected = replace(evaluated, tp=evaluated.tp | fixed[:, None], classes=classes)
        yield ERRORS[kind], corrected.select(order[(fixed | (kinds != kind))[order]], every_label)
    for kind in (BOTH, DUPLICATE, BACKGROUND):
        yield ERRORS[kind], evaluated.select(order[kinds[order] != kind], every_label)
    yield ERRORS[MISSED], evaluated.select(order, ~errors.missed)
    # False positives after the last true positive do not matter; there they still show that their class is present.
    last = replace(evaluated, confidences=np.where(is_tp, evaluated.confidences, -1.0))
    yield FALSE_POSITIVES, last.select(order, every_label)
    yield FALSE_NEGATIVES, evaluated.select(order, errors.matched)
