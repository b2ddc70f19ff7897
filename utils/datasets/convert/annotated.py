"""What every reader yields: images with labels by class name, in coordinates normalized by the image size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from utils.datasets.convert.layout import ConversionReport


class Label(NamedTuple):
    """One object."""

    name: str  # of its class
    values: Sequence[float]  # normalized: cx, cy, w, h of a box, or x, y, x, y, ... of a polygon


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotatedImage:
    """One image with its objects."""

    file: str  # name of the image file in the source; "" if there is none
    source: str  # name of the file that annotates it, for messages; "" if there is none
    labels: Sequence[Label] = ()
    split: str = ""  # a word with the name of the split in it, such as valid or train2017; "" if it is not known
    size_wh: tuple[float, float] | None = None  # in pixels, to which the annotation refers; None if it has no size
    target: str = ""  # name of the image below the folder of its split, where the annotations give one
    text: bytes | None = None  # content of YOLO's label file, with its broken rows, valid while class ids stay


@dataclass(kw_only=True)
class AnnotatedSet:
    """All images of a source."""

    images: list[AnnotatedImage]
    names: tuple[str, ...] = ()  # class names in the order that the source gives; () if it gives none
    names_from: str = ""  # where this order comes from
    names_fixed: bool = False  # `names` are all classes; otherwise they are in use as far as they have objects
    report: ConversionReport = field(default_factory=ConversionReport)  # counts of what was read and skipped


class Objects:
    """Collects the objects of one image, and counts those that have no area."""

    def __init__(self, size_wh: tuple[float, float], report: ConversionReport, *, polygons: bool) -> None:
        """Start without objects; with `polygons`, `add_polygon` keeps polygons instead of their boxes."""
        if not (0 < min(size_wh) and max(size_wh) < float("inf")):
            raise ValueError(f"the size of the image is {size_wh[0]:g}x{size_wh[1]:g}")
        self.labels: list[Label] = []
        self._size_wh, self._report, self._polygons = size_wh, report, polygons

    def add_box(self, name: str, box_xyxy: Sequence[float]) -> None:
        """Add a box given by its corners in pixels, which is clipped to the image."""
        width, height = self._size_wh
        x1, x2 = (min(max(x / width, 0.0), 1.0) for x in box_xyxy[::2])
        y1, y2 = (min(max(y / height, 0.0), 1.0) for y in box_xyxy[1::2])
        if x2 > x1 and y2 > y1:  # not NaN
            self._report["objects"] += 1
            self.labels.append(Label(name, ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)))
        else:
            self._report["boxes without area skipped"] += 1

    def add_polygon(self, name: str, points: np.ndarray) -> None:
        """Add a polygon, (k, 2) x and y in pixels: itself, or its box if polygons are not wanted or it has no area."""
        if not len(points) or not np.isfinite(points).all():
            self._report["polygons without points skipped"] += 1
            return
        inside = (points / self._size_wh).clip(0, 1)
        if self._polygons and len(points) >= 3 and (inside.max(0) > inside.min(0)).all():
            self._report["objects"] += 1
            self._report["of them with polygons"] += 1
            self.labels.append(Label(name, [float(value) for value in inside.reshape(-1)]))
        else:
            self.add_box(name, (*points.min(0), *points.max(0)))
