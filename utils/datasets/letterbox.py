"""Letterboxing: scale an image into a rectangle without distortion, and pad the rest with grey."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from utils.structures import LetterboxTransform

PAD_VALUE = 114


@dataclass(frozen=True, kw_only=True)
class LetterboxGeometry:
    """Sizes of a letterboxed image, in pixels.

    Attributes:
        scaled_hw: size after scaling, before padding.
        ratio: scale of both axes.
        pad_wh: padding on each of the two opposite sides; a half means one pixel more at the right or bottom.
        out_hw: final size.
    """

    scaled_hw: tuple[int, int]
    ratio: float
    pad_wh: tuple[float, float]
    out_hw: tuple[int, int]

    @property
    def borders(self) -> tuple[int, int, int, int]:
        """Padding at the top, bottom, left and right."""
        pad_w, pad_h = self.pad_wh
        return round(pad_h - 0.1), round(pad_h + 0.1), round(pad_w - 0.1), round(pad_w + 0.1)


def letterbox_geometry(
    size_hw: tuple[int, int],
    target_hw: tuple[int, int],
    *,
    minimal: bool = False,
    scale_up: bool = True,
    stride: int = 32,
) -> LetterboxGeometry:
    """Compute how an image is letterboxed.

    Args:
        size_hw: height and width of the image.
        target_hw: height and width to fit into.
        minimal: pad only to the next multiple of `stride` instead of the whole target.
        scale_up: enlarge small images; otherwise they are only padded.
        stride: see `minimal`.
    """
    height, width = size_hw
    ratio = min(target_hw[0] / height, target_hw[1] / width)
    if not scale_up:
        ratio = min(ratio, 1.0)
    scaled_h, scaled_w = max(round(height * ratio), 1), max(round(width * ratio), 1)
    pad_h, pad_w = target_hw[0] - scaled_h, target_hw[1] - scaled_w
    if minimal:
        pad_h, pad_w = pad_h % stride, pad_w % stride
    return LetterboxGeometry(
        scaled_hw=(scaled_h, scaled_w),
        ratio=ratio,
        pad_wh=(pad_w / 2, pad_h / 2),
        out_hw=(scaled_h + pad_h, scaled_w + pad_w),
    )


def letterbox(
    image: np.ndarray,
    target_hw: tuple[int, int],
    *,
    minimal: bool = False,
    scale_up: bool = True,
    stride: int = 32,
    original_hw: tuple[int, int] | None = None,
) -> tuple[np.ndarray, LetterboxTransform]:
    """Letterbox an (H, W, 3) uint8 image; see `letterbox_geometry` for `target_hw` and the options.

    If the image was scaled before, `original_hw` is the size of the file's image.

    Returns:
        The (h, w, 3) image, and the map from the original to it.
    """
    original = original_hw or (image.shape[0], image.shape[1])
    geometry = letterbox_geometry(image.shape[:2], target_hw, minimal=minimal, scale_up=scale_up, stride=stride)
    scaled_h, scaled_w = geometry.scaled_hw
    if (scaled_h, scaled_w) != image.shape[:2]:
        image = cv2.resize(image, (scaled_w, scaled_h), interpolation=cv2.INTER_LINEAR)
    top, bottom, left, right = geometry.borders
    padded = cv2.copyMakeBorder(image, top, bottom, left, right, cv2.BORDER_CONSTANT, value=(PAD_VALUE,) * 3)
    return padded, LetterboxTransform(
        original_hw=original,
        ratio_wh=(scaled_w / original[1], scaled_h / original[0]),
        pad_wh=(float(left), float(top)),
    )


def resize_longest_side(image: np.ndarray, size: int, *, smooth: bool) -> np.ndarray:
    """Scale an (H, W, 3) uint8 image so that its longest side is `size` pixels.

    With `smooth`, for evaluation, shrinking uses area interpolation; training uses bilinear, which is faster.
    """
    height, width = image.shape[:2]
    ratio = size / max(height, width)
    if ratio == 1:
        return image
    interpolation = cv2.INTER_AREA if smooth and ratio < 1 else cv2.INTER_LINEAR
    target = (max(round(width * ratio), 1), max(round(height * ratio), 1))
    return cv2.resize(image, target, interpolation=interpolation)
