"""One sample of a split: as it is for evaluation, augmented for training. A pure function of (seed, epoch, number)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from torch.utils.data import Dataset

from utils.boxes import cxcywh_to_xyxy
from utils.datasets.copy_paste import copy_paste
from utils.datasets.image_cache import DiskCache, ImageCache
from utils.datasets.images import read_image
from utils.datasets.index import DatasetIndex
from utils.datasets.letterbox import letterbox, resize_longest_side
from utils.datasets.mosaic import mosaic
from utils.datasets.polygons import moved
from utils.datasets.transforms import (
    blend,
    draw_colour_gains,
    draw_perspective,
    flip_horizontally,
    flip_vertically,
    hsv_jitter,
    warp,
)
from utils.structures import LetterboxTransform, Sample


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How strongly training samples are changed; the field names are those of the hyperparameter yaml.

    Attributes:
        hsv_h: hue gain, a share.
        hsv_s: saturation gain, a share.
        hsv_v: value gain, a share.
        degrees: rotation, either way.
        translate: shift, a share of the size.
        scale: magnification gain, a share.
        shear: degrees.
        perspective: projective terms per pixel.
        flipud: probability of mirroring top and bottom.
        fliplr: probability of mirroring left and right.
        mosaic: probability of joining four images.
        mixup: probability of mixing a mosaic with another.
        copy_paste: probability that an object is pasted once more, mirrored; of objects with outlines.
    """

    hsv_h: float = 0.0
    hsv_s: float = 0.0
    hsv_v: float = 0.0
    degrees: float = 0.0
    translate: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    perspective: float = 0.0
    flipud: float = 0.0
    fliplr: float = 0.0
    mosaic: float = 0.0
    mixup: float = 0.0
    copy_paste: float = 0.0


@dataclass(frozen=True, kw_only=True)
class SampleRef:
    """Which sample is wanted: the image's number, the epoch it is drawn for, and the size of its batch.

    `whole` asks for the image alone, whatever the probability of a mosaic.
    """

    index: int
    epoch: int
    size_hw: tuple[int, int]
    whole: bool = False


@dataclass(frozen=True, kw_only=True)
class LoadedSample:
    """A sample ready for a batch, with its number and, if it is one whole image, its place in the input."""

    sample: Sample
    index: int
    placement: LetterboxTransform | None


