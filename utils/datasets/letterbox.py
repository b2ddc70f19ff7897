"""Letterboxing: scale an image into a rectangle without distortion, and pad the rest with grey."""

from __future__ import annotations

import math

import cv2
import numpy as np

from utils.log import LOGGER
from utils.structures import LetterboxTransform

PAD_VALUE = 114


def round_image_size(size: int, stride: int) -> int:
    """Return `size` rounded up to a multiple of the stride, with a warning if they differ."""
    rounded = math.ceil(size / stride) * stride
    if rounded != size:
        LOGGER.warning(f"--imgsz {size} is not a multiple of the stride {stride}; using {rounded}")
    return rounded


def scaled_size(size_hw: tuple[int, int], target_hw: tuple[int, int], *, scale_up: bool = True) -> tuple[int, int]:
    """Return height and width when scaled to fit into `target_hw`; without `scale_up` small images keep their size."""
    height, width = size_hw
    ratio = min(target_hw[0] / height, target_hw[1] / width)
    if not scale_up:
        ratio = min(ratio, 1.0)
    return max(round(height * ratio), 1), max(round(width * ratio), 1)


def letterbox(
    image: np.ndarray,
    target_hw: tuple[int, int],
    *,
    stride: int | None = None,
    scale_up: bool = True,
    original_hw: tuple[int, int] | None = None,
) -> tuple[np.ndarray, LetterboxTransform]:
    """Letterbox an (H, W, 3) uint8 image; return the (h, w, 3) image, and the map from the original to it.

    Args:
        image: to scale as in `scaled_size`. If padding is odd, the right or bottom has one pixel more.
        target_hw: height and width to fit into.
        stride: pad only to the next multiple of it instead of the whole target.
        scale_up: enlarge small images; otherwise they are only padded.
        original_hw: size of the file's image, if the image was scaled before.
    """
    height, width = image.shape[:2]
    scaled_h, scaled_w = scaled_size((height, width), target_hw, scale_up=scale_up)
    if (scaled_h, scaled_w) != (height, width):
        image = cv2.resize(image, (scaled_w, scaled_h), interpolation=cv2.INTER_LINEAR)
    pad_h, pad_w = target_hw[0] - scaled_h, target_hw[1] - scaled_w
    if stride is not None:
        pad_h, pad_w = pad_h % stride, pad_w % stride
    top, left = pad_h // 2, pad_w // 2
    borders = (top, pad_h - top, left, pad_w - left)
    padded = cv2.copyMakeBorder(image, *borders, cv2.BORDER_CONSTANT, value=(PAD_VALUE,) * 3)
    original_h, original_w = original_hw or (height, width)
    return padded, LetterboxTransform(
        original_hw=(original_h, original_w),
        ratio_wh=(scaled_w / original_w, scaled_h / original_h),
        pad_wh=(float(left), float(top)),
    )


def resize_longest_side(image: np.ndarray, size: int, *, smooth: bool) -> np.ndarray:
    """Scale an (H, W, 3) uint8 image so that its longest side is `size` pixels.

    With `smooth`, for evaluation, shrinking uses area interpolation; training uses bilinear, which is faster.
    """
    height, width = image.shape[:2]
    longest = max(height, width)
    if longest == size:
        return image
    scaled_h, scaled_w = scaled_size((height, width), (size, size))
    interpolation = cv2.INTER_AREA if smooth and size < longest else cv2.INTER_LINEAR
    return cv2.resize(image, (scaled_w, scaled_h), interpolation=interpolation)
