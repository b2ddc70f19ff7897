"""What may be handed to the Python call, brought into one form."""

from __future__ import annotations

import math
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from utils.datasets.images import decode_image, read_image, to_rgb8
from utils.errors import DataError

MAX_DOWNLOAD_BYTES = 64_000_000
DOWNLOAD_SECONDS = 15
ADDRESSES = ("http://", "https://")

ImageInput = str | Path | Image.Image | np.ndarray | Tensor


@dataclass(frozen=True, kw_only=True)
class InputImage:
    """One image of a call.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        file: a name for it.
        pixels: (3, H, W) in [0, 1] if a tensor was given, which goes to the network as it is.
    """

    image: np.ndarray
    file: str
    pixels: Tensor | None = None


def take(ims: ImageInput | Sequence[ImageInput], *, allow_urls: bool = False) -> list[InputImage]:
    """Bring whatever was given into one form.

    Raises:
        DataError: it is no image.
    """
    items: list[Any] = list(ims) if isinstance(ims, (list, tuple)) else [ims]
    taken: list[InputImage] = []
    for item in items:
        images = list(item) if isinstance(item, Tensor) and item.ndim == 4 else [item]
        for image in images:
            one = _take_one(image, name=f"image{len(taken)}.jpg", allow_urls=allow_urls)
            taken.append(one)
    return taken


def _take_one(item: Any, *, name: str, allow_urls: bool) -> InputImage:  # noqa: ANN401 - whatever a user passes
    """Bring one image into the common form; `name` is for one without a file."""
    if isinstance(item, (str, Path)):
        text = str(item)
        if text.lower().startswith(ADDRESSES):
            file = Path(urllib.request.url2pathname(text.split("?")[0])).name or name
            return InputImage(image=decode_image(_fetch(text, allowed=allow_urls), name=text), file=file)
        return InputImage(image=read_image(item), file=Path(item).name)
    if isinstance(item, Image.Image):
        file = Path(str(getattr(item, "filename", "") or name)).name
        return InputImage(image=_from_pillow(item), file=file)
    try:
        if isinstance(item, Tensor):
            pixels = _checked(item)
            shown = (pixels.float().cpu() * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
            return InputImage(image=np.ascontiguousarray(shown), file=name, pixels=pixels)
        if isinstance(item, np.ndarray):
            if item.ndim == 3 and item.shape[0] in (1, 3, 4) and item.shape[2] not in (1, 3, 4):
                item = item.transpose(1, 2, 0)
            return InputImage(image=to_rgb8(item), file=name)
    except ValueError as error:
        raise DataError(name, str(error), fix="pass (H, W, 3) RGB, or a tensor (3, H, W) in [0, 1]") from error
    kinds = "a path, PIL image, array, tensor, or a list of these"
    raise DataError(name, f"is of no kind that is known ({type(item).__name__})", fix=f"pass {kinds}")


def _fetch(address: str, *, allowed: bool) -> bytes:
    """Return what lies at a web address.

    Raises:
        DataError: that is not allowed, or there is nothing, or too much.
    """
    if not allowed:
        raise DataError(address, "is a web address, which is not fetched", fix="save the file, or set allow_urls")
    web = urllib.request.OpenerDirector()  # http and https alone: no files, no ftp, whatever is redirected to
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.UnknownHandler,
    ):
        web.add_handler(handler())
    try:
        with web.open(address, timeout=DOWNLOAD_SECONDS) as answer:
            data: bytes = answer.read(MAX_DOWNLOAD_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = str(getattr(error, "reason", error))[:80]
        raise DataError(address, f"cannot be fetched ({reason})", fix="check the address") from error
    if len(data) > MAX_DOWNLOAD_BYTES:
        raise DataError(address, f"is larger than {MAX_DOWNLOAD_BYTES:,} bytes", fix="fetch it yourself")
    return data


def _from_pillow(image: Image.Image) -> np.ndarray:
    """Return a PIL image as (H, W, 3) uint8 RGB, upright, what is transparent laid over black."""
    upright = ImageOps.exif_transpose(image)
    if upright.mode[0] in "IF":
        return to_rgb8(np.asarray(upright))
    has_alpha = upright.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in upright.info
    return to_rgb8(np.asarray(upright.convert("RGBA" if has_alpha else "RGB")))


def _checked(pixels: Tensor) -> Tensor:
    """Return a (3, H, W) image of floating-point numbers in [0, 1]; uint8 is divided by 255.

    Raises:
        ValueError: it has another shape, or other numbers.
    """
    if pixels.ndim != 3 or pixels.shape[0] != 3 or not pixels.numel():
        raise ValueError(f"is no image: a tensor of shape {tuple(pixels.shape)}")
    if pixels.dtype == torch.uint8:
        return pixels.float() / 255
    low, high = (float(pixels.min()), float(pixels.max())) if pixels.is_floating_point() else (math.nan, math.nan)
    if not (low >= 0 and high <= 1):
        raise ValueError(f"is no image: numbers of {pixels.dtype} from {low:g} to {high:g}, not in [0, 1]")
    return pixels.detach()
