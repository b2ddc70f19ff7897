"""The one way to read a picture, and which files are pictures or videos."""

from __future__ import annotations

import io
import os
import stat
import warnings
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from utils.errors import DataError
from utils.files import atomic_write

IMAGE_SUFFIXES = frozenset("bmp dng jpeg jpg mpo png tif tiff webp pfm".split())
VIDEO_SUFFIXES = frozenset("asf avi gif m4v mkv mov mp4 mpeg mpg ts wmv".split())
MAX_PIXELS = 178_000_000
_JPEG_START, _JPEG_END, _SCAN_START = b"\xff\xd8", b"\xff\xd9", 0xDA


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
    if data.startswith(_JPEG_START) and _is_truncated_jpeg(data):
        raise DataError(path, f"is truncated ({len(data)} bytes, no end marker)", fix="replace the file")
    if _too_many_pixels(data):
        raise DataError(path, f"claims more than {MAX_PIXELS:,} pixels", fix="scale it down")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB) if data else None
    except cv2.error as error:
        raise DataError(path, f"cannot be decoded ({str(error.err)[:60]})", fix="replace the file") from error
    if image is None:
        raise DataError(path, f"is no picture that can be decoded ({len(data)} bytes)", fix="replace the file")
    return image


def _is_truncated_jpeg(data: bytes) -> bool:
    """Tell whether a JPEG lacks its end marker: decoders fill what is missing with grey and go on.

    Headers are stepped over by their lengths, so that the end of an embedded preview does not count.
    """
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == _SCAN_START:
            return data.find(_JPEG_END, place) < 0
        has_length = marker != 0xFF and marker != 0x01 and not 0xD0 <= marker <= 0xD8
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big") if has_length else 1 if marker == 0xFF else 2
    return True


def _too_many_pixels(data: bytes) -> int:
    """Return the number of pixels that a picture's header claims if that is more than `MAX_PIXELS`, else 0."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as header:
                pixels = header.width * header.height
    except Image.DecompressionBombError:
        return MAX_PIXELS + 1
    except (OSError, ValueError, SyntaxError):  # no kind that this library knows; the decoder will tell
        return 0
    return pixels if pixels > MAX_PIXELS else 0


def write_image(path: Path | str, image: np.ndarray) -> Path:
    """Write an (H, W, 3) uint8 RGB picture, atomically, in the format of the suffix."""
    path = Path(path)
    suffix = path.suffix.lower() if has_suffix(path, IMAGE_SUFFIXES - {"dng", "mpo", "pfm"}) else ".jpg"
    encoded, data = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not encoded:
        raise DataError(path, "cannot be encoded", fix="choose .jpg or .png")
    return atomic_write(path, data.tobytes())
