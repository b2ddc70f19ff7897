"""One sample of a split, plain for evaluation or augmented for training: a pure function of (seed, epoch, index)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from utils.boxes import cxcywh_to_xyxy
from utils.datasets.copy_paste import copy_paste
from utils.datasets.image_cache import DiskCache, ImageCache
from utils.datasets.images import read_image
from utils.datasets.index import DatasetIndex
from utils.datasets.letterbox import letterbox, resize_longest_side
from utils.datasets.mosaic import mosaic
from utils.datasets.polygons import scale_and_shift
from utils.datasets.transforms import Augmentation, draw_hsv_gains, draw_perspective, flip, hsv_jitter, mixup, warp
from utils.structures import LetterboxTransform, Sample


@dataclass(frozen=True, kw_only=True)
class SampleKey:
    """Identifies a sample."""

    index: int  # of the image in the data set
    epoch: int  # for which augmentations are drawn
    size_hw: tuple[int, int]  # of the sample
    allow_mosaic: bool = True  # False for a single image, whatever the probability of a mosaic


@dataclass(frozen=True, kw_only=True)
class LoadedSample:
    """A sample ready for a batch, the index of its image, and for evaluation the letterbox transform of the image."""

    sample: Sample
    index: int
    transform: LetterboxTransform | None


class DetectionDataset:
    """Samples of one split."""

    def __init__(
        self,
        index: DatasetIndex,
        *,
        image_size: int,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        single_class: bool = False,
        cache_bytes: int = 0,
        disk_cache: DiskCache | None = None,
    ) -> None:
        """Prepare the data set.

        Args:
            index: the scanned split.
            image_size: side of a training sample, and longest side of an evaluation image.
            augmentation: None for evaluation.
            seed: first part of the key of all random draws.
            single_class: treat all classes as class 0.
            cache_bytes: memory for decoded images, in each worker process.
            disk_cache: of this split and size.
        """
        self.index = index
        self.image_size = image_size
        self.augmentation = augmentation
        self.seed = seed
        self.single_class = single_class
        self.cache = ImageCache(cache_bytes)
        self.disk_cache = disk_cache

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.index)

    def __getitem__(self, key: SampleKey) -> LoadedSample:
        """Return the sample of a key, the same one in every process and at every call."""
        if self.augmentation is None:
            sample, transform = self._letterboxed(key.index, key.size_hw, scale_up=False)
            return LoadedSample(sample=sample, index=key.index, transform=transform)
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence((self.seed, key.epoch, key.index))))
        return LoadedSample(sample=self._augmented(key, self.augmentation, rng), index=key.index, transform=None)

    def _augmented(self, key: SampleKey, strength: Augmentation, rng: np.random.Generator) -> Sample:
        """Draw and apply all augmentations. The order of the draws is part of the result."""
        is_square = key.size_hw[0] == key.size_hw[1]
        if is_square and key.allow_mosaic and rng.random() < strength.mosaic:
            sample = self._mosaic(key.index, strength, rng)
            if rng.random() < strength.mixup:
                other = self._mosaic(int(rng.integers(len(self))), strength, rng)
                sample = mixup(sample, other, float(rng.beta(32, 32)))
        else:
            sample, _ = self._letterboxed(key.index, key.size_hw, scale_up=True)
            sample = _warped(sample, key.size_hw, strength, rng)
        gains = draw_hsv_gains(rng, strength)
        if gains != (1, 1, 1):
            sample = replace(sample, image=hsv_jitter(sample.image, gains))
        if rng.random() < strength.flipud:
            sample = flip(sample, axis=1)
        if rng.random() < strength.fliplr:
            sample = flip(sample, axis=0)
        return sample

    def _mosaic(self, index: int, strength: Augmentation, rng: np.random.Generator) -> Sample:
        """Join image `index` and three random ones in random order around a random point, and warp the result."""
        size = self.image_size
        chosen = rng.permutation([index, *rng.integers(len(self), size=3)])
        centre_x, centre_y = rng.integers(size // 2, size + size // 2, size=2, endpoint=True)
        canvas = mosaic([self.original(int(i)) for i in chosen], size=size, centre_xy=(int(centre_x), int(centre_y)))
        return _warped(canvas, (size, size), strength, rng)

    def original(self, index: int) -> Sample:
        """Return an image with its labels, scaled to the image size along its longest side, without augmentation."""
        image = self.cache.get(index, self._load)
        rows = self.index.rows(index)
        height, width = image.shape[:2]
        boxes = cxcywh_to_xyxy(rows[:, 1:]) * np.array((width, height, width, height), np.float32)
        classes = rows[:, 0].astype(np.int64)
        polygons = self.index.polygons(index)
        return Sample(
            image=image,
            boxes=boxes,
            classes=np.zeros_like(classes) if self.single_class else classes,
            polygons=polygons and scale_and_shift(polygons, scale_xy=(width, height)),
        )

    def _load(self, index: int) -> np.ndarray:
        cached = self.disk_cache.load(index) if self.disk_cache is not None else None
        if cached is not None:
            return cached
        image = read_image(str(self.index.paths[index]))
        return resize_longest_side(image, self.image_size, smooth=self.augmentation is None)

    def _letterboxed(
        self, index: int, size_hw: tuple[int, int], *, scale_up: bool
    ) -> tuple[Sample, LetterboxTransform]:
        """Return a single letterboxed image, and the transform from the file's image to it."""
        sample = self.original(index)
        height, width = self.index.sizes_hw[index]
        image, transform = letterbox(sample.image, size_hw, scale_up=scale_up, original_hw=(int(height), int(width)))
        rows = self.index.rows(index)
        boxes = cxcywh_to_xyxy(rows[:, 1:]) * np.array((width, height, width, height), np.float32)
        polygons = self.index.polygons(index)
        scale_xy = (transform.ratio_wh[0] * width, transform.ratio_wh[1] * height)
        return Sample(
            image=image,
            boxes=transform.to_input(boxes),
            classes=sample.classes,
            polygons=polygons and scale_and_shift(polygons, scale_xy=scale_xy, shift_xy=transform.pad_wh),
        ), transform


def _warped(sample: Sample, out_hw: tuple[int, int], strength: Augmentation, rng: np.random.Generator) -> Sample:
    """Paste copies of random objects, and warp. Without polygons no copies are drawn, so that other draws are equal."""
    if strength.copy_paste and sample.polygons is not None:
        sample = copy_paste(sample, rng.random(len(sample.boxes)) < strength.copy_paste)
    return warp(sample, draw_perspective(rng, strength, size_hw=sample.size_hw, out_hw=out_hw), out_hw)
