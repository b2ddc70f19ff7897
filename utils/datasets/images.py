"""The one way to read a picture, and which files are pictures or videos."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import cv2
import numpy as np

from utils.errors import DataError
from utils.files import atomic_write

IMAGE_SUFFIXES = frozenset("bmp dng jpeg jpg mpo png tif tiff webp pfm".split())
VIDEO_SUFFIXES = frozenset("asf avi gif m4v mkv mov mp4 mpeg mpg ts wmv".split())
_JPEG_START, _SCAN_START, _JPEG_END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"


def has_suffix(path: Path | str, suffixes: frozenset[str]) -> bool:
    """Tell whether a file name ends in one of the suffixes, in any letter case."""
    return Path(path).suffix[1:].lower() in suffixes


def read_image(path: Path | str) -> np.ndarray:
    """Read a picture of any kind as the eye sees it.

    EXIF orientation is applied, grey and palette are expanded, deeper pixels brought to 8 bits, transparency dropped.

    Args:
        path: any file name, ASCII or not.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        DataError: missing, no regular file, truncated, or no picture that can be decoded.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise DataError(path, "is no regular file", fix="remove it from the data set")
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror})", fix="check the path") from error
    # A JPEG decoder fills a missing end with grey and goes on; only the absent end marker tells.
    if data.startswith(_JPEG_START) and data.find(_JPEG_END, max(data.rfind(_SCAN_START), 0)) < 0:
        raise DataError(path, f"is truncated ({len(data)} bytes, no end marker)", fix="replace the file")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB) if data else None
    except cv2.error as error:
        raise DataError(path, f"cannot be decoded ({str(error.err)[:60]})", fix="replace the file") from error
    if image is None:
        raise DataError(path, f"is no picture that can be decoded ({len(data)} bytes)", fix="replace the file")
    return image


def write_image(path: Path | str, image: np.ndarray) -> Path:
    """Write an (H, W, 3) uint8 RGB picture, atomically, in the format of the suffix."""
    path = Path(path)
    suffix = path.suffix.lower() if has_suffix(path, IMAGE_SUFFIXES - {"dng", "mpo", "pfm"}) else ".jpg"
    encoded, data = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not encoded:
        raise DataError(path, "cannot be encoded", fix="choose .jpg or .png")
    return atomic_write(path, data.tobytes())
