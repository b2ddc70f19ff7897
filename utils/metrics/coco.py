"""COCO's own twelve figures: average precision and recall as the COCO challenge defines them.

They differ from the columns of `average_precision`: at most 100 boxes of an image and class count, a box whose best
label is taken may take the next one, precision is read at 101 recalls as a step and not along a line, and labels
outside a range of sizes neither help nor harm.

Source: cocodataset.org, "Detection evaluation"; what it leaves open (ties, order) is as in the pycocotools package.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
AREAS = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
MAX_DETECTIONS = (1, 10, 100)
ABSENT = -1.0
FIGURES = (
    *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
    *("AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large"),
)


@dataclass(frozen=True, kw_only=True)
class CocoLabels:
    """All labels of a data set.

    Attributes:
        images: (m,) int64, numbers whose order is the order of the images' identifiers.
        classes: (m,) int64.
        boxes: (m, 4) float64, x, y, w, h in pixels.
        areas: (m,) float64, in pixels; decides about small, medium and large.
        crowd: (m,) bool, a heap of objects that may be found any number of times; counts for nothing.
    """

    images: np.ndarray
    classes: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray


@dataclass(frozen=True, kw_only=True)
class CocoDetections:
    """All detections on a data set, in any order.

    Attributes:
        images: (n,) int64, numbered as the labels' are.
        classes: (n,) int64.
        boxes: (n, 4) float64, x, y, w, h in pixels.
        scores: (n,) float64.
    """

    images: np.ndarray
    classes: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True)
class _Judged:
    """Detections of one class, image after image: score, rank in the image, and (areas, overlaps, n) flags."""

    scores: np.ndarray
    ranks: np.ndarray
    right: np.ndarray
    ignored: np.ndarray


def coco_figures(labels: CocoLabels, detections: CocoDetections) -> dict[str, float]:
    """Return the figures named in `FIGURES`, in [0, 1]; -1 where there is no label to find, as COCO does."""
    precisions: dict[str, list[np.ndarray]] = {area: [] for area in AREAS}
    recalls: dict[tuple[str, int], list[np.ndarray]] = {}
    for number in np.unique(labels.classes):
        judged = _judge_class(labels, detections, int(number))
        mine = (labels.classes == number) & ~labels.crowd
        for position, (area, (low, high)) in enumerate(AREAS.items()):
            wanted = int((mine & (labels.areas >= low) & (labels.areas <= high)).sum())
            if not wanted:
                continue
            for limit in MAX_DETECTIONS if area == "all" else MAX_DETECTIONS[-1:]:
                precision, recall = _curves(judged, position, limit, wanted)
                recalls.setdefault((area, limit), []).append(recall)
                if limit == MAX_DETECTIONS[-1]:
                    precisions[area].append(precision)
    average = {area: np.array(found) for area, found in precisions.items()}  # (classes, overlaps, recalls)
    every = average["all"].reshape(-1, len(IOU_THRESHOLDS), len(RECALLS))
    values = [every, every[:, :1], every[:, 5:6], *(average[area] for area in list(AREAS)[1:])]
    keys = [*(("all", limit) for limit in MAX_DETECTIONS), *((area, MAX_DETECTIONS[-1]) for area in list(AREAS)[1:])]
    values += [np.array(recalls.get(key, [])) for key in keys]
    return {name: float(value.mean()) if value.size else ABSENT for name, value in zip(FIGURES, values, strict=True)}


def _judge_class(labels: CocoLabels, detections: CocoDetections, number: int) -> _Judged:
    """Match the detections of one class, image by image, the best hundred of each."""
    mine, found = np.flatnonzero(labels.classes == number), np.flatnonzero(detections.classes == number)
    found = found[np.lexsort((-detections.scores[found], detections.images[found]))]  # stable
    images = detections.images[found]
    ranks = np.arange(len(found)) - np.searchsorted(images, images)
    found, images, ranks = (array[ranks < MAX_DETECTIONS[-1]] for array in (found, images, ranks))
    area = detections.boxes[found, 2] * detections.boxes[found, 3]
    low, high = np.array(list(AREAS.values())).T[..., None]
    outside = (area < low) | (area > high)  # (areas, n)
    shape = (len(AREAS), len(IOU_THRESHOLDS), len(found))
    right, ignored = np.zeros(shape, bool), np.broadcast_to(outside[:, None], shape).copy()
    for image, rows in _by_image(labels.images[mine]):
        start, stop = np.searchsorted(images, (image, image + 1))
        if start < stop:
            own = mine[rows]
            unwanted = labels.crowd[own] | (labels.areas[own] < low) | (labels.areas[own] > high)
            iou = _overlaps(detections.boxes[found[start:stop]], labels.boxes[own], labels.crowd[own])
            _match(iou, unwanted, labels.crowd[own], right[..., start:stop], ignored[..., start:stop])
    return _Judged(detections.scores[found], ranks, right, ignored)


def _by_image(images: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Return each image's number with the positions of its entries, in their order."""
    order = np.argsort(images, kind="stable")
    numbers, starts = np.unique(images[order], return_index=True)
    yield from zip(numbers.tolist(), np.split(order, starts[1:]), strict=True)


