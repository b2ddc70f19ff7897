"""The one way to read and write an image, and the suffixes of images and videos."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import stat
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps

from utils.errors import DataError
from utils.files import atomic_write
from utils.log import LOGGER

IMAGE_SUFFIXES = frozenset("bmp dng jpeg jpg mpo png tif tiff webp pfm".split())
VIDEO_SUFFIXES = frozenset("asf avi gif m4v mkv mov mp4 mpeg mpg ts wmv".split())
MAX_PIXELS = 178_000_000
_JPEG_START, _JPEG_END, _START_OF_SCAN = b"\xff\xd8", b"\xff\xd9", 0xDA
_PILLOW_FORMATS = ("JPEG", "PNG", "BMP", "DIB", "WEBP", "TIFF", "GIF", "PPM", "AVIF", "JPEG2000")
_DEEP_SIGNATURES = (b"II*\0", b"MM\0*", b"PF", b"Pf")  # TIFF and PFM, some of which only OpenCV can read
_OPENCV_MODES = frozenset(("1", "L", "P", "RGB"))
_BITS_PER_SAMPLE, _ORIENTATION = 258, 0x0112
_WARNING_FILTERS = threading.Lock()  # the filters are global to the process


def has_suffix(path: Path | str, suffixes: frozenset[str]) -> bool:
    """Return whether a file name has one of the suffixes, ignoring case."""
    return Path(path).suffix[1:].lower() in suffixes


def read_image(path: Path | str) -> np.ndarray:
    """Read an image file as (H, W, 3) uint8 RGB; see `decode_image`. A DataError if it is not a readable file."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise DataError(path, "is not a regular file", fix="remove it from the data set")
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror})", fix="check the path") from error
    return decode_image(data, name=path)


def decode_image(data: bytes, *, name: Path | str) -> np.ndarray:
    """Decode the content of an image file to (H, W, 3) uint8 RGB.

    EXIF orientation is applied; greyscale, palette and CMYK become RGB; deeper pixels are reduced to 8 bits as in
    `to_rgb8`; alpha is composited on black. Of several images in one file the first is read.

    Raises:
        DataError: the data is truncated, too large, or not an image.
    """
    if data.startswith(_JPEG_START) and _is_truncated_jpeg(data):
        raise DataError(name, f"is truncated ({len(data)} bytes, no end marker)", fix="replace the file")
    try:
        image = _decode(data) if data else None
    except Image.DecompressionBombError as error:
        raise DataError(name, f"has more than {MAX_PIXELS:,} pixels", fix="scale it down") from error
    except Exception as error:  # decoders raise errors of any class for damaged data
        reason = str(getattr(error, "err", error)).strip() or type(error).__name__
        raise DataError(name, f"cannot be decoded ({reason.splitlines()[0][:60]})", fix="replace the file") from error
    if image is None:
        raise DataError(name, f"is not an image ({len(data)} bytes)", fix="replace the file")
    return image


def to_rgb8(image: np.ndarray) -> np.ndarray:
    """Convert an image of any depth to (H, W, 3) uint8 RGB, alpha composited on black.

    The image is (H, W), (H, W, 1) grey, (H, W, 2) grey and alpha, (H, W, 3) RGB, or (H, W, 4) RGBA, of any real type.
    16-bit values are divided by 257, so that white stays white. Other types have no standard white level: floating
    point up to 1 is relative to white, values up to 255 are taken as 8 bits, up to 65535 as 16 bits, and above that the
    maximum is white. Negative values and NaN are black.

    Raises:
        ValueError: the array is empty or has another shape or type.
    """
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or not 1 <= image.shape[2] <= 4 or not image.size or image.dtype.kind not in "buif":
        raise ValueError(f"is not an image: shape {image.shape} of {image.dtype}")
    image = _to_8_bits(image)
    if image.shape[2] in (2, 4):
        colour, alpha = image[..., :-1], image[..., -1:]
        if alpha.min() < 255:
            _warn_about_alpha()
            image = ((colour.astype(np.uint16) * alpha + 127) // 255).astype(np.uint8)
        else:
            image = colour
    return np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3)))


