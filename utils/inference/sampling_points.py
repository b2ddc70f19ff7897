"""Where AKConv layers sample during a forward pass, in pixels of their maps and of the image.

Letters: B batch, (H, W) size of a layer's input map, (h, w) of its output, N points. A pixel of a map covers one cell:
pixel (row, column) has its center at (row + 0.5, column + 0.5) cells in the image, as the head decodes it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from models.modules.akconv import AKConv
from models.sampling.sampling_grid import SamplingGrid
from utils.errors import ConfigError, did_you_mean
from utils.plots.sampling import SampledPosition
from utils.structures import LetterboxTransform

MAX_LAYERS = 4  # by default one per level from P2 to P5
MAX_LOCATIONS = 6
GRID = 3  # rows and columns of locations in images without detections


@dataclass(frozen=True, kw_only=True)
class LayerSampling:
    """Where one AKConv layer sampled its input map in one forward pass."""

    name: str  # of the layer, as "model.5" or "model.17.m.0.cv2"
    offset: Tensor  # (B, 2N, h, w) in pixels of the map, N row offsets before N column offsets; float32
    points: Tensor  # (N, 2) initial points (row, column)
    stride: int  # distance of neighbouring output pixels on the map
    size_hw: tuple[int, int]  # height and width of the map

    def learned(self) -> Tensor:
        """Return the positions that each output pixel samples, (B, h, w, N, 2) row and column."""
        return torch.stack(SamplingGrid(self.points, self.stride).positions(self.offset), -1)

    def initial(self) -> Tensor:
        """Return the positions without offsets, (1, h, w, N, 2) row and column."""
        zero = torch.zeros_like(self.offset[:1])
        return torch.stack(SamplingGrid(self.points, self.stride).positions(zero), -1)

    def outside(self, positions: Tensor, *, margin: float = 0.5) -> Tensor:
        """Return which positions (..., 2), row and column in pixels of the map, lie outside it; NaN does.

        Up to `margin` pixels beyond the centers of the border pixels count as inside; 0.5 makes whole cells.
        """
        upper = positions.new_tensor(self.size_hw) - 1 + margin
        return ~((positions >= -margin) & (positions <= upper)).all(-1)

    def cell_size(self, input_hw: tuple[int, int]) -> tuple[float, float]:
        """Return height and width of a pixel of the map in pixels of the network's input."""
        return input_hw[0] / self.size_hw[0], input_hw[1] / self.size_hw[1]


@dataclass(frozen=True, kw_only=True)
class Location:
    """A location in an image whose sampling is shown: x and y in pixels of the image, and a label."""

    xy: tuple[float, float]
    label: str


def akconv_layers(network: nn.Module) -> dict[str, AKConv]:
    """Return the AKConv layers of a network by name, in order; none for an exported model."""
    return {name: module for name, module in network.named_modules() if isinstance(module, AKConv)}


@contextlib.contextmanager
def record_sampling(layers: Mapping[str, AKConv]) -> Iterator[dict[str, LayerSampling]]:
    """Record where layers sample: the yielded mapping holds each layer's last forward pass in this context.

    Hooks on the offset convolutions make AKConv use an implementation that calls them.
    """
    samplings: dict[str, LayerSampling] = {}

    def make_hook(name: str, layer: AKConv) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            height, width = inputs[0].shape[2:]
            offset, size_hw = output.detach()[:, : 2 * layer.num_param].float(), (height, width)
            samplings[name] = LayerSampling(
                name=name, offset=offset, points=layer.points, stride=layer.stride, size_hw=size_hw
            )

        return hook

    with contextlib.ExitStack() as hooks:
        for name, layer in layers.items():
            hooks.callback(layer.p_conv.register_forward_hook(make_hook(name, layer)).remove)
        yield samplings


def select_layers(layers: Mapping[str, AKConv], selectors: Sequence[str]) -> list[str]:
    """Return the layers that selectors name: a row's index, a layer's name, or that of a module that contains layers.

    A selector that matches no AKConv layer raises a ConfigError.
    """
    selected: dict[str, None] = {}
    for selector in selectors:
        stem = f"model.{selector}" if selector.isdigit() else selector
        matches = [name for name in layers if name == stem or name.startswith(f"{stem}.")]
        if not matches:
            fix = did_you_mean(stem, list(layers)) or f"choose from {', '.join(layers)}"
            raise ConfigError("--visualize-layers", f"{selector!r} is not an AKConv layer", fix=fix)
        selected.update(dict.fromkeys(matches))
    return list(selected)


