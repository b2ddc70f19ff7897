"""Inputs of the Python API: paths, addresses, PIL images, arrays and tensors in one form; numbers of any library."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from utils.datasets.images import decode_image, pil_to_rgb8, read_image, to_rgb8
from utils.datasets.remote import WEB_SCHEMES, fetch, file_name, public_address
from utils.errors import ConfigError, DataError

ImageInput = str | Path | Image.Image | np.ndarray | Tensor


@dataclass(frozen=True, kw_only=True)
class InputImage:
    """One input image."""

    image: np.ndarray  # (H, W, 3) uint8 RGB
    file: str  # its file name, or one made up from its index
    pixels: Tensor | None = None  # (3, H, W) in [0, 1] if the input was a tensor, which is not letterboxed


def parse_inputs(ims: ImageInput | Sequence[ImageInput], *, allow_urls: bool = False) -> list[InputImage]:
    """Read one input or a list of inputs; a tensor (B, 3, H, W) counts as B images.

    Raises:
        DataError: one is not an image, or of an unsupported type.
    """
    items: list[Any] = list(ims) if isinstance(ims, (list, tuple)) else [ims]
    inputs: list[InputImage] = []
    for item in items:
        for image in list(item) if isinstance(item, Tensor) and item.ndim == 4 else [item]:
            inputs.append(_parse_input(image, name=f"image{len(inputs)}.jpg", allow_urls=allow_urls))
    return inputs


def _parse_input(item: Any, *, name: str, allow_urls: bool) -> InputImage:  # noqa: ANN401 - whatever a user passes
    """Read one input; `name` is used if it has no file name."""
    if isinstance(item, (str, Path)):
        text = str(item)
        if text.lower().startswith(WEB_SCHEMES) and not os.path.exists(text):
            return InputImage(image=_from_web(text, allowed=allow_urls), file=file_name(text) or name)
        return InputImage(image=read_image(item), file=Path(item).name)
    if isinstance(item, Image.Image):
        file = Path(str(getattr(item, "filename", "") or name)).name
        return InputImage(image=pil_to_rgb8(item), file=file)
    try:
        if isinstance(item, Tensor):
            pixels = _normalized_pixels(item)
            image = (pixels.float().cpu() * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
            return InputImage(image=np.ascontiguousarray(image), file=name, pixels=pixels)
        if isinstance(item, np.ndarray):
            if item.ndim == 3 and item.shape[0] in (1, 3, 4) and item.shape[2] not in (1, 3, 4):
                item = item.transpose(1, 2, 0)
            return InputImage(image=to_rgb8(item), file=name)
    except ValueError as error:
        raise DataError(name, str(error), fix="pass (H, W, 3) RGB, or a tensor (3, H, W) in [0, 1]") from error
    supported = "a path, PIL image, array, tensor, or a list of these"
    raise DataError(name, f"unsupported type {type(item).__name__}", fix=f"pass {supported}")


def _from_web(url: str, *, allowed: bool) -> np.ndarray:
    """Read the image at an address; DataError if that is not allowed, or fails."""
    where = public_address(url)
    if not allowed:
        what = "is a web address, which is not fetched by default"
        raise DataError(where, what, fix="save the file or set allow_urls")
    return decode_image(fetch(url), name=where)


def _normalized_pixels(pixels: Tensor) -> Tensor:
    """Return a (3, H, W) tensor of values in [0, 1], uint8 divided by 255; ValueError for other shapes or values."""
    if pixels.ndim != 3 or pixels.shape[0] != 3 or not pixels.numel():
        raise ValueError(f"is not an image: a tensor of shape {tuple(pixels.shape)}")
    if pixels.dtype == torch.uint8:
        return pixels.float() / 255
    low, high = (float(pixels.min()), float(pixels.max())) if pixels.is_floating_point() else (math.nan, math.nan)
    if not (low >= 0 and high <= 1):
        raise ValueError(f"is not an image: {pixels.dtype} values from {low:g} to {high:g}, not in [0, 1]")
    return pixels.detach()


def number(value: Any, name: str) -> float:  # noqa: ANN401 - whatever a user sets
    """Return a real number of any library's type; ConfigError if it is none."""
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise ConfigError(name, f"is not a number (got {str(value)[:60]!r})", fix=f"set {name} to a number") from error


def whole_numbers(value: Any, name: str) -> tuple[int, ...]:  # noqa: ANN401
    """Return one whole number of any library's type, or a sequence of them, as a tuple; ConfigError for others."""
    try:
        array = np.atleast_1d(np.asarray(value))
        with np.errstate(invalid="ignore"):  # infinity
            numbers = array.astype(np.int64)
        if array.ndim == 1 and array.dtype.kind in "iuf" and (numbers == array).all():
            return tuple(numbers.tolist())
    except (TypeError, ValueError, OverflowError):
        pass
    raise ConfigError(name, f"must be whole numbers (got {str(value)[:60]})", fix=f"correct {name}")