def _to_8_bits(image: np.ndarray) -> np.ndarray:
    """Return an array of any real type as uint8, by the rule of `to_rgb8`."""
    if image.dtype == np.uint8:
        return image
    if image.dtype == bool:
        return image.astype(np.uint8) * 255
    if image.dtype == np.uint16:
        return ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)
    values = np.nan_to_num(image.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    maximum = values.max()
    white = next((w for w in (1, 255, 65535) if maximum <= w and (w > 1 or image.dtype.kind == "f")), maximum)
    return np.rint(values.clip(0) * (255 / white)).astype(np.uint8)


@functools.cache
def _warn_about_alpha() -> None:
    LOGGER.warning("alpha channel composited on black (shown once)")


@contextlib.contextmanager
def suppress_pillow_warnings() -> Iterator[None]:
    """Suppress Pillow's warnings about metadata, in one thread at a time."""
    with _WARNING_FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _decode(data: bytes) -> np.ndarray | None:
    """Return the image as (H, W, 3) uint8 RGB, or None if it is not an image; raise what the decoders raise.

    OpenCV, which is faster, decodes the usual formats and all deep ones, Pillow those that OpenCV gets wrong: CMYK,
    transparent colours, and 8-bit TIFFs.
    """
    header = open_header(data)
    if header is None:
        deep, orientation = data.startswith(_DEEP_SIGNATURES), 1
    else:
        with header, suppress_pillow_warnings():
            if header.width * header.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            bits = getattr(header, "tag_v2", {}).get(_BITS_PER_SAMPLE, (8,))
            deep = header.mode[0] in "IF" or max(bits) > 8 or (header.format == "PNG" and data[24] == 16)
            if deep:
                # OpenCV applies the orientation of TIFFs itself.
                orientation = 1 if header.format == "TIFF" else header.getexif().get(_ORIENTATION, 1)
            elif header.format == "TIFF" or header.mode not in _OPENCV_MODES or "transparency" in header.info:
                return pil_to_rgb8(header)
    if deep:
        return _decode_deep(data, orientation)
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)  # applies the orientation itself


def pil_to_rgb8(image: Image.Image) -> np.ndarray:
    """Return a PIL image as (H, W, 3) uint8 RGB, EXIF orientation applied and alpha composited on black."""
    upright = ImageOps.exif_transpose(image)
    if upright.mode[0] in "IF":  # more than 8 bits
        return to_rgb8(np.asarray(upright))
    has_alpha = upright.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in upright.info
    return to_rgb8(np.asarray(upright.convert("RGBA" if has_alpha else "RGB")))


def open_header(data: bytes) -> Image.Image | None:
    """Read an image's header; None if Pillow does not know the format."""
    try:
        with suppress_pillow_warnings():
            return Image.open(io.BytesIO(data), formats=_PILLOW_FORMATS)
    except (OSError, ValueError, SyntaxError):
        return None


def _decode_deep(data: bytes, orientation: int) -> np.ndarray | None:
    """Decode an image of more than 8 bits, and apply its EXIF orientation (1 to 8)."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        return None
    if image.ndim == 3 and image.shape[2] >= 3:  # OpenCV returns BGR
        image = image[..., [2, 1, 0, 3][: image.shape[2]]]
    image = to_rgb8(image)
    if orientation in (5, 6, 7, 8):
        image = image.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)


def _is_truncated_jpeg(data: bytes) -> bool:
    """Return whether a JPEG lacks its end marker, since decoders silently fill the missing part with grey.

    Headers are skipped by their lengths, so that the end marker of an embedded thumbnail does not count.
    """
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == _START_OF_SCAN:
            return data.find(_JPEG_END, position) < 0
        if marker == 0xFF:  # a fill byte
            position += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:  # without a length
            position += 2
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return True


def write_image(path: Path | str, image: np.ndarray) -> Path:
    """Write an (H, W, 3) uint8 RGB image atomically, as JPEG if the suffix is unknown; a DataError if that fails."""
    path = Path(path)
    suffix = path.suffix.lower() if has_suffix(path, IMAGE_SUFFIXES - {"dng", "mpo", "pfm"}) else ".jpg"
    encoded, data = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not encoded:
        raise DataError(path, "cannot be encoded", fix="choose .jpg or .png")
    return atomic_write(path, data.tobytes())