def first_layer_per_level(
    samplings: Mapping[str, LayerSampling], *, height: int, max_layers: int = MAX_LAYERS
) -> list[str]:
    """Return the first layer of each level, which is the stride of its output for a network's input of this height."""
    first: dict[int, str] = {}
    for name, layer in samplings.items():
        first.setdefault(round(height / layer.offset.shape[2]), name)
    return list(first.values())[:max_layers]


def map_to_image(positions: np.ndarray, *, cell_hw: tuple[float, float], transform: LetterboxTransform) -> np.ndarray:
    """Convert positions (..., 2), row and column in pixels of the map, to x and y in pixels of the image.

    Integers are centers of the map's pixels, each of `cell_hw` pixels of the network's input, but (0, 0) is the corner
    of the image. The result is not clipped.
    """
    input_xy = (positions[..., ::-1].astype(np.float64) + 0.5) * np.array(cell_hw[::-1])
    return (input_xy - np.array(transform.pad_wh)) / np.array(transform.ratio_wh)


def nearest_output_pixel(
    xy: tuple[float, float], output_hw: tuple[int, int], *, input_hw: tuple[int, int], transform: LetterboxTransform
) -> tuple[int, int]:
    """Return row and column of the output pixel whose cell covers (x, y) in pixels of the image, or the nearest one."""
    pixel = []
    for axis in (1, 0):  # y gives the row, x the column
        in_input = xy[axis] * transform.ratio_wh[axis] + transform.pad_wh[axis]
        count = output_hw[1 - axis]
        pixel.append(min(max(int(in_input * count // input_hw[1 - axis]), 0), count - 1))
    return pixel[0], pixel[1]


def box_centers(boxes_xyxy: np.ndarray, labels: Sequence[str], size_hw: tuple[int, int]) -> list[Location]:
    """Return the centers of the first of (n, 4) boxes in pixels, or a grid over the image if there are none."""
    if len(boxes_xyxy):
        best = list(zip(boxes_xyxy.tolist(), labels, strict=True))[:MAX_LOCATIONS]
        return [Location(xy=((x1 + x2) / 2, (y1 + y2) / 2), label=label) for (x1, y1, x2, y2), label in best]
    height, width = size_hw
    fractions = [(2 * step + 1) / (2 * GRID) for step in range(GRID)]
    return [Location(xy=(x * width, y * height), label="") for y in fractions for x in fractions]


def locations_inside(locations_xy: Sequence[tuple[float, float]], size_hw: tuple[int, int]) -> list[Location]:
    """Return the locations (x, y) inside an image of this height and width, labelled with their coordinates."""
    height, width = size_hw
    return [Location(xy=(x, y), label=f"{x:g},{y:g}") for x, y in locations_xy if 0 <= x < width and 0 <= y < height]


def sampled_positions(
    layer: LayerSampling, locations: Sequence[Location], *, input_hw: tuple[int, int], transform: LetterboxTransform
) -> list[SampledPosition]:
    """Return what the output pixels at some locations of a batch's first image sample: each pixel once, all labels."""
    output_hw = (layer.offset.shape[2], layer.offset.shape[3])
    labels: dict[tuple[int, int], list[str]] = {}
    for location in locations:
        pixel = nearest_output_pixel(location.xy, output_hw, input_hw=input_hw, transform=transform)
        labels.setdefault(pixel, []).append(location.label)
    cell_hw = layer.cell_size(input_hw)
    initial, learned = (positions[0].cpu().numpy() for positions in (layer.initial(), layer.learned()))
    return [
        SampledPosition(
            label="\n".join(of_pixel),
            initial_xy=map_to_image(initial[pixel], cell_hw=cell_hw, transform=transform),
            learned_xy=map_to_image(learned[pixel], cell_hw=cell_hw, transform=transform),
        )
        for pixel, of_pixel in labels.items()
    ]
