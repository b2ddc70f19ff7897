"""The nouns that travel between rooms: Sample, Batch, Detections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Polygons:
    """The outlines of an image's objects, one after another in flat arrays; the last point joins the first.

    Attributes:
        points: (p, 2) float32, x and y.
        starts: (n + 1,) int64: object i has points starts[i] to starts[i + 1], none if only its box is known.
    """

    points: np.ndarray
    starts: np.ndarray

    def __len__(self) -> int:
        """Return the number of objects, those without an outline included."""
        return len(self.starts) - 1

    def of(self, number: int) -> np.ndarray:
        """Return the (k, 2) points of one object."""
        return self.points[self.starts[number] : self.starts[number + 1]]

    @property
    def known(self) -> np.ndarray:
        """Tell which objects have an outline, (n,) bool."""
        return np.diff(self.starts) > 0


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One image with its labels.

    Attributes:
        image: (H, W, 3) uint8, RGB.
        boxes: (n, 4) float32, x1, y1, x2, y2 in pixels of `image`.
        classes: (n,) int64.
        outlines: of the same n objects in pixels of `image`, perhaps reaching beyond it; None if no object has one.
    """

    image: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    outlines: Polygons | None = None

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width of the image."""
        return self.image.shape[0], self.image.shape[1]


@dataclass(frozen=True, kw_only=True)
class LetterboxTransform:
    """Where an image lies in the network's input: `input = original * ratio + pad`.

    Attributes:
        original_hw: height and width of the file's image.
        ratio_wh: scale along x and y.
        pad_wh: pixels to the left and above.
    """

    original_hw: tuple[int, int]
    ratio_wh: tuple[float, float]
    pad_wh: tuple[float, float]

    def to_input(self, boxes_xyxy: np.ndarray) -> np.ndarray:
        """Bring (n, 4) boxes from pixels of the original to pixels of the input."""
        return boxes_xyxy * np.tile(self.ratio_wh, 2).astype(np.float32) + np.tile(self.pad_wh, 2).astype(np.float32)

    def to_original(self, boxes_xyxy: np.ndarray) -> np.ndarray:
        """Bring (n, 4) boxes from pixels of the input to pixels of the original, cut at its borders."""
        boxes = (boxes_xyxy - np.array(self.pad_wh * 2, np.float32)) / np.array(self.ratio_wh * 2, np.float32)
        height, width = self.original_hw
        return boxes.clip(0, np.array((width, height, width, height), np.float32))


@dataclass(kw_only=True)
class Batch:
    """What the network sees in one step.

    Attributes:
        images: (B, 3, H, W) uint8, RGB, stored channels last.
        targets: (n, 6) float32: image in the batch, class, then cx, cy, w, h as shares of W and H.
        indices: each image's number in the data set.
        placements: where each original lies in its input; empty for training images, which are assembled.
    """

    images: Tensor
    targets: Tensor
    indices: Sequence[int]
    placements: Sequence[LetterboxTransform] = ()

    def pin_memory(self) -> Batch:
        """Return the batch in page-locked memory, from where it can be copied while the GPU computes."""
        return Batch(
            images=self.images.pin_memory(),
            targets=self.targets.pin_memory(),
            indices=self.indices,
            placements=self.placements,
        )


@dataclass(frozen=True, kw_only=True)
class Detections:
    """What was found in one image, best first.

    Attributes:
        boxes: (n, 4) x1, y1, x2, y2 in pixels.
        scores: (n,) confidence in [0, 1].
        classes: (n,) int64.
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor

    def __len__(self) -> int:
        """Return how many were found."""
        return len(self.scores)
