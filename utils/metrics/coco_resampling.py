"""COCO's average precisions of a set and of resamples of its images, equal to those of the exported JSON files."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from utils.metrics.bootstrap import COCO, ResampledAP, resample_ap
from utils.metrics.coco import CocoDetections, CocoLabels, match_class
from utils.metrics.evaluated_set import EvaluatedSet
from utils.metrics.object_size import COCO_SCALE, SizeScale

BOX_DECIMALS, CONFIDENCE_DECIMALS = 3, 5  # of the JSON files: what is rounded to equal confidences is ranked by image
ALL_AREAS = (0.0, 1e10)


def resample_coco(
    evaluated: EvaluatedSet, weights: np.ndarray, *, image_ranks: np.ndarray, scale: SizeScale = COCO_SCALE
) -> dict[str, np.ndarray]:
    """Compute COCO's average precisions in every resample, as `coco.coco_figures` does on the set itself.

    Args:
        evaluated: the set.
        weights: (r, images) integers, how many times each resample contains each image.
        image_ranks: (images,) rank of each image by its COCO id; of equal confidences the one of the lower rank counts
            first.
        scale: the sizes; an object whose area is a limit belongs to both sizes, as COCO has it.

    Returns:
        (r,) "AP", "AP50", "AP75", and "AP_small" and so on for sizes of which there are objects; nan in resamples
        without any.
    """
    ranges = {"all": ALL_AREAS, **scale.ranges}
    labels, detections = _coco_boxes(evaluated, image_ranks)
    matches = [match_class(labels, detections, int(i), ranges) for i in np.unique(labels.classes)]
    rows = np.concatenate([of_class.rows for of_class in matches]) if matches else np.zeros(0, np.int64)
    results: dict[str, ResampledAP] = {}
    for index, (area, (low, high)) in enumerate(ranges.items()):
        own = (labels.areas >= low) & (labels.areas <= high)
        if not own.any():
            continue
        ignored, matched = (
            np.concatenate([flags[index].T for flags in of_all])  # (n, t)
            for of_all in ([one.ignored for one in matches], [one.matched for one in matches])
        )
        counted = replace(evaluated.select(rows, own), confidences=detections.confidences[rows], tp=matched & ~ignored)
        results[area] = resample_ap(counted, weights, ignored=ignored, rule=COCO)
    if "all" not in results:
        return {}
    every = results.pop("all")
    return {
        **{"AP": every.mean(), "AP50": every.mean(0), "AP75": every.mean(5)},
        **{f"AP_{size}": result.mean() for size, result in results.items()},
    }


def as_exported(evaluated: EvaluatedSet) -> EvaluatedSet:
    """Return the set with boxes and confidences as other programs read them from the JSON files."""
    corners = []
    for boxes in (evaluated.boxes, evaluated.label_boxes):
        xywh = _xywh(boxes).round(BOX_DECIMALS)
        corners.append(np.concatenate((xywh[:, :2], xywh[:, :2] + xywh[:, 2:]), 1))
    return replace(evaluated, boxes=corners[0], label_boxes=corners[1], confidences=_rounded_confidences(evaluated))


def _rounded_confidences(evaluated: EvaluatedSet) -> np.ndarray:
    return evaluated.confidences.astype(np.float64).round(CONFIDENCE_DECIMALS)


def _xywh(boxes_xyxy: np.ndarray) -> np.ndarray:
    corners = boxes_xyxy.astype(np.float64)
    return np.concatenate((corners[:, :2], corners[:, 2:] - corners[:, :2]), 1)


def _coco_boxes(evaluated: EvaluatedSet, image_ranks: np.ndarray) -> tuple[CocoLabels, CocoDetections]:
    """Return labels and detections as they are read from the JSON files."""
    label_boxes = _xywh(evaluated.label_boxes)
    areas = label_boxes[:, 2:].prod(1).round(BOX_DECIMALS)
    labels = CocoLabels(
        image_ids=image_ranks[evaluated.label_image_ids],
        classes=evaluated.label_classes,
        boxes=label_boxes.round(BOX_DECIMALS),
        areas=areas,
        crowd=np.zeros(len(areas), bool),
    )
    detections = CocoDetections(
        image_ids=image_ranks[evaluated.image_ids],
        classes=evaluated.classes,
        boxes=_xywh(evaluated.boxes).round(BOX_DECIMALS),
        confidences=_rounded_confidences(evaluated),
    )
    return labels, detections
