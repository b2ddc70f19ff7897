"""Where AKConv layers sample: what one forward pass tells, which layers to show, and where a point lies in the image.

Letters: B batch, (H, W) size of a layer's input map, (h, w) of its output, N points. A pixel of a map is the cell that
it covers: pixel (row, column) stands for the image at (row + 0.5, column + 0.5) cells, as the head decodes it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from models.modules.akconv import AKConv
from models.sampling.sampling_grid import sampling_positions
from utils.errors import ConfigError, did_you_mean
from utils.plots.sampling import SampledPosition
from utils.structures import LetterboxTransform

MOST_LAYERS = 4  # shown unless others are asked for: one of each level from P2 to P5
MAX_POSITIONS = 6
GRID = 3  # rows and columns of positions where nothing was found


@dataclass(frozen=True, kw_only=True)
class LayerSampling:
    """Where one AKConv layer sampled its map in one forward pass.

    Attributes:
        name: of the layer in its network, as "model.5" or "model.17.m.0.cv2".
        offset: (B, 2N, h, w) in pixels of the map, N row offsets before N column offsets; float32, on its device.
        points: (N, 2) initial points (row, column).
        stride: distance of output pixels on the map.
        size_hw: height and width of the map.
    """

    name: str
    offset: Tensor
    points: Tensor
    stride: int
    size_hw: tuple[int, int]

    def learned(self) -> Tensor:
        """Return where each output pixel samples, (B, h, w, N, 2) row and column."""
        return torch.stack(sampling_positions(self.offset, self.points, stride=self.stride), -1)

    def initial(self) -> Tensor:
        """Return where it would without offsets, (1, h, w, N, 2) row and column."""
        nothing = torch.zeros_like(self.offset[:1])
        return torch.stack(sampling_positions(nothing, self.points, stride=self.stride), -1)

    def outside(self, positions: Tensor, *, margin: float = 0.5) -> Tensor:
        """Tell which positions (..., 2) lie outside the map; what is no number does.

        Args:
            positions: row and column in pixels of the map.
            margin: pixels beyond the centres of its border pixels that count as inside: half a one makes whole cells.
        """
        far = positions.new_tensor(self.size_hw) - 1 + margin
        return ~((positions >= -margin) & (positions <= far)).all(-1)


@dataclass(frozen=True, kw_only=True)
class Spot:
    """A place of the image whose sampling is shown: x and y in pixels of the image, and what to call it."""

    xy: tuple[float, float]
    label: str


def akconv_layers(network: object) -> dict[str, AKConv]:
    """Return the AKConv layers of a network by name, in order; none of an exported one, whose inside is not known."""
    if not isinstance(network, nn.Module):
        return {}
    return {name: module for name, module in network.named_modules() if isinstance(module, AKConv)}


@contextlib.contextmanager
def recorded(layers: Mapping[str, AKConv]) -> Iterator[dict[str, LayerSampling]]:
    """Note, while open, where layers sample: the mapping yielded holds each one's last forward pass.

    It watches the convolutions that make the offsets, which keeps implementations that never call them from running.
    """
    found: dict[str, LayerSampling] = {}

    def watch(name: str, layer: AKConv) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def note(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            height, width = inputs[0].shape[2:]
            found[name] = LayerSampling(
                name=name,
                offset=output.detach().float(),
                points=layer.points,
                stride=layer.stride,
                size_hw=(height, width),
            )

        return note

    with contextlib.ExitStack() as hooks:
        for name, layer in layers.items():
            hooks.callback(layer.p_conv.register_forward_hook(watch(name, layer)).remove)
        yield found


def named_layers(layers: Mapping[str, AKConv], wanted: Sequence[str]) -> list[str]:
    """Return the names of the layers that words name: a row's number, its name, or the name of a layer within.

    Raises:
        ConfigError: a word names no AKConv layer.
    """
    chosen: dict[str, None] = {}
    for word in wanted:
        stem = f"model.{word}" if word.isdigit() else word
        own = [name for name in layers if name == stem or name.startswith(f"{stem}.")]
        if not own:
            near = did_you_mean(stem, list(layers)) or f"there are {', '.join(layers)}"
            raise ConfigError("--visualize-layers", f"{word!r} is no AKConv layer", fix=near)
        chosen.update(dict.fromkeys(own))
    return list(chosen)


def first_of_each_level(samplings: Mapping[str, LayerSampling], *, height: int, most: int = MOST_LAYERS) -> list[str]:
    """Return the first layer of each level, which is the stride of what it makes in pixels of the network's input.

    Args:
        samplings: what `recorded` gave, in order.
        height: of the network's input in pixels.
        most: layers at most.
    """
    firsts: dict[int, str] = {}
    for name, layer in samplings.items():
        firsts.setdefault(round(height / layer.offset.shape[2]), name)
    return list(firsts.values())[:most]


def map_to_image(positions: np.ndarray, *, cell_hw: tuple[float, float], placement: LetterboxTransform) -> np.ndarray:
    """Bring positions on a map to the image.

    Args:
        positions: (..., 2) row and column in pixels of the map, whole numbers being centres.
        cell_hw: height and width of a map's pixel in pixels of the network's input.
        placement: where the image lies in that input.

    Returns:
        (..., 2) x and y in pixels of the image, (0, 0) being its upper left corner; not cut at its borders.
    """
    input_xy = (positions[..., ::-1].astype(np.float64) + 0.5) * np.array(cell_hw[::-1])
    return (input_xy - np.array(placement.pad_wh)) / np.array(placement.ratio_wh)


def output_pixel(
    xy: tuple[float, float], size_hw: tuple[int, int], *, input_hw: tuple[int, int], placement: LetterboxTransform
) -> tuple[int, int]:
    """Return the output pixel (row, column) whose cell covers a place of the image, or the nearest one.

    Args:
        xy: in pixels of the image.
        size_hw: of the layer's output.
        input_hw: of the network's input.
        placement: where the image lies in that input.
    """
    found = []
    for axis in (1, 0):  # y gives the row, x the column
        inside = xy[axis] * placement.ratio_wh[axis] + placement.pad_wh[axis]
        count = size_hw[1 - axis]
        found.append(min(max(int(inside * count // input_hw[1 - axis]), 0), count - 1))
    return found[0], found[1]


def spots_of(boxes_xyxy: np.ndarray, labels: Sequence[str], size_hw: tuple[int, int]) -> list[Spot]:
    """Return the centres of the first boxes, or a grid over the image if there are none.

    Args:
        boxes_xyxy: (n, 4) in pixels of the image, best first.
        labels: what to call them.
        size_hw: height and width of the image.
    """
    if len(boxes_xyxy):
        best = list(zip(boxes_xyxy.tolist(), labels, strict=True))[:MAX_POSITIONS]
        return [Spot(xy=((x1 + x2) / 2, (y1 + y2) / 2), label=label) for (x1, y1, x2, y2), label in best]
    height, width = size_hw
    shares = [(2 * number + 1) / (2 * GRID) for number in range(GRID)]
    return [Spot(xy=(x * width, y * height), label="") for y in shares for x in shares]


def spots_inside(chosen_xy: Sequence[tuple[float, float]], size_hw: tuple[int, int]) -> list[Spot]:
    """Return those of some chosen places that lie in an image, each called by its numbers.

    Args:
        chosen_xy: x and y of each in pixels of the image.
        size_hw: height and width of the image.
    """
    height, width = size_hw
    return [Spot(xy=(x, y), label=f"{x:g},{y:g}") for x, y in chosen_xy if 0 <= x < width and 0 <= y < height]


def positions_at(
    layer: LayerSampling, spots: Sequence[Spot], *, input_hw: tuple[int, int], placement: LetterboxTransform
) -> list[SampledPosition]:
    """Return the sampling of the output pixels that cover some spots, each pixel once, under all its labels.

    Args:
        layer: of the first image of its batch.
        spots: places of that image.
        input_hw: of the network's input.
        placement: where the image lies in that input.
    """
    output_hw = (layer.offset.shape[2], layer.offset.shape[3])
    labels: dict[tuple[int, int], list[str]] = {}
    for spot in spots:
        pixel = output_pixel(spot.xy, output_hw, input_hw=input_hw, placement=placement)
        labels.setdefault(pixel, []).append(spot.label)
    cell_hw = cell_size(layer, input_hw)
    initial, learned = (every[0].cpu().numpy() for every in (layer.initial(), layer.learned()))
    return [
        SampledPosition(
            label="\n".join(own),
            initial_xy=map_to_image(initial[pixel], cell_hw=cell_hw, placement=placement),
            learned_xy=map_to_image(learned[pixel], cell_hw=cell_hw, placement=placement),
        )
        for pixel, own in labels.items()
    ]


def cell_size(layer: LayerSampling, input_hw: tuple[int, int]) -> tuple[float, float]:
    """Return height and width of a pixel of a layer's map in pixels of the network's input."""
    return input_hw[0] / layer.size_hw[0], input_hw[1] / layer.size_hw[1]
