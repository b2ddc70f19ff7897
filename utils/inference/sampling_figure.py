"""Sampling points of one AKConv layer on one image, as a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from models.modules.akconv import AKConv
from utils.inference.offset_statistics import layer_offsets
from utils.inference.predict import PreprocessedImage
from utils.inference.sampling_points import (
    LayerSampling,
    Location,
    map_to_image,
    record_sampling,
    sampled_positions,
)
from utils.plots.sampling import plot_sampling
from utils.plots.translations import translate
from utils.runtime import scale_pixels


@torch.inference_mode()
def sample_image(
    network: nn.Module, layers: Mapping[str, AKConv], image: PreprocessedImage
) -> dict[str, LayerSampling]:
    """Run a network on one image and return where its AKConv layers sample."""
    weight = next(network.parameters())
    pixels = torch.from_numpy(np.ascontiguousarray(image.image)).permute(2, 0, 1)[None]
    with record_sampling(layers) as samplings:
        network(scale_pixels(pixels, weight.device, weight.dtype))
    return samplings


def plot_layer(
    layer: LayerSampling,
    image: np.ndarray,
    preprocessed: PreprocessedImage,
    locations: Sequence[Location],
    path: Path,
    *,
    lang: str = "en",
) -> Path:
    """Plot where one layer, in a forward pass on this image alone, samples at locations of the (H, W, 3) original."""
    input_hw = (preprocessed.image.shape[0], preprocessed.image.shape[1])
    height, width = layer.size_hw
    cell_h, cell_w = layer.cell_size(input_hw)
    transform = preprocessed.transform
    corners = np.array(((-0.5, -0.5), (height - 0.5, width - 0.5)))
    (x1, y1), (x2, y2) = map_to_image(corners, cell_hw=(cell_h, cell_w), transform=transform).tolist()
    ratio_w, ratio_h = transform.ratio_wh
    offsets = layer_offsets(layer)
    sizes = (layer.name, len(layer.points), layer.stride, height, width)
    shape = translate("{}: {} points, stride {}, on a map of {} x {}", lang, *map(str, sizes))
    measured = f"{offsets.abs_mean:.3g}", f"{offsets.oob_fraction:.1%}", f"{offsets.initial_oob_fraction:.1%}"
    moved = translate("mean |offset| {} px of the map, {} of its points outside ({} before learning)", lang, *measured)
    return plot_sampling(
        image,
        sampled_positions(layer, locations, input_hw=input_hw, transform=transform),
        title=f"{shape}; {moved}",
        cell_wh=(cell_w / ratio_w, cell_h / ratio_h),
        map_xyxy=(x1, y1, x2, y2),
        path=path,
        lang=lang,
    )
