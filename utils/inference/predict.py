"""Images -> network -> what is found: the part that detect.py and the Python call share."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from utils.datasets.letterbox import letterbox
from utils.inference.nms import NmsSettings, non_max_suppression
from utils.inference.tta import predict_tta
from utils.runtime import scale_pixels
from utils.structures import Detections, LetterboxTransform

Network = Callable[[Tensor], Any]  # (B, 3, H, W) in [0, 1] -> (B, n, 5 + classes) predictions, and what else there is
Timings = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class InferenceConfig:
    """How images are looked at.

    Attributes:
        size_hw: they are fitted into this, multiples of the stride.
        stride: pixels per cell of the model's coarsest level.
        nms: thresholds.
        device: where to compute.
        dtype: what the network takes.
        augment: look at three sizes, once mirrored.
        amp: mixed precision, where the device is no CPU.
    """

    size_hw: tuple[int, int]
    stride: int
    nms: NmsSettings
    device: torch.device
    dtype: torch.dtype = torch.float32
    augment: bool = False
    amp: bool = False


@dataclass(frozen=True, kw_only=True)
class PreprocessedImage:
    """An image as the network takes it.

    Attributes:
        image: (h, w, 3) uint8 RGB, h and w multiples of the stride.
        placement: where the original lies in it.
        milliseconds: what fitting took.
    """

    image: np.ndarray
    placement: LetterboxTransform
    milliseconds: float


def fit(image: np.ndarray, how: InferenceConfig) -> PreprocessedImage:
    """Fit an (H, W, 3) uint8 RGB image into the network's input, with as little padding as the stride allows."""
    start = time.perf_counter()
    fitted, placement = letterbox(image, how.size_hw, minimal=True, stride=how.stride)
    return PreprocessedImage(image=fitted, placement=placement, milliseconds=1000 * (time.perf_counter() - start))


def look(
    network: Network, images: Sequence[PreprocessedImage], how: InferenceConfig
) -> list[tuple[Detections, Timings]]:
    """Look at images, those of like shape together; what is found in one does not depend on the others.

    Args:
        network: a model in evaluation mode, on the device.
        images: of any shapes.
        how: see `InferenceConfig`.

    Returns:
        For each image what was found, in pixels of the original, and the milliseconds of each phase.
    """
    alike: dict[tuple[int, ...], list[int]] = {}
    for position, image in enumerate(images):
        alike.setdefault(image.image.shape, []).append(position)
    results: dict[int, tuple[Detections, Timings]] = {}
    for positions in alike.values():
        start = time.perf_counter()
        group = [images[position] for position in positions]
        stacked = torch.from_numpy(np.stack([image.image for image in group])).permute(0, 3, 1, 2)
        batch = scale_pixels(stacked, how.device, how.dtype)
        before = time.perf_counter()
        found, spent = find(network, batch, [image.placement for image in group], how)
        shared = 1000 * (before - start) / len(group)
        for position, image, detections in zip(positions, group, found, strict=True):
            results[position] = detections, {"pre": image.milliseconds + shared, **spent}
    return [results[position] for position in range(len(images))]


@torch.inference_mode()
def find(
    network: Network, batch: Tensor, placements: Sequence[LetterboxTransform], how: InferenceConfig
) -> tuple[list[Detections], Timings]:
    """Find objects in a batch.

    Args:
        network: a model in evaluation mode, on the device.
        batch: (B, 3, H, W) in [0, 1] on the device, H and W multiples of the stride.
        placements: where each original lies in its image.
        how: see `InferenceConfig`.

    Returns:
        What was found in each, in pixels of the originals, on the CPU; and the milliseconds of each phase, as a mean.
    """
    start = time.perf_counter()
    with torch.autocast(how.device.type, enabled=how.amp and how.device.type != "cpu"):
        if how.augment:
            predictions = predict_tta(network, batch, stride=how.stride)
        else:
            predictions = network(batch)[0]
    if how.device.type == "cuda":
        torch.cuda.synchronize(how.device)
    before = time.perf_counter()
    results = [
        Detections(
            boxes=torch.from_numpy(where.to_original(found.boxes.cpu().numpy())),
            scores=found.scores.cpu(),
            classes=found.classes.cpu(),
        )
        for found, where in zip(non_max_suppression(predictions, how.nms), placements, strict=True)
    ]
    end = time.perf_counter()
    share = 1000 / max(len(batch), 1)
    return results, {"inference": share * (before - start), "nms": share * (end - before)}
