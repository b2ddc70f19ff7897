"""The images of `--visualize`: where chosen AKConv layers sample, and how offsets are spread in all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from models.modules.akconv import AKConv
from utils.inference.crops import detection_labels
from utils.inference.offset_statistics import LayerOffsets, layer_offsets, mean_offsets
from utils.inference.predict import InferenceConfig, PreprocessedImage
from utils.inference.sampling_points import (
    LayerSampling,
    Spot,
    akconv_layers,
    cell_size,
    first_of_each_level,
    map_to_image,
    named_layers,
    positions_at,
    recorded,
    spots_inside,
    spots_of,
)
from utils.log import LOGGER
from utils.plots.sampling import OffsetSpread, plot_offsets, plot_sampling
from utils.runtime import scale_pixels
from utils.structures import Detections

FOLDER = "sampling"
MAX_IMAGES = 8
MOST_OFFSETS = 50_000  # of each image, layer and axis that a histogram is drawn from
NOTHING = "--visualize: the model has no AKConv layer that can be looked into, so there is nothing to draw"


@torch.inference_mode()
def sample_image(
    network: nn.Module, layers: Mapping[str, AKConv], fitted: PreprocessedImage, how: InferenceConfig
) -> dict[str, LayerSampling]:
    """Send one image through a network on its device, and return where its AKConv layers sample."""
    image = torch.from_numpy(np.ascontiguousarray(fitted.image)).permute(2, 0, 1)[None]
    with recorded(layers) as found:
        network(scale_pixels(image, how.device, how.dtype))
    return found


def draw_layer(
    layer: LayerSampling, image: np.ndarray, fitted: PreprocessedImage, spots: Sequence[Spot], path: Path
) -> Path:
    """Draw where one layer samples around some spots of an (H, W, 3) uint8 RGB image.

    Args:
        layer: of a pass over this image alone.
        image: the image as it is.
        fitted: what the network was given.
        spots: places of the image.
        path: where to write.
    """
    input_hw = (fitted.image.shape[0], fitted.image.shape[1])
    height, width = layer.size_hw
    cell_h, cell_w = cell_size(layer, input_hw)
    corners = map_to_image(
        np.array(((-0.5, -0.5), (height - 0.5, width - 0.5))), cell_hw=(cell_h, cell_w), placement=fitted.placement
    )
    ratio_w, ratio_h = fitted.placement.ratio_wh
    measured = layer_offsets(layer)
    title = (
        f"{layer.name}: {len(layer.points)} points, stride {layer.stride}, on a map of {height} x {width}; "
        f"mean |offset| {measured.magnitude:.3g} px of the map, {measured.oob_fraction:.1%} of its points outside "
        f"({measured.initial_oob_fraction:.1%} before learning)"
    )
    return plot_sampling(
        image,
        positions_at(layer, spots, input_hw=input_hw, placement=fitted.placement),
        title=title,
        cell_wh=(cell_w / ratio_w, cell_h / ratio_h),
        map_xyxy=(float(corners[0, 0]), float(corners[0, 1]), float(corners[1, 0]), float(corners[1, 1])),
        path=path,
    )


@dataclass(kw_only=True)
class OffsetCollection:
    """Gathers the offsets of several images, as many of each as a histogram needs."""

    rows: dict[str, list[np.ndarray]] = field(default_factory=dict)
    columns: dict[str, list[np.ndarray]] = field(default_factory=dict)
    measured: dict[str, list[LayerOffsets]] = field(default_factory=dict)

    def add(self, samplings: Mapping[str, LayerSampling]) -> None:
        """Add one image."""
        for name, layer in samplings.items():
            for kept, offset in zip((self.rows, self.columns), layer.offset.chunk(2, 1), strict=True):
                kept.setdefault(name, []).append(_thinned(offset))
            self.measured.setdefault(name, []).append(layer_offsets(layer))

    def spreads(self) -> list[OffsetSpread]:
        """Return what was gathered of each layer."""
        means = {name: mean_offsets(own) for name, own in self.measured.items()}
        return [
            OffsetSpread(
                name=name,
                rows=np.concatenate(self.rows[name]),
                columns=np.concatenate(self.columns[name]),
                mean=means[name].magnitude,
                outside=means[name].oob_fraction,
                began_outside=means[name].initial_oob_fraction,
            )
            for name in self.rows
        ]


def _thinned(offset: Tensor) -> np.ndarray:
    """Return offsets as one flat array, drawn at random, the same each time, where there are too many."""
    values = offset.flatten().cpu().numpy()
    if len(values) <= MOST_OFFSETS:
        return values
    return np.random.default_rng(0).choice(values, MOST_OFFSETS, replace=False)


class SamplingImages:
    """Draws `sampling/<image>_<layer>.png` for the first images of a run, and `sampling/offsets.png` at its end."""

    def __init__(
        self,
        network: object,
        how: InferenceConfig,
        *,
        wanted: Sequence[str] = (),
        chosen_xy: Sequence[tuple[float, float]] = (),
        most: int = MAX_IMAGES,
    ) -> None:
        """Find the layers.

        Args:
            network: as it looks at images.
            how: it does so.
            wanted: layers to draw, as `named_layers` takes them; by default the first of each level.
            chosen_xy: places to draw, x and y in pixels of each image; by default where something was found.
            most: images to draw; 0 for none.

        Raises:
            ConfigError: a word of `wanted` names no AKConv layer.
        """
        self._network, self._how, self._left = network, how, most
        self._chosen_xy = chosen_xy
        self._layers = akconv_layers(network)
        self._stems: set[str] = set()
        self._offsets = OffsetCollection()
        self._folder: Path | None = None
        if most and not self._layers:
            LOGGER.info(NOTHING)
            self._left = 0
        self._wanted = named_layers(self._layers, wanted) if self._left else []

    def __enter__(self) -> SamplingImages:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Draw the histograms of what was seen, however the run ends."""
        if self._folder is None or not self._offsets.rows:
            return
        count = len(self._stems)
        note = f"Offsets of all AKConv layers, {count} image{'s' * (count > 1)}"
        plot_offsets(self._offsets.spreads(), self._folder / "offsets.png", note=note)
        most = f", the first {count}" if not self._left else ""
        LOGGER.info(f"Sampling points of {count} image{'s' * (count > 1)}{most}: {self._folder}")

    def add(
        self, image: np.ndarray, fitted: PreprocessedImage, found: Detections, names: tuple[str, ...], path: Path
    ) -> None:
        """Draw an image, unless there are enough, or one of this name was drawn: of a video the first frame is shown.

        Chosen places that lie outside this image are warned of; without any inside, only its offsets are counted.

        Args:
            image: (H, W, 3) uint8 RGB.
            fitted: what the network was given of it.
            found: in it, in its pixels.
            names: of the classes.
            path: `<run folder>/<name of the image>`.
        """
        if not self._left or path.name in self._stems or not isinstance(self._network, nn.Module):
            return
        self._left -= 1
        self._stems.add(path.name)
        self._folder = path.parent / FOLDER
        samplings = sample_image(self._network, self._layers, fitted, self._how)
        self._offsets.add(samplings)
        if self._chosen_xy:
            spots = self._chosen_spots(image, path.name)
        else:
            spots = spots_of(found.boxes.numpy(), detection_labels(found, names), (image.shape[0], image.shape[1]))
        if not spots:
            return
        for name in self._wanted or first_of_each_level(samplings, height=fitted.image.shape[0]):
            if name in samplings:  # a module of the user's own may leave its layer out
                draw_layer(samplings[name], image, fitted, spots, self._folder / f"{path.name}_{name}.png")

    def _chosen_spots(self, image: np.ndarray, name: str) -> list[Spot]:
        """Return the chosen places inside an (H, W, 3) image; warn, by its name, of those outside."""
        height, width = image.shape[:2]
        spots = spots_inside(self._chosen_xy, (height, width))
        inside = {spot.xy for spot in spots}
        outside = [f"{x:g},{y:g}" for x, y in self._chosen_xy if (x, y) not in inside]
        if outside:
            told = f"{name}: --visualize-at {' '.join(outside)} outside the image of {width} x {height} pixels"
            LOGGER.warning(f"{told}, not drawn")
        return spots
