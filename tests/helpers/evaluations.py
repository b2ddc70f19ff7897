"""Evaluations of images that exist only as arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from utils.metrics.evaluated_set import EvaluatedSet, ImageEvaluation

EMPTY_BOXES = np.zeros((0, 4))


def image_evaluation(
    boxes: np.ndarray = EMPTY_BOXES,
    confidences: ArrayLike = (),
    classes: ArrayLike = (),
    label_boxes: np.ndarray = EMPTY_BOXES,
    label_classes: ArrayLike = (),
    *,
    image_id: int = 0,
    original_hw: tuple[int, int] = (480, 640),
) -> ImageEvaluation:
    """Match detections, which come by descending confidence, with labels."""
    return ImageEvaluation(
        image_id=image_id,
        original_hw=original_hw,
        boxes=boxes,
        confidences=np.asarray(confidences),
        classes=np.asarray(classes, np.int64),
        label_boxes=label_boxes,
        label_classes=np.asarray(label_classes, np.int64),
    )


def evaluated_set(
    tp: np.ndarray,
    confidences: ArrayLike,
    classes: ArrayLike,
    label_classes: ArrayLike,
    *,
    num_images: int = 1,
    image_ids: np.ndarray | None = None,
    label_image_ids: np.ndarray | None = None,
) -> EvaluatedSet:
    """Return a set of detections and labels without boxes, of one image unless ids are given."""
    count, label_count = len(tp), len(np.asarray(label_classes))
    return EvaluatedSet(
        num_images=num_images,
        image_ids=np.zeros(count, np.int64) if image_ids is None else image_ids,
        boxes=np.zeros((count, 4)),
        confidences=np.asarray(confidences),
        classes=np.asarray(classes, np.int64),
        tp=tp,
        claimed_areas=np.zeros(count),
        label_image_ids=np.zeros(label_count, np.int64) if label_image_ids is None else label_image_ids,
        label_classes=np.asarray(label_classes, np.int64),
        label_boxes=np.zeros((label_count, 4)),
    )
