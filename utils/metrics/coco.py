"""COCO's twelve metrics: average precision and recall as the COCO challenge defines them.

They differ from `average_precision`: at most 100 detections per image and class count, a detection whose best label is
taken may match the next one, precision is a step function sampled at 101 recalls, and labels outside an area range
neither raise nor lower the result.

Source: cocodataset.org, "Detection evaluation"; what it leaves open (ties, order) follows the pycocotools package.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from utils.metrics.matching import IOU_THRESHOLDS

RECALLS = np.linspace(0, 1, 101)
AREA_RANGES = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
MAX_DETECTIONS = (1, 10, 100)
ABSENT = -1.0
FIGURES = (
    *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
    *("AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large"),
)


@dataclass(frozen=True, kw_only=True)
class CocoBoxes:
    """Boxes of a data set, in any order."""

    image_ids: np.ndarray  # (n,) int64, which sort as the images' COCO ids do
    classes: np.ndarray  # (n,) int64
    boxes: np.ndarray  # (n, 4) float64, x, y, w, h in pixels


@dataclass(frozen=True, kw_only=True)
class CocoLabels(CocoBoxes):
    """Labels with (n,) float64 areas, which decide about their size, and (n,) bool, which are crowds (groups)."""

    areas: np.ndarray
    crowd: np.ndarray


@dataclass(frozen=True, kw_only=True)
class CocoDetections(CocoBoxes):
    """Detections with (n,) float64 confidences."""

    confidences: np.ndarray


@dataclass(frozen=True)
class ClassMatches:
    """Detections of one class, image by image: (n,) confidence and rank in the image; (areas, thresholds, n) flags."""

    rows: np.ndarray  # (n,) their positions among all detections
    confidences: np.ndarray
    ranks: np.ndarray
    matched: np.ndarray
    ignored: np.ndarray


def coco_figures(labels: CocoLabels, detections: CocoDetections) -> dict[str, float]:
    """Return the metrics named in `FIGURES`, in [0, 1]; `ABSENT` without labels to detect, as COCO does."""
    precisions: dict[str, list[np.ndarray]] = {area: [] for area in AREA_RANGES}
    recalls: dict[tuple[str, int], list[np.ndarray]] = {}
    for class_id in np.unique(labels.classes):
        matches = match_class(labels, detections, int(class_id), AREA_RANGES)
        in_class = (labels.classes == class_id) & ~labels.crowd
        for area_index, (area, (low, high)) in enumerate(AREA_RANGES.items()):
            positives = int((in_class & (labels.areas >= low) & (labels.areas <= high)).sum())
            if not positives:
                continue
            for limit in MAX_DETECTIONS if area == "all" else MAX_DETECTIONS[-1:]:
                precision, recall = _curves(matches, area_index, limit, positives)
                recalls.setdefault((area, limit), []).append(recall)
                if limit == MAX_DETECTIONS[-1]:
                    precisions[area].append(precision)
    average = {area: np.array(curves) for area, curves in precisions.items()}  # (classes, thresholds, recalls)
    every = average["all"].reshape(-1, len(IOU_THRESHOLDS), len(RECALLS))
    sizes = list(AREA_RANGES)[1:]
    keys = [*(("all", limit) for limit in MAX_DETECTIONS), *((size, MAX_DETECTIONS[-1]) for size in sizes)]
    values = [every, every[:, :1], every[:, 5:6], *(average[size] for size in sizes)]
    values += [np.array(recalls.get(key, [])) for key in keys]
    return {name: float(value.mean()) if value.size else ABSENT for name, value in zip(FIGURES, values, strict=True)}


def match_class(
    labels: CocoLabels, detections: CocoDetections, class_id: int, ranges: Mapping[str, tuple[float, float]]
) -> ClassMatches:
    """Match the 100 most confident detections of one class in each image, for each range of areas."""
    in_class, rows = np.flatnonzero(labels.classes == class_id), np.flatnonzero(detections.classes == class_id)
    rows = rows[np.lexsort((-detections.confidences[rows], detections.image_ids[rows]))]  # stable
    image_ids = detections.image_ids[rows]
    ranks = np.arange(len(rows)) - np.searchsorted(image_ids, image_ids)
    rows, image_ids, ranks = (array[ranks < MAX_DETECTIONS[-1]] for array in (rows, image_ids, ranks))
    area = detections.boxes[rows, 2] * detections.boxes[rows, 3]
    low, high = np.array(list(ranges.values())).T[..., None]
    outside = (area < low) | (area > high)  # (areas, n)
    shape = (len(ranges), len(IOU_THRESHOLDS), len(rows))
    matched, ignored = np.zeros(shape, bool), np.broadcast_to(outside[:, None], shape).copy()
    for image_id, positions in _by_image(labels.image_ids[in_class]):
        start, stop = np.searchsorted(image_ids, (image_id, image_id + 1))
        if start < stop:
            own = in_class[positions]
            crowd = labels.crowd[own]
            ignored_labels = crowd | (labels.areas[own] < low) | (labels.areas[own] > high)
            iou = _iou(detections.boxes[rows[start:stop]], labels.boxes[own], crowd)
            _match_image(iou, ignored_labels, crowd, matched[..., start:stop], ignored[..., start:stop])
    return ClassMatches(rows, detections.confidences[rows], ranks, matched, ignored)


def _by_image(image_ids: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each image's id and the positions of its entries, in their order."""
    order = np.argsort(image_ids, kind="stable")
    unique_ids, starts = np.unique(image_ids[order], return_index=True)
    yield from zip(unique_ids.tolist(), np.split(order, starts[1:]), strict=True)


