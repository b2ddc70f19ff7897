"""Inference on images: preprocessing, forward pass and NMS, as detect.py and the Python API share it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from utils.datasets.letterbox import letterbox
from utils.inference.network import Network
from utils.inference.nms import NmsSettings, non_max_suppression
from utils.structures import Detections, LetterboxTransform

Timings = dict[str, float]  # milliseconds per image of the phases "pre", "inference" and "nms"


@dataclass(frozen=True, kw_only=True)
class InferenceConfig:
    """Settings of inference."""

    size_hw: tuple[int, int]  # images are letterboxed into this size, multiples of the stride
    stride: int | None  # largest stride of the model, to which images are padded; None: they are padded to `size_hw`
    nms: NmsSettings


@dataclass(frozen=True, kw_only=True)
class PreprocessedImage:
    """An image letterboxed to the model's input size."""

    image: np.ndarray  # (h, w, 3) uint8 RGB, h and w multiples of the stride
    transform: LetterboxTransform  # maps pixels of the original to `image` and back
    milliseconds: float  # preprocessing time


def preprocess(image: np.ndarray, config: InferenceConfig) -> PreprocessedImage:
    """Letterbox an (H, W, 3) uint8 RGB image, with as little padding as the stride allows. Thread-safe."""
    start = time.perf_counter()
    letterboxed, transform = letterbox(image, config.size_hw, stride=config.stride)
    milliseconds = 1000 * (time.perf_counter() - start)
    return PreprocessedImage(image=letterboxed, transform=transform, milliseconds=milliseconds)


def predict(
    network: Network, images: Sequence[PreprocessedImage], config: InferenceConfig
) -> list[tuple[Detections, Timings]]:
    """Return each image's detections, in pixels of the original and independent of the other images, and its timings.

    Images of equal shape form a batch.
    """
    indices_by_shape: dict[tuple[int, ...], list[int]] = {}
    for index, image in enumerate(images):
        indices_by_shape.setdefault(image.image.shape, []).append(index)
    results: dict[int, tuple[Detections, Timings]] = {}
    for indices in indices_by_shape.values():
        start = time.perf_counter()
        group = [images[index] for index in indices]
        pixels = network.scale(np.stack([image.image for image in group]).transpose(0, 3, 1, 2))
        stacking = 1000 * (time.perf_counter() - start) / len(group)
        detections, timings = predict_batch(network, pixels, [image.transform for image in group], config)
        for index, image, of_image in zip(indices, group, detections, strict=True):
            results[index] = of_image, {"pre": image.milliseconds + stacking, **timings}
    return [results[index] for index in range(len(images))]


def predict_batch(
    network: Network,
    pixels: Any,  # noqa: ANN401 - of the engine's own type
    transforms: Sequence[LetterboxTransform],
    config: InferenceConfig,
) -> tuple[list[Detections], Timings]:
    """Detect objects in a batch (B, 3, H, W) of values in [0, 1], of the kind that the network takes.

    H and W are multiples of the stride. Returns the detections of each image in pixels of the original; mean timings
    without preprocessing.
    """
    start = time.perf_counter()
    predictions, _ = network(pixels)
    nms_start = time.perf_counter()
    results = [
        replace(detections, boxes=transform.to_original(detections.boxes))
        for detections, transform in zip(non_max_suppression(predictions, config.nms), transforms, strict=True)
    ]
    end = time.perf_counter()
    per_image = 1000 / max(len(transforms), 1)
    return results, {"inference": per_image * (nms_start - start), "nms": per_image * (end - nms_start)}
