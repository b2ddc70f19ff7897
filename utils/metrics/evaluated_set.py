"""Detections matched with ground truth, of one image and of a set of images: the input of every metric.

Boxes are x1, y1, x2, y2 in pixels of the image file, areas in square pixels of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from utils.metrics.matching import IOU_THRESHOLDS, match_detections

NO_LABEL_AREA = -1.0


@dataclass(kw_only=True)
class ImageEvaluation:
    """Detections of one image, by descending confidence, matched with its labels."""

    image_id: int  # index of the image in the data set
    original_hw: tuple[int, int]  # height and width of the image file
    boxes: np.ndarray  # (n, 4)
    confidences: np.ndarray  # (n,)
    classes: np.ndarray  # (n,) int64
    label_boxes: np.ndarray  # (m, 4)
    label_classes: np.ndarray  # (m,) int64
    # (n, 10) bool, whether each detection is a true positive at each of `IOU_THRESHOLDS`
    tp: np.ndarray = field(init=False)
    # (n,) index of the label of its class with the largest IoU, -1 without overlap
    claimed_labels: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        """Match detections with labels."""
        self.tp, self.claimed_labels = match_detections(self.boxes, self.classes, self.label_boxes, self.label_classes)


@dataclass(frozen=True, kw_only=True)
class EvaluatedSet:
    """Detections and labels of a set in flat arrays, image by image, each image's by descending confidence."""

    num_images: int  # images in the set
    image_ids: np.ndarray  # (n,) int, the image of each detection, from 0 to num_images - 1, ascending
    boxes: np.ndarray  # (n, 4)
    confidences: np.ndarray  # (n,)
    classes: np.ndarray  # (n,) int64
    tp: np.ndarray  # (n, t) bool, whether each detection is a true positive at each IoU threshold
    claimed_areas: np.ndarray  # (n,) of the label of its class with the largest IoU, `NO_LABEL_AREA` without overlap
    label_image_ids: np.ndarray  # (m,) int
    label_classes: np.ndarray  # (m,) int64
    label_boxes: np.ndarray  # (m, 4)

    @classmethod
    def concatenate(cls, images: Sequence[ImageEvaluation]) -> EvaluatedSet:
        """Join images, with ids from 0 in the order given; an image may occur several times."""
        ids = np.arange(len(images))
        label_areas = [box_areas(image.label_boxes) for image in images]
        claimed_areas = [
            np.append(areas, NO_LABEL_AREA)[image.claimed_labels]  # index -1 is the appended one
            for image, areas in zip(images, label_areas, strict=True)
        ]
        return cls(
            num_images=len(images),
            image_ids=np.repeat(ids, [len(image.boxes) for image in images]),
            boxes=_concatenate([image.boxes for image in images], (0, 4)),
            confidences=_concatenate([image.confidences for image in images]),
            classes=_concatenate([image.classes for image in images]).astype(np.int64),
            tp=_concatenate([image.tp for image in images], (0, len(IOU_THRESHOLDS))).astype(bool),
            claimed_areas=_concatenate(claimed_areas),
            label_image_ids=np.repeat(ids, [len(image.label_classes) for image in images]),
            label_classes=_concatenate([image.label_classes for image in images]).astype(np.int64),
            label_boxes=_concatenate([image.label_boxes for image in images], (0, 4)),
        )

    def select(self, detections: np.ndarray, labels: np.ndarray) -> EvaluatedSet:
        """Return the set with some of its detections, in their order, and some of its labels, by index or bool."""
        of_detections = ("image_ids", "boxes", "confidences", "classes", "tp", "claimed_areas")
        of_labels = ("label_image_ids", "label_classes", "label_boxes")
        changes = {name: getattr(self, name)[detections] for name in of_detections}
        return replace(self, **changes, **{name: getattr(self, name)[labels] for name in of_labels})

    @property
    def areas(self) -> np.ndarray:
        """(n,) of the boxes."""
        return box_areas(self.boxes)

    @property
    def label_areas(self) -> np.ndarray:
        """(m,) of the labels' boxes."""
        return box_areas(self.label_boxes)


def box_areas(boxes_xyxy: np.ndarray) -> np.ndarray:
    """Return the (n,) areas of (n, 4) boxes."""
    return (boxes_xyxy[:, 2] - boxes_xyxy[:, 0]) * (boxes_xyxy[:, 3] - boxes_xyxy[:, 1])


def _concatenate(arrays: Sequence[np.ndarray], empty_shape: tuple[int, ...] = (0,)) -> np.ndarray:
    return np.concatenate(arrays) if arrays else np.zeros(empty_shape)
