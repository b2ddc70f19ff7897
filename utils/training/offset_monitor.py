"""How far a training moves the sampling points of its AKConv layers: two numbers an epoch, and a word if it fails.

Measured on the averaged model, on a few images spread over the validation split, in a pass of their own: watching the
offsets in the judging pass itself would keep the fastest implementation from all of it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import torch
from torch import nn

from utils.inference.offset_statistics import LayerOffsets, layer_offsets, mean_offsets
from utils.inference.sampling_points import akconv_layers, record_sampling
from utils.log import LOGGER
from utils.runtime import scale_pixels
from utils.structures import Batch
from utils.training.results_csv import Row

MEASURED = 8  # images at most: thousands of output pixels even of the coarsest map, and little beside any epoch
STILL = 0.01  # px: moves a bilinear sample by no more than a hundredth of the step to its neighbour
STILL_EPOCHS = 10  # warm-up takes the first three, and the average of the weights lags behind


class OffsetMonitor:
    """Watches the offsets of a model that is being trained."""

    def __init__(self, model: nn.Module, *, offset_lr: float) -> None:
        """Take the averaged model, in evaluation mode, and the factor on its offsets' learning rate, for the advice."""
        self._model, self._offset_lr = model, offset_lr
        self._layers = akconv_layers(model)
        self._measured: dict[str, list[LayerOffsets]] = {}

    def look(self, number: int, batches: int, batch: Batch) -> None:
        """Measure the first image of a validation batch, if it is one of those chosen: eight, spread over the split.

        Args:
            number: of the batch, from 0, which begins a new epoch.
            batches: of the whole validation split.
            batch: with at least one image.
        """
        if number == 0:
            self._measured = {}
        every = max(batches // MEASURED, 1)
        if not self._layers or number % every or number // every >= MEASURED:
            return
        device = next(self._model.parameters()).device
        with torch.inference_mode(), record_sampling(self._layers) as found:
            self._model(scale_pixels(batch.images[:1], device))
            for name, layer in found.items():
                self._measured.setdefault(name, []).append(layer_offsets(layer))

    def layers(self) -> list[LayerOffsets]:
        """Return what the last validation told of each layer."""
        return [mean_offsets(own) for own in self._measured.values()]

    def columns(self) -> Row:
        """Return the columns of results.csv, and forget the last validation: an epoch without one has none."""
        layers = self.layers()
        self._measured = {}
        return offset_columns(layers)

    def warn(self, epoch: int, *, told: Collection[str]) -> list[str]:
        """Warn of trouble with the offsets after an epoch, from 0, of each kind once.

        Returns:
            The kinds that were not told before.
        """
        found = offset_warnings(self.layers(), epoch=epoch, offset_lr=self._offset_lr)
        new = [kind for kind in found if kind not in told]
        for kind in new:
            LOGGER.warning(found[kind])
        return new


def offset_columns(layers: Sequence[LayerOffsets]) -> Row:
    """Return the columns of results.csv: means over layers, each counting alike; nan without AKConv or validation."""
    if not layers:
        return {"akconv/offset_abs_mean": math.nan, "akconv/oob_fraction": math.nan}
    return {
        "akconv/offset_abs_mean": sum(layer.magnitude for layer in layers) / len(layers),
        "akconv/oob_fraction": sum(layer.oob_fraction for layer in layers) / len(layers),
    }


def offset_warnings(layers: Sequence[LayerOffsets], *, epoch: int, offset_lr: float) -> dict[str, str]:
    """Return what is wrong with the offsets, by the kind of trouble.

    Args:
        layers: measured after an epoch.
        epoch: from 0.
        offset_lr: of the hyperparameters, for the advice.
    """
    if not layers:
        return {}
    lost = [layer for layer in layers if layer.diverged]
    if lost:
        worst = max(
            lost,
            key=lambda layer: (
                not math.isfinite(layer.normalized_magnitude),
                layer.normalized_magnitude,
                layer.left_fraction,
            ),
        )
        return {
            "exploded": f"epoch {epoch}: {len(lost)} of {len(layers)} AKConv layers sample far from their pixels, "
            f"worst {worst.name}: mean offset {worst.magnitude:.3g} px, {worst.oob_fraction:.0%} of its "
            f"points outside the map. Fix: lower offset_lr in --hyp (now {offset_lr:g}), e.g. to "
            f"{offset_lr / 10:g}, and start anew"
        }
    if epoch + 1 >= STILL_EPOCHS and all(layer.magnitude < STILL for layer in layers):
        farthest = max(layer.magnitude for layer in layers)
        return {
            "still": f"epoch {epoch}: mean offsets of all {len(layers)} AKConv layers are below {STILL} px (at most "
            f"{farthest:.2g}), so they still sample their initial shape. Fix: unless that is meant, raise offset_lr "
            f"in --hyp (now {offset_lr:g}), and leave the layers out of --freeze"
        }
    return {}
