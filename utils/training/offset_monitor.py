"""Monitors the sampling offsets of a model's AKConv layers: two columns of results.csv, and warnings.

The averaged model is measured on a few validation images in a pass of its own, because recording offsets in the
evaluation pass would rule out the fastest implementation for the whole pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import nn

from utils.inference.offset_statistics import LayerOffsets, layer_offsets, mean_offsets
from utils.inference.sampling_points import akconv_layers, record_sampling
from utils.log import LOGGER
from utils.runtime import scale_pixels
from utils.structures import Batch

MAX_IMAGES = 8  # even the coarsest map has thousands of pixels in them, and they cost little compared with an epoch
FROZEN = 0.01  # px: changes a bilinear sample by at most a hundredth of the difference to its neighbour
FROZEN_EPOCHS = 10  # warm-up takes the first three, and the averaged weights lag behind


class OffsetMonitor:
    """Measures the offsets of a model, in evaluation mode, during its validations; the warnings quote `offset_lr`."""

    def __init__(self, model: nn.Module, *, offset_lr: float) -> None:
        self._model, self._offset_lr = model, offset_lr
        self._layers = akconv_layers(model)
        # each layer's, by the index of the batch
        self._measured: dict[int, list[LayerOffsets]] = {}

    def record_offsets(self, batch_index: int, num_batches: int, batch: Batch) -> None:
        """Measure the first image of a batch if it is one of at most eight selected, of all processes' batches."""
        interval = max(num_batches // MAX_IMAGES, 1)
        if not self._layers or batch_index % interval or batch_index // interval >= MAX_IMAGES:
            return
        device = next(self._model.parameters()).device
        with torch.inference_mode(), record_sampling(self._layers) as samplings:
            self._model(scale_pixels(batch.images[:1], device))
            self._measured[batch_index] = [layer_offsets(layer) for layer in samplings.values()]

    def exchange(self, gather: Callable[[object], list[Any]]) -> None:
        """Give this process the measurements of all; `gather` returns the values of all processes."""
        self._measured = {index: layers for part in gather(self._measured) for index, layers in part.items()}

    def layers(self) -> list[LayerOffsets]:
        """Return each layer's means over the images of the last validation."""
        images = [layers for _, layers in sorted(self._measured.items())]
        return [mean_offsets(measured) for measured in zip(*images, strict=True)]

    def pop_columns(self) -> tuple[float, float]:
        """Return the values of `OFFSET_COLUMNS`, and clear them: an epoch without validation has none."""
        layers = self.layers()
        self._measured = {}
        return offset_means(layers)

    def warn(self, epoch: int, *, emitted: Collection[str]) -> list[str]:
        """Log the warnings after an epoch, from 0, except for the kinds already emitted; return the new kinds."""
        warnings = offset_warnings(self.layers(), epoch=epoch, offset_lr=self._offset_lr)
        new = [kind for kind in warnings if kind not in emitted]
        for kind in new:
            LOGGER.warning(warnings[kind])
        return new


def offset_means(layers: Sequence[LayerOffsets]) -> tuple[float, float]:
    """Return offset magnitude and out-of-bounds fraction averaged over layers; nan without layers."""
    count = len(layers) or math.nan
    return sum(layer.abs_mean for layer in layers) / count, sum(layer.oob_fraction for layer in layers) / count


def offset_warnings(layers: Sequence[LayerOffsets], *, epoch: int, offset_lr: float) -> dict[str, str]:
    """Return the warnings about offsets measured after an epoch, from 0, by kind: `diverged` or `frozen`."""
    if not layers:
        return {}
    diverged = [layer for layer in layers if layer.diverged]
    if diverged:
        worst = max(diverged, key=_severity)
        return {
            "diverged": f"epoch {epoch}: {len(diverged)} of {len(layers)} AKConv layers sample far from their pixels, "
            f"worst {worst.name}: mean offset {worst.abs_mean:.3g} px, {worst.oob_fraction:.0%} of the points outside "
            f"the map. Fix: lower offset_lr in --hyp (now {offset_lr:g}), e.g. to {offset_lr / 10:g}, and start anew"
        }
    if epoch + 1 >= FROZEN_EPOCHS and all(layer.abs_mean < FROZEN for layer in layers):
        largest = max(layer.abs_mean for layer in layers)
        return {
            "frozen": f"epoch {epoch}: the mean offsets of all {len(layers)} AKConv layers are below {FROZEN} px (at "
            f"most {largest:.2g}): they still sample their initial shape. Fix: unless this is intended, raise "
            f"offset_lr in --hyp (now {offset_lr:g}), and do not --freeze these layers"
        }
    return {}


def _severity(layer: LayerOffsets) -> tuple[bool, float, float]:
    """Order of diverged layers, NaN last."""
    return not math.isfinite(layer.normalized_abs_mean), layer.normalized_abs_mean, layer.left_fraction
