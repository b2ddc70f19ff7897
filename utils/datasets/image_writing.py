"""The one way to write an image."""

from __future__ import annotations

import contextlib
from pathlib import Path

import cv2
import numpy as np

from utils.datasets.images import has_suffix
from utils.errors import DataError
from utils.files import atomic_write
from utils.library_messages import muted

_SUFFIXES = frozenset("bmp jpe jpeg jpg png tif tiff webp".split())


def write_image(path: Path | str, image: np.ndarray) -> Path:
    """Write an (H, W, 3) uint8 RGB image atomically, as JPEG if the suffix is unknown, and return its path.

    An image too large for its format, as for JPEG above 65,500 pixels a side, is written as .png. A DataError if it
    cannot be encoded.
    """
    path = Path(path)
    suffix = path.suffix.lower() if has_suffix(path, _SUFFIXES) else ".jpg"
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    for encoding, target in ((suffix, path), (".png", path.with_suffix(".png"))):
        if (data := _encode(encoding, bgr)) is not None:
            return atomic_write(target, data)
    raise DataError(path, f"cannot be encoded ({image.shape[1]}x{image.shape[0]} pixels)", fix="use --nosave")


def _encode(suffix: str, bgr: np.ndarray) -> bytes | None:
    """Return an image as the content of a file with this suffix, or None if the format cannot hold it."""
    with muted(), contextlib.suppress(cv2.error):
        encoded, data = cv2.imencode(suffix, bgr)
        if encoded:
            return data.tobytes()
    return None
