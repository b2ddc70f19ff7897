"""The one way to read an image, and which files are images or videos."""

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
_JPEG_START, _JPEG_END, _SCAN_START = b"\xff\xd8", b"\xff\xd9", 0xDA
_KINDS = ("JPEG", "PNG", "BMP", "DIB", "WEBP", "TIFF", "GIF", "PPM", "AVIF", "JPEG2000")
_DEEP_STARTS = (b"II*\0", b"MM\0*", b"PF", b"Pf")  # of TIFF and PFM, some of which only OpenCV knows
_PLAIN_MODES = frozenset(("1", "L", "P", "RGB"))
_BITS_PER_SAMPLE, _ORIENTATION = 258, 0x0112
_QUIET = threading.Lock()  # the list of warning filters belongs to the whole process


def has_suffix(path: Path | str, suffixes: frozenset[str]) -> bool:
    """Tell whether a file name ends in one of the suffixes, in any letter case."""
    return Path(path).suffix[1:].lower() in suffixes


def read_image(path: Path | str) -> np.ndarray:
    """Read an image of any kind as the eye sees it; see `decode_image`.

    Args:
        path: any file name, ASCII or not.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        DataError: missing, no regular file, truncated, or no image that can be decoded.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise DataError(path, "is no regular file", fix="remove it from the data set")
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror})", fix="check the path") from error
    return decode_image(data, name=path)


def decode_image(data: bytes, *, name: Path | str) -> np.ndarray:
    """Decode the bytes of an image file.

    EXIF orientation is applied; grey, palette and CMYK become RGB; deeper pixels come to 8 bits as in `to_rgb8`; what
    is transparent is laid over black. Of several images in one file the first is taken.

    Args:
        data: the file's content.
        name: what messages call it.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        DataError: truncated, too large, or no image that can be decoded.
    """
    if data.startswith(_JPEG_START) and _is_truncated_jpeg(data):
        raise DataError(name, f"is truncated ({len(data)} bytes, no end marker)", fix="replace the file")
    try:
        image = _decode(data) if data else None
    except _TooLarge as error:
        raise DataError(name, f"claims more than {MAX_PIXELS:,} pixels", fix="scale it down") from error
    except Exception as error:  # damaged bytes make the decoders raise errors of any class
        reason = str(getattr(error, "err", error)).strip() or type(error).__name__
        raise DataError(name, f"cannot be decoded ({reason.splitlines()[0][:60]})", fix="replace the file") from error
    if image is None:
        raise DataError(name, f"is no image that can be decoded ({len(data)} bytes)", fix="replace the file")
    return image


def to_rgb8(image: np.ndarray) -> np.ndarray:
    """Bring an image of any depth to 8-bit RGB, what is transparent laid over black.

    16 bits are divided by 257, so that white stays white. Numbers of other kinds have no agreed white: floating point
    up to 1 is taken as a share of white, numbers up to 255 as 8 bits, up to 65535 as 16 bits, and above that the
    largest number is white. Negative numbers and NaN are black.

    Args:
        image: (H, W), (H, W, 1) grey, (H, W, 2) grey and alpha, (H, W, 3) RGB, or (H, W, 4) RGB and alpha, of any
            real numbers.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: it has another shape, or nothing in it.
    """
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or not 1 <= image.shape[2] <= 4 or not image.size or image.dtype.kind not in "buif":
        raise ValueError(f"is no image: shape {image.shape} of {image.dtype}")
    image = _to_8_bits(image)
    if image.shape[2] in (2, 4):
        colour, alpha = image[..., :-1], image[..., -1:]
        if alpha.min() < 255:
            _say_transparent()
            image = ((colour.astype(np.uint16) * alpha + 127) // 255).astype(np.uint8)
        else:
            image = colour
    return np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3)))


def _to_8_bits(image: np.ndarray) -> np.ndarray:
    """Return an array of real numbers as uint8; see `to_rgb8` for the rule."""
    if image.dtype == np.uint8:
        return image
    if image.dtype == bool:
        return image.astype(np.uint8) * 255
    if image.dtype == np.uint16:
        return ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)
    values = np.nan_to_num(image.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    largest = values.max()
    white = next((w for w in (1, 255, 65535) if largest <= w and (w > 1 or image.dtype.kind == "f")), largest)
    return np.rint(values.clip(0) * (255 / white)).astype(np.uint8)


@functools.cache
def _say_transparent() -> None:
    """Say once what happens to transparent pixels."""
    LOGGER.warning("an image has transparent pixels: they are laid over black (said once)")


class _TooLarge(Exception):  # noqa: N818 - a signal within this file
    """An image claims more than `MAX_PIXELS`."""


@contextlib.contextmanager
def _pillow_quiet() -> Iterator[None]:
    """Keep Pillow's warnings of odd metadata from the user, in one thread at a time."""
    with _QUIET, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _decode(data: bytes) -> np.ndarray | None:
    """Return the image in some bytes as (H, W, 3) uint8 RGB, or None.

    OpenCV, the faster, takes the usual kinds and all deep ones, Pillow those that OpenCV gets wrong: CMYK, colours that
    are transparent, and odd TIFFs.

    Raises:
        _TooLarge: its header claims too many pixels.
        Exception: whatever the decoders raise for damaged bytes.
    """
    header = _open_header(data)
    if header is None:
        return _decode_deep(data, 1) if data.startswith(_DEEP_STARTS) else _decode_plain(data)
    with header, _pillow_quiet():
        if header.width * header.height > MAX_PIXELS:
            raise _TooLarge
        bits = getattr(header, "tag_v2", {}).get(_BITS_PER_SAMPLE, (8,))
        deep = header.mode[0] in "IF" or max(bits) > 8 or (header.format == "PNG" and data[24] == 16)
        if deep:
            # OpenCV turns TIFFs itself.
            orientation = 1 if header.format == "TIFF" else header.getexif().get(_ORIENTATION, 1)
        elif header.format == "TIFF" or header.mode not in _PLAIN_MODES or "transparency" in header.info:
            upright = ImageOps.exif_transpose(header)
            has_alpha = upright.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in upright.info
            return to_rgb8(np.asarray(upright.convert("RGBA" if has_alpha else "RGB")))
    return _decode_deep(data, orientation) if deep else _decode_plain(data)


def _open_header(data: bytes) -> Image.Image | None:
    """Read an image's header; None where Pillow does not know the kind.

    Raises:
        _TooLarge: it claims far too many pixels.
    """
    try:
        with _pillow_quiet():
            return Image.open(io.BytesIO(data), formats=_KINDS)
    except Image.DecompressionBombError as error:
        raise _TooLarge from error
    except (OSError, ValueError, SyntaxError):
        return None


def _decode_plain(data: bytes) -> np.ndarray | None:
    """Decode an 8-bit image without transparency, turned upright."""
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)


def _decode_deep(data: bytes, orientation: int) -> np.ndarray | None:
    """Decode an image of more than 8 bits, and turn it upright from its EXIF orientation."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        return None
    if image.ndim == 3 and image.shape[2] >= 3:  # from OpenCV's BGR
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


def write_image(path: Path | str, image: np.ndarray) -> Path:
    """Write an (H, W, 3) uint8 RGB image, atomically, in the format of the suffix."""
    path = Path(path)
    suffix = path.suffix.lower() if has_suffix(path, IMAGE_SUFFIXES - {"dng", "mpo", "pfm"}) else ".jpg"
    encoded, data = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not encoded:
        raise DataError(path, "cannot be encoded", fix="choose .jpg or .png")
    return atomic_write(path, data.tobytes())
