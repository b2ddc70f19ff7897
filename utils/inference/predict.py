"""Inference on images: preprocessing, forward pass and NMS, as detect.py and the Python API share it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from utils.datasets.letterbox import letterbox
from utils.inference.detector import Forward
from utils.inference.nms import NmsSettings, non_max_suppression
from utils.runtime import scale_pixels
from utils.structures import Detections, LetterboxTransform

Timings = dict[str, float]  # milliseconds per image of the phases "pre", "inference" and "nms"


@dataclass(frozen=True, kw_only=True)
class InferenceConfig:
    """Settings of inference."""

    size_hw: tuple[int, int]  # images are letterboxed into this size, multiples of the stride
    stride: int  # largest stride of the model
    nms: NmsSettings
    device: torch.device  # where the model is
    dtype: torch.dtype = torch.float32  # of the model's input
    amp: bool = False  # mixed precision, ignored on the CPU


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
    forward: Forward, images: Sequence[PreprocessedImage], config: InferenceConfig
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
        stacked = torch.from_numpy(np.stack([image.image for image in group])).permute(0, 3, 1, 2)
        batch = scale_pixels(stacked, config.device, config.dtype)
        stacking = 1000 * (time.perf_counter() - start) / len(group)
        detections, timings = predict_batch(forward, batch, [image.transform for image in group], config)
        for index, image, of_image in zip(indices, group, detections, strict=True):
            results[index] = of_image, {"pre": image.milliseconds + stacking, **timings}
    return [results[index] for index in range(len(images))]


@torch.inference_mode()
def predict_batch(
    forward: Forward, batch: Tensor, transforms: Sequence[LetterboxTransform], config: InferenceConfig
) -> tuple[list[Detections], Timings]:
    """Detect objects in a batch (B, 3, H, W) of values in [0, 1] on the device, H and W multiples of the stride.

    Returns the detections of each image on the CPU, in pixels of the original; mean timings without preprocessing.
    """
    start = time.perf_counter()
    with torch.autocast(config.device.type, enabled=config.amp and config.device.type != "cpu"):
        predictions = forward(batch)[0]
    if config.device.type == "cuda":
        torch.cuda.synchronize(config.device)
    nms_start = time.perf_counter()
    results = [
        Detections(
            boxes=torch.from_numpy(transform.to_original(detections.boxes.cpu().numpy())),
            scores=detections.scores.cpu(),
            classes=detections.classes.cpu(),
        )
        for detections, transform in zip(non_max_suppression(predictions, config.nms), transforms, strict=True)
    ]
    end = time.perf_counter()
    per_image = 1000 / max(len(batch), 1)
    return results, {"inference": per_image * (nms_start - start), "nms": per_image * (end - nms_start)}