def _iou(boxes: np.ndarray, labels: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """Return (n, m) IoU of xywh boxes with xywh labels; with a crowd, the fraction of the box inside it."""
    first, second = boxes[:, None], labels[None]
    low = np.maximum(first[..., :2], second[..., :2])
    high = np.minimum(first[..., :2] + first[..., 2:], second[..., :2] + second[..., 2:])
    width, height = (high - low).clip(0).transpose(2, 0, 1)
    intersection = width * height
    area = (boxes[:, 2] * boxes[:, 3])[:, None]
    union = np.where(crowd, area, area + labels[:, 2] * labels[:, 3] - intersection)
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=intersection > 0)


def _match_image(
    iou: np.ndarray, ignored_labels: np.ndarray, crowd: np.ndarray, matched: np.ndarray, ignored: np.ndarray
) -> None:
    """Match each detection, in order, with the free label of largest IoU; labels that count come first.

    `iou` is (n, m), `ignored_labels` (areas, m), and crowds stay free. Fills `matched` and `ignored`, both
    (areas, thresholds, n): whether a detection has a label, and whether that label is ignored.
    """
    thresholds = np.minimum(IOU_THRESHOLDS, 1 - 1e-10)
    taken = np.zeros((*matched.shape[:2], iou.shape[1]), bool)
    for detection in np.flatnonzero((iou >= thresholds[0]).any(1)):
        near = np.flatnonzero(iou[detection] >= thresholds[0])[::-1]  # among equal IoUs the last label wins
        candidates = iou[detection, near]
        free = (~taken[..., near] | crowd[near]) & (candidates >= thresholds[:, None])
        # An IoU is at most 1, so adding 2 ranks every label that counts before those that are ignored.
        priority = np.where(free, candidates + 2.0 * ~ignored_labels[:, None, near], -1.0)
        choice = priority.argmax(-1)
        area, threshold = np.nonzero(priority.max(-1) > 0)
        label = near[choice[area, threshold]]
        taken[area, threshold, label] = True
        matched[area, threshold, detection] = True
        ignored[area, threshold, detection] = ignored_labels[area, label]


def _curves(matches: ClassMatches, area: int, limit: int, positives: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (thresholds, 101) precision over recall and the (thresholds,) highest recall."""
    rows = np.flatnonzero(matches.ranks < limit)
    rows = rows[np.argsort(-matches.confidences[rows], kind="stable")]
    matched, counted = matches.matched[area][:, rows], ~matches.ignored[area][:, rows]
    tp_count, fp_count = (matched & counted).cumsum(1), (~matched & counted).cumsum(1)
    recall = tp_count / positives
    precision = tp_count / (tp_count + fp_count + np.spacing(1))
    envelope = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
    envelope = np.pad(envelope, ((0, 0), (0, 1)))  # 0 at recalls that are not reached
    positions = [np.searchsorted(row, RECALLS) for row in recall]
    highest = recall[:, -1] if len(rows) else np.zeros(len(recall))
    return np.take_along_axis(envelope, np.array(positions), 1), highest
