"""The data structures that packages exchange: Sample, Batch, Detections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # so that data sets can be read without the seconds that importing torch takes
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Polygons:
    """The polygons of an image's objects, concatenated in flat arrays; each polygon is closed."""

    points: np.ndarray  # (p, 2) float32, x and y
    starts: np.ndarray  # (n + 1,) int64; object i has points[starts[i]:starts[i + 1]], empty if only its box is known

    def __len__(self) -> int:
        """Return the number of objects, including those without a polygon."""
        return len(self.starts) - 1

    def of(self, index: int) -> np.ndarray:
        """Return the (k, 2) points of one object."""
        return self.points[self.starts[index] : self.starts[index + 1]]

    @property
    def known(self) -> np.ndarray:
        """(n,) bool, which objects have a polygon."""
        return np.diff(self.starts) > 0


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One image with its labels."""

    image: np.ndarray  # (H, W, 3) uint8, RGB
    boxes: np.ndarray  # (n, 4) float32, x1, y1, x2, y2 in pixels of `image`
    classes: np.ndarray  # (n,) int64
    polygons: Polygons | None = None  # of the n objects in pixels, maybe beyond `image`; None if no object has one

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width of the image."""
        return self.image.shape[0], self.image.shape[1]


@dataclass(frozen=True, kw_only=True)
class LetterboxTransform:
    """The map from an image to its letterboxed input: `input = original * ratio + pad`."""

    original_hw: tuple[int, int]  # height and width of the file's image
    ratio_wh: tuple[float, float]  # scale along x and y
    pad_wh: tuple[float, float]  # padding in pixels on the left and at the top

    def to_input(self, boxes_xyxy: np.ndarray) -> np.ndarray:
        """Map (n, 4) boxes from pixels of the original to pixels of the input."""
        return boxes_xyxy * np.tile(self.ratio_wh, 2).astype(np.float32) + np.tile(self.pad_wh, 2).astype(np.float32)

    def to_original(self, boxes_xyxy: np.ndarray) -> np.ndarray:
        """Map (n, 4) boxes from pixels of the input to pixels of the original, clipped to the image."""
        boxes = (boxes_xyxy - np.array(self.pad_wh * 2, np.float32)) / np.array(self.ratio_wh * 2, np.float32)
        height, width = self.original_hw
        return boxes.clip(0, np.array((width, height, width, height), np.float32))


@dataclass(frozen=True, kw_only=True)
class ArrayBatch:
    """The input of one evaluation step, without torch."""

    images: np.ndarray  # (B, 3, H, W) uint8, RGB, stored channels last
    targets: np.ndarray  # (n, 6) float32, as those of `Batch`
    indices: Sequence[int]  # index of each image in the data set
    transforms: Sequence[LetterboxTransform] = ()  # of each image


@dataclass(kw_only=True)
class Batch:
    """The input of one training or evaluation step."""

    images: Tensor  # (B, 3, H, W) uint8, RGB, stored channels last
    targets: Tensor  # (n, 6) float32: index in the batch, class id, then cx, cy, w, h normalized by W and H
    indices: Sequence[int]  # index of each image in the data set
    transforms: Sequence[LetterboxTransform] = ()  # of each image; empty for training batches, which are mosaics

    def pin_memory(self) -> Batch:
        """Return the batch in page-locked memory, so that the copy to the GPU can be asynchronous."""
        return replace(self, images=self.images.pin_memory(), targets=self.targets.pin_memory())


@dataclass(frozen=True, kw_only=True)
class Detections:
    """The detections of one image, by descending confidence."""

    boxes: np.ndarray  # (n, 4) float32: x1, y1, x2, y2 in pixels
    scores: np.ndarray  # (n,) float32 confidences in [0, 1]
    classes: np.ndarray  # (n,) int64

    def __len__(self) -> int:
        """Return the number of detections."""
        return len(self.scores)