def _overlaps(boxes: np.ndarray, labels: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """IoU of (n, 4) detections with (m, 4) labels, x, y, w, h; with a crowd, the share of the detection in it."""
    first, second = boxes[:, None], labels[None]
    low = np.maximum(first[..., :2], second[..., :2])
    high = np.minimum(first[..., :2] + first[..., 2:], second[..., :2] + second[..., 2:])
    width, height = (high - low).clip(0).transpose(2, 0, 1)
    shared = width * height
    own = (boxes[:, 2] * boxes[:, 3])[:, None]
    union = np.where(crowd, own, own + labels[:, 2] * labels[:, 3] - shared)
    return np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)


def _match(iou: np.ndarray, unwanted: np.ndarray, crowd: np.ndarray, right: np.ndarray, ignored: np.ndarray) -> None:
    """Give each detection the free label it overlaps most, best detection first, wanted labels before others.

    Args:
        iou: (n, m), detections best first.
        unwanted: (areas, m) labels that count for nothing.
        crowd: (m,) labels that are never used up.
        right: (areas, overlaps, n), set where a label was found, of either kind.
        ignored: (areas, overlaps, n), set to whether that label was unwanted.
    """
    thresholds = np.minimum(IOU_THRESHOLDS, 1 - 1e-10)
    taken = np.zeros((*right.shape[:2], iou.shape[1]), bool)
    for detection in np.flatnonzero((iou >= thresholds[0]).any(1)):
        near = np.flatnonzero(iou[detection] >= thresholds[0])[::-1]  # of equal overlaps the last label is taken
        overlap = iou[detection, near]
        free = (~taken[..., near] | crowd[near]) & (overlap >= thresholds[:, None])
        # Overlaps are at most 1, so 2 more puts every wanted label before all others.
        worth = np.where(free, overlap + 2.0 * ~unwanted[:, None, near], -1.0)
        choice = worth.argmax(-1)
        area, level = np.nonzero(worth.max(-1) > 0)
        label = near[choice[area, level]]
        taken[area, level, label] = True
        right[area, level, detection] = True
        ignored[area, level, detection] = unwanted[area, label]


def _curves(judged: _Judged, area: int, limit: int, wanted: int) -> tuple[np.ndarray, np.ndarray]:
    """Return precision at 101 recalls, (overlaps, 101), and the recall reached, (overlaps,)."""
    chosen = np.flatnonzero(judged.ranks < limit)
    chosen = chosen[np.argsort(-judged.scores[chosen], kind="stable")]
    counted = ~judged.ignored[area][:, chosen]
    hits = (judged.right[area][:, chosen] & counted).cumsum(1)
    misses = (~judged.right[area][:, chosen] & counted).cumsum(1)
    recall = hits / wanted
    precision = hits / (hits + misses + np.spacing(1))
    envelope = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
    envelope = np.pad(envelope, ((0, 0), (0, 1)))  # 0 where a recall is never reached
    places = [np.searchsorted(row, RECALLS) for row in recall]
    reached = recall[:, -1] if len(chosen) else np.zeros(len(recall))
    return np.take_along_axis(envelope, np.array(places), 1), reached
