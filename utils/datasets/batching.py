"""Which samples form a batch, at which size, and how they are collated."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from utils.boxes import xyxy_to_cxcywh
from utils.datasets.dataset import LoadedSample, SampleKey
from utils.structures import ArrayBatch, Batch


class ShuffledBatches:
    """Batches of a training epoch: a permutation that depends only on (seed, epoch), split into batches.

    With `rectangles`, images of similar aspect ratio form a batch, without mosaic, and only the order of the batches is
    shuffled. In distributed training each process gets every n-th image of each batch.
    """

    def __init__(
        self,
        count: int,
        *,
        batch_size: int,
        image_size: int,
        seed: int,
        rectangles: Sequence[list[SampleKey]] | None = None,
        rank: int = 0,
        world_size: int = 1,
        close_mosaic_epoch: int | None = None,
    ) -> None:
        """Plan the batches.

        Args:
            count: number of images in the split.
            batch_size: images in a batch, over all processes; the last one may be smaller.
            image_size: side of the square samples.
            seed: first part of the key of the shuffle.
            rectangles: batches of `rectangular_batches`; those that are too small are the same in every epoch.
            rank: index of this process.
            world_size: number of processes; a batch with fewer images is dropped.
            close_mosaic_epoch: the first epoch without mosaic.
        """
        self.count = count
        self.batch_size = batch_size
        self.image_size = image_size
        self.seed = seed
        self.rectangles = rectangles and [batch for batch in rectangles if len(batch) >= world_size]
        self.rank = rank
        self.world_size = world_size
        self.close_mosaic_epoch = close_mosaic_epoch
        self.epoch = 0
        self.start = 0
        self.weights: np.ndarray | None = None

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        full, rest = divmod(self.count, self.batch_size)
        return full + (rest >= self.world_size)

    def set_epoch(self, epoch: int, *, start: int = 0, weights: np.ndarray | None = None) -> None:
        """Set the epoch of the next pass, from 0, and the number of batches to skip, trained before an interruption.

        With (count,) sampling weights the images are drawn with replacement.
        """
        self.epoch, self.start, self.weights = epoch, start, weights

    def __iter__(self) -> Iterator[list[SampleKey]]:
        """Yield this process's part of each batch of the epoch, from `start` on."""
        for batch in self._all_batches()[self.start : len(self)]:
            yield batch[self.rank :: self.world_size]

    def _all_batches(self) -> list[list[SampleKey]]:
        """Return the epoch's batches, of all processes."""
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence((self.seed, self.epoch))))
        if self.rectangles is not None:
            order = rng.permutation(len(self.rectangles))
            return [[replace(key, epoch=self.epoch, allow_mosaic=False) for key in self.rectangles[i]] for i in order]
        if self.weights is None:
            order = rng.permutation(self.count)
        else:
            order = rng.choice(self.count, size=self.count, p=self.weights / self.weights.sum())
        mosaic = self.close_mosaic_epoch is None or self.epoch < self.close_mosaic_epoch
        square = (self.image_size, self.image_size)
        keys = [SampleKey(index=int(i), epoch=self.epoch, size_hw=square, allow_mosaic=mosaic) for i in order]
        return [keys[start : start + self.batch_size] for start in range(0, self.count, self.batch_size)]


def rectangular_batches(
    sizes_hw: np.ndarray, *, batch_size: int, image_size: int, stride: int, pad: float
) -> list[list[SampleKey]]:
    """Plan batches of images with similar aspect ratio, each batch in the smallest rectangle that contains them.

    The longest side of an image becomes `image_size`. The sides of a rectangle are multiples of `stride`; before they
    are rounded up, `pad` strides are added, so that objects at the border have some context.
    """
    aspect = sizes_hw[:, 0] / sizes_hw[:, 1]  # height over width
    order = np.argsort(aspect, kind="stable")
    batches = []
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        lowest, highest = float(aspect[chosen].min()), float(aspect[chosen].max())
        scale_hw = (min(highest, 1.0), min(1 / lowest, 1.0))
        height, width = (math.ceil(scale * image_size / stride + pad) * stride for scale in scale_hw)
        batches.append([SampleKey(index=int(i), epoch=0, size_hw=(height, width)) for i in chosen])
    return batches


def collate(samples: Sequence[LoadedSample]) -> Batch:
    """Collate samples of the same size for torch."""
    import torch  # here, since batches of arrays do not need it

    batch = collate_arrays(samples)
    images, targets = torch.from_numpy(batch.images), torch.from_numpy(batch.targets)
    return Batch(images=images, targets=targets, indices=batch.indices, transforms=batch.transforms)


def collate_arrays(samples: Sequence[LoadedSample]) -> ArrayBatch:
    """Collate samples of the same size. The images stay channels last in memory, the format that the model uses."""
    rows = []
    for batch_index, loaded in enumerate(samples):
        height, width = loaded.sample.size_hw
        boxes = loaded.sample.boxes.clip(0, (width, height, width, height))
        boxes = xyxy_to_cxcywh(boxes) / np.array((width, height, width, height), np.float32)
        column = np.full((len(boxes), 1), batch_index, np.float32)
        rows.append(np.concatenate((column, loaded.sample.classes[:, None].astype(np.float32), boxes), 1))
    return ArrayBatch(
        images=np.stack([s.sample.image for s in samples]).transpose(0, 3, 1, 2),
        targets=np.concatenate(rows).astype(np.float32),
        indices=[s.index for s in samples],
        transforms=[s.transform for s in samples if s.transform is not None],
    )