class DetectionDataset(Dataset[LoadedSample]):
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
        """Make the data set.

        Args:
            index: the scanned split.
            image_size: side of a training image; evaluation images are brought to it along their longer side.
            augmentation: None for evaluation.
            seed: first part of the key of all randomness.
            single_class: treat all classes as class 0.
            cache_bytes: memory for decoded images, in each worker process.
            disk_cache: decoded images of this split and size; see `prepare_disk_cache`.
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

    def __getitem__(self, ref: SampleRef) -> LoadedSample:
        """Return the sample that `ref` names, the same one whenever and wherever it is asked for."""
        if self.augmentation is None:
            sample, placement = self._fitted(ref.index, ref.size_hw, scale_up=False)
            return LoadedSample(sample=sample, index=ref.index, placement=placement)
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence((self.seed, ref.epoch, ref.index))))
        return LoadedSample(sample=self._augmented(ref, self.augmentation, rng), index=ref.index, placement=None)

    def _augmented(self, ref: SampleRef, strength: Augmentation, rng: np.random.Generator) -> Sample:
        """Draw and apply: mosaic or one image, warp, perhaps mixup, colours, mirrors."""
        square = ref.size_hw[0] == ref.size_hw[1]
        if square and not ref.whole and rng.random() < strength.mosaic:
            sample = self._mosaic(ref.index, strength, rng)
            if rng.random() < strength.mixup:
                other = self._mosaic(int(rng.integers(len(self))), strength, rng)
                sample = blend(sample, other, float(rng.beta(32, 32)))
        else:
            sample, _ = self._fitted(ref.index, ref.size_hw, scale_up=True)
            sample = self._warped(self._pasted(sample, strength, rng), ref.size_hw, strength, rng)
        gains = draw_colour_gains(rng, hsv_h=strength.hsv_h, hsv_s=strength.hsv_s, hsv_v=strength.hsv_v)
        if gains != (1, 1, 1):
            sample = replace(sample, image=hsv_jitter(sample.image, gains))
        if rng.random() < strength.flipud:
            sample = flip_vertically(sample)
        if rng.random() < strength.fliplr:
            sample = flip_horizontally(sample)
        return sample

    def _mosaic(self, index: int, strength: Augmentation, rng: np.random.Generator) -> Sample:
        """Join image `index` and three drawn ones, in a drawn order, around a drawn point, and warp the result."""
        size = self.image_size
        chosen = rng.permutation([index, *rng.integers(len(self), size=3)])
        centre_x, centre_y = rng.integers(size // 2, size + size // 2, size=2, endpoint=True)
        canvas = mosaic([self.original(int(i)) for i in chosen], size=size, centre_xy=(int(centre_x), int(centre_y)))
        return self._warped(self._pasted(canvas, strength, rng), (size, size), strength, rng)

    @staticmethod
    def _pasted(sample: Sample, strength: Augmentation, rng: np.random.Generator) -> Sample:
        """Paste drawn objects; where there are no outlines nothing is drawn, and later draws stay as they are."""
        if not strength.copy_paste or sample.outlines is None:
            return sample
        return copy_paste(sample, rng.random(len(sample.boxes)) < strength.copy_paste)

    def _warped(
        self, sample: Sample, out_hw: tuple[int, int], strength: Augmentation, rng: np.random.Generator
    ) -> Sample:
        matrix = draw_perspective(
            rng,
            size_hw=sample.size_hw,
            out_hw=out_hw,
            degrees=strength.degrees,
            translate=strength.translate,
            scale=strength.scale,
            shear=strength.shear,
            perspective=strength.perspective,
        )
        return warp(sample, matrix, out_hw)

    def original(self, index: int) -> Sample:
        """Return an image with its labels, the longer side brought to the image size."""
        image = self.cache.get(index, self._load)
        rows = self.index.rows(index)
        height, width = image.shape[:2]
        boxes = cxcywh_to_xyxy(rows[:, 1:]) * np.array((width, height, width, height), np.float32)
        classes = rows[:, 0].astype(np.int64)
        outlines = self.index.outlines(index)
        return Sample(
            image=image,
            boxes=boxes,
            classes=np.zeros_like(classes) if self.single_class else classes,
            outlines=outlines and moved(outlines, scale_xy=(width, height)),
        )

    def _load(self, index: int) -> np.ndarray:
        held = self.disk_cache.load(index) if self.disk_cache is not None else None
        if held is not None:
            return held
        image = read_image(str(self.index.paths[index]))
        return resize_longest_side(image, self.image_size, smooth=self.augmentation is None)

    def _fitted(self, index: int, size_hw: tuple[int, int], *, scale_up: bool) -> tuple[Sample, LetterboxTransform]:
        """Return a whole image fitted into `size_hw`, and its place there."""
        sample = self.original(index)
        height, width = self.index.sizes_hw[index]
        image, placement = letterbox(sample.image, size_hw, scale_up=scale_up, original_hw=(int(height), int(width)))
        rows = self.index.rows(index)
        original = cxcywh_to_xyxy(rows[:, 1:]) * np.array((width, height, width, height), np.float32)
        outlines = self.index.outlines(index)
        scale_xy = (placement.ratio_wh[0] * width, placement.ratio_wh[1] * height)
        return Sample(
            image=image,
            boxes=placement.to_input(original),
            classes=sample.classes,
            outlines=outlines and moved(outlines, scale_xy=scale_xy, shift_xy=placement.pad_wh),
        ), placement
