"""Which samples make a batch, of which size, and how they are joined."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import Sampler

from utils.boxes import xyxy_to_cxcywh
from utils.datasets.dataset import LoadedSample, SampleRef
from utils.structures import Batch


class ShuffledBatches(Sampler[list[SampleRef]]):
    """Batches of a training epoch: a permutation that depends on (seed, epoch) alone, cut into batches.

    With `rectangles`, images of like shape stand together, whole, and only the order of the batches is shuffled. Of
    several processes that train together each gets every n-th image of each batch.
    """

    def __init__(
        self,
        count: int,
        *,
        batch_size: int,
        image_size: int,
        seed: int,
        rectangles: Sequence[list[SampleRef]] | None = None,
        share: tuple[int, int] = (0, 1),
        close_mosaic_epoch: int | None = None,
    ) -> None:
        """Plan the batches.

        Args:
            count: images of the split.
            batch_size: images in a batch, over all processes; the last one may be smaller.
            image_size: side of the square samples.
            seed: first part of the key of the shuffle.
            rectangles: batches of like shape, to be taken as they are.
            share: this process's number and how many there are. A last batch with fewer images than processes is
                left out; of rectangles that is the same one in every epoch.
            close_mosaic_epoch: the epoch from which samples are whole images, without mosaic.
        """
        self.count = count
        self.batch_size = batch_size
        self.image_size = image_size
        self.seed = seed
        self.rectangles = rectangles and [batch for batch in rectangles if len(batch) >= share[1]]
        self.share = share
        self.close_mosaic_epoch = close_mosaic_epoch
        self.epoch = 0
        self.start = 0
        self.weights: np.ndarray | None = None

    def __len__(self) -> int:
        """Return the batches of an epoch."""
        full, rest = divmod(self.count, self.batch_size)
        return full + (rest >= self.share[1])

    def set_epoch(self, epoch: int, *, start: int = 0, weights: np.ndarray | None = None) -> None:
        """Choose what the next pass is for.

        Args:
            epoch: the epoch.
            start: batches at its beginning that are left out, since they were trained already.
            weights: (count,) how often each image is wanted; then images are drawn, not shuffled.
        """
        self.epoch, self.start, self.weights = epoch, start, weights

    def __iter__(self) -> Iterator[list[SampleRef]]:
        """Yield the epoch's batches, from `start` on, this process's share of each."""
        rank, processes = self.share
        for batch in self._planned()[self.start : len(self)]:
            yield batch[rank::processes]

    def _planned(self) -> list[list[SampleRef]]:
        """Return all batches of the epoch."""
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence((self.seed, self.epoch))))
        whole = self.rectangles is not None or (
            self.close_mosaic_epoch is not None and self.epoch >= self.close_mosaic_epoch
        )
        if self.rectangles is not None:
            order = rng.permutation(len(self.rectangles))
            chosen = [[(ref.index, ref.size_hw) for ref in self.rectangles[int(number)]] for number in order]
        else:
            if self.weights is None:
                order = rng.permutation(self.count)
            else:
                order = rng.choice(self.count, size=self.count, p=self.weights / self.weights.sum())
            square = (self.image_size, self.image_size)
            starts = range(0, self.count, self.batch_size)
            chosen = [[(int(i), square) for i in order[start : start + self.batch_size]] for start in starts]
        return [
            [SampleRef(index=index, epoch=self.epoch, size_hw=size_hw, whole=whole) for index, size_hw in batch]
            for batch in chosen
        ]


def rectangular_batches(
    sizes_hw: np.ndarray, *, batch_size: int, image_size: int, stride: int, pad: float
) -> list[list[SampleRef]]:
    """Plan evaluation batches: images of like shape together, each batch in the smallest rectangle that holds it.

    Args:
        sizes_hw: (n, 2) height and width of each image.
        batch_size: images in a batch.
        image_size: longer side of an image in the network.
        stride: rectangles are multiples of it.
        pad: strides added before rounding up, so that objects at the border see some ground.
    """
    aspect = sizes_hw[:, 0] / sizes_hw[:, 1]  # height over width
    order = np.argsort(aspect, kind="stable")
    batches = []
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        lowest, highest = float(aspect[chosen].min()), float(aspect[chosen].max())
        share = (1.0, 1.0)
        if highest < 1:
            share = (highest, 1.0)
        elif lowest > 1:
            share = (1.0, 1 / lowest)
        height, width = (math.ceil(s * image_size / stride + pad) * stride for s in share)
        batches.append([SampleRef(index=int(i), epoch=0, size_hw=(height, width)) for i in chosen])
    return batches


def collate(samples: Sequence[LoadedSample]) -> Batch:
    """Join samples of one size into a batch. The images stay channels last in memory, as the network reads them."""
    images = torch.from_numpy(np.stack([s.sample.image for s in samples])).permute(0, 3, 1, 2)  # (B, 3, H, W)
    rows = []
    for position, loaded in enumerate(samples):
        height, width = loaded.sample.size_hw
        boxes = loaded.sample.boxes.clip(0, (width, height, width, height))
        boxes = xyxy_to_cxcywh(boxes) / np.array((width, height, width, height), np.float32)
        column = np.full((len(boxes), 1), position, np.float32)
        rows.append(np.concatenate((column, loaded.sample.classes[:, None].astype(np.float32), boxes), 1))
    return Batch(
        images=images,
        targets=torch.from_numpy(np.concatenate(rows).astype(np.float32)),
        indices=[s.index for s in samples],
        placements=[s.placement for s in samples if s.placement is not None],
    )
