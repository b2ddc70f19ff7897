"""Plots of `--visualize`: the sampling points of selected AKConv layers, and histograms of the offsets of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from utils.inference.annotations import box_labels
from utils.inference.offset_statistics import LayerOffsets, layer_offsets, mean_offsets
from utils.inference.predict import PreprocessedImage
from utils.inference.sampling_figure import plot_layer, sample_image
from utils.inference.sampling_points import (
    LayerSampling,
    Location,
    akconv_layers,
    box_centers,
    first_layer_per_level,
    locations_inside,
    select_layers,
)
from utils.log import LOGGER
from utils.output_names import OutputNames
from utils.plots.sampling import OffsetSamples, plot_offsets
from utils.structures import Detections

FOLDER = "sampling"
MAX_IMAGES = 8
MAX_OFFSETS = 50_000  # of each image, layer and axis in a histogram
NO_LAYERS = "--visualize: the model has no AKConv layers to inspect; nothing is drawn"


@dataclass(kw_only=True)
class OffsetCollection:
    """Collects the offsets of several images for histograms, at most `MAX_OFFSETS` of each image, layer and axis."""

    rows: dict[str, list[np.ndarray]] = field(default_factory=dict)
    columns: dict[str, list[np.ndarray]] = field(default_factory=dict)
    statistics: dict[str, list[LayerOffsets]] = field(default_factory=dict)

    def add(self, samplings: Mapping[str, LayerSampling]) -> None:
        """Add the layers of one image."""
        for name, layer in samplings.items():
            for values, offset in zip((self.rows, self.columns), layer.offset.chunk(2, 1), strict=True):
                values.setdefault(name, []).append(_subsample(offset))
            self.statistics.setdefault(name, []).append(layer_offsets(layer))

    def samples(self) -> list[OffsetSamples]:
        """Return the offsets and mean statistics of each layer."""
        means = {name: mean_offsets(of_layer) for name, of_layer in self.statistics.items()}
        return [
            OffsetSamples(
                name=name,
                rows=np.concatenate(self.rows[name]),
                columns=np.concatenate(self.columns[name]),
                abs_mean=means[name].abs_mean,
                oob_fraction=means[name].oob_fraction,
                initial_oob_fraction=means[name].initial_oob_fraction,
            )
            for name in self.rows
        ]


def _subsample(offset: Tensor) -> np.ndarray:
    """Return offsets as a flat array: all, or a random sample that is always the same."""
    values = offset.flatten().cpu().numpy()
    if len(values) <= MAX_OFFSETS:
        return values
    return np.random.default_rng(0).choice(values, MAX_OFFSETS, replace=False)


class SamplingPlots:
    """Writes `sampling/<image>_<layer>.png` for the first images of a run, and `sampling/offsets.png` at its end."""

    def __init__(
        self,
        network: nn.Module,
        *,
        layers: Sequence[str],
        locations_xy: Sequence[tuple[float, float]],
        max_images: int,
    ) -> None:
        """Find the layers; an exported model has none to inspect.

        Args:
            network: the detector.
            layers: to plot, as `select_layers` takes them; if empty, the first of each level.
            locations_xy: to plot, x and y in pixels of each image; if empty, the centers of detections.
            max_images: 0 plots nothing.
        """
        self._network, self._remaining = network, max_images
        self._locations_xy = locations_xy
        self._layers = akconv_layers(network)
        self._stems: set[str] = set()
        self._names = OutputNames()
        self._offsets = OffsetCollection()
        self._folder: Path | None = None
        if max_images and not self._layers:
            LOGGER.info(NO_LAYERS)
            self._remaining = 0
        self._selected = select_layers(self._layers, layers) if self._remaining else []

    def __enter__(self) -> SamplingPlots:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Plot the histograms, also if the run fails."""
        if self._folder is None or not self._offsets.rows:
            return
        images = f"{len(self._stems)} image{'s' * (len(self._stems) > 1)}"
        note = f"Offsets of all AKConv layers, {images}"
        LOGGER.info(f"Drawing offsets of {len(self._offsets.rows)} layers")
        plot_offsets(self._offsets.samples(), self._folder / "offsets.png", note=note)
        limit = "" if self._remaining else " (the maximum)"
        LOGGER.info(f"Sampling points of {images}{limit}: {self._folder}")

    def add(
        self,
        image: np.ndarray,
        preprocessed: PreprocessedImage,
        detections: Detections,
        names: tuple[str, ...],
        path: Path,
    ) -> None:
        """Plot an (H, W, 3) image, unless the maximum is reached or one of its name, as a video's first frame, is done.

        Given locations outside the image are warned about; if all are outside, only the offsets are collected. `path`
        is `<run folder>/<name of the image>`.
        """
        if not self._remaining or path.name in self._stems:
            return
        self._remaining -= 1
        self._stems.add(path.name)
        self._folder = path.parent / FOLDER
        samplings = sample_image(self._network, self._layers, preprocessed)
        self._offsets.add(samplings)
        size_hw = (image.shape[0], image.shape[1])
        if self._locations_xy:
            locations = self._given_locations(size_hw, path.name)
        else:
            locations = box_centers(detections.boxes, box_labels(detections, names), size_hw)
        stem = self._names.claim(path.name, suffix=f"_{max(samplings, key=len, default='')}.png")
        selected = self._selected or first_layer_per_level(samplings, height=preprocessed.image.shape[0])
        LOGGER.info(f"{path.name}: drawing sampling points of {len(selected)} layers")
        for name in selected:
            if locations and name in samplings:  # a custom module may skip one of its layers
                plot_layer(samplings[name], image, preprocessed, locations, self._folder / f"{stem}_{name}.png")

    def _given_locations(self, size_hw: tuple[int, int], name: str) -> list[Location]:
        """Return the given locations inside an image of this size; warn about those outside."""
        locations = locations_inside(self._locations_xy, size_hw)
        inside = {location.xy for location in locations}
        outside = [f"{x:g},{y:g}" for x, y in self._locations_xy if (x, y) not in inside]
        if outside:
            size = f"{size_hw[1]}x{size_hw[0]} pixels"
            LOGGER.warning(f"{name}: --visualize-at {' '.join(outside)} skipped: outside the image of {size}")
        return locations
