"""The one way to read an image, and the suffixes of images and videos."""

from __future__ import annotations

import contextlib
import functools
import io
import math
import os
import stat
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from utils.datasets.image_headers import BITS_PER_SAMPLE, PFM_SIGNATURES, TIFF_SIGNATURES, is_truncated, raw_size
from utils.errors import DataError
from utils.library_messages import muted
from utils.log import LOGGER
from utils.malloc import release_memory

# Those of YOLOv5, and the other names and successors of JPEG.
IMAGE_SUFFIXES = frozenset("bmp dng jpeg jpg mpo png tif tiff webp pfm jfif jpe jp2 avif".split())
UNREAD_SUFFIXES = frozenset(
    "arw cr2 gif heic heif ico j2k jpx jxl nef pbm pgm ppm psd raw svg tga".split()
)  # of images
VIDEO_SUFFIXES = frozenset("asf avi gif m4v mkv mov mp4 mpeg mpg ts wmv".split())
MAX_PIXELS = 178_000_000
MAX_DECODED_BYTES = 6 * MAX_PIXELS  # 16 bits in three channels; also of the file itself
_PILLOW_FORMATS = ("JPEG", "PNG", "BMP", "DIB", "WEBP", "TIFF", "GIF", "PPM", "AVIF", "JPEG2000")
_DEEP_SIGNATURES = (*TIFF_SIGNATURES, *PFM_SIGNATURES)  # some of which only OpenCV can read
# The most bytes that a decoder holds for a sample, where that is more than the sample has.
_BYTES_PER_SAMPLE = {"JPEG2000": 4, "AVIF": 4, "WEBP": 2}
_BLOCK_PIXELS = 4_000_000  # converted at a time
_OPENCV_MODES = frozenset(("1", "L", "P", "RGB"))
ORIENTATION_TAG, FIRST_TRANSPOSED = 0x0112, 5  # in EXIF: from 5, width and height change places
READ_THREADS = 4
_LARGE_BYTES = 100_000_000
_LARGE_IMAGES = threading.Lock()
_WARNING_FILTERS = threading.Lock()  # the filters are global to the process
Item = TypeVar("Item")
Result = TypeVar("Result")


def has_suffix(path: Path | str, suffixes: frozenset[str]) -> bool:
    """Return whether a file name has one of the suffixes, ignoring case."""
    stem, _, suffix = os.path.basename(path).rpartition(".")
    return bool(stem) and suffix.lower() in suffixes


def map_in_threads(function: Callable[[Item], Result], items: Sequence[Item], what: str) -> Iterator[Result]:
    """Yield the results of a function that reads images, in order, with a progress bar on a terminal."""
    with ThreadPoolExecutor(READ_THREADS) as pool:
        yield from tqdm(pool.map(function, items), desc=what, total=len(items), leave=False, disable=None)


def read_image(path: Path | str) -> np.ndarray:
    """Read an image file as (H, W, 3) uint8 RGB; see `decode_image`. A DataError if it is not a readable file."""
    return decode_image(read_image_file(path), name=path)


def read_image_file(path: Path | str) -> bytes:
    """Return the content of an image file; DataError if it is not a regular file, too large, or cannot be read."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise DataError(path, "is not a regular file", fix="remove it from the data set")
        if status.st_size > MAX_DECODED_BYTES:
            raise DataError(path, f"is too large for an image ({status.st_size:,} bytes)", fix="remove it")
        with io.FileIO(path) as file:
            return file.readall()
    except (OSError, ValueError) as error:  # ValueError: a null byte
        reason = getattr(error, "strerror", None) or error
        raise DataError(path, f"cannot be read ({reason})", fix="check the path") from error


def decode_image(data: bytes, *, name: Path | str) -> np.ndarray:
    """Decode the content of an image file to (H, W, 3) uint8 RGB.

    EXIF orientation is applied; greyscale, palette and CMYK become RGB; deeper pixels are reduced to 8 bits as in
    `to_rgb8`; alpha is composited on black. Of several images in one file the first is read.

    Raises:
        DataError: the data is truncated, too large, or not an image.
    """
    if is_truncated(data):
        raise DataError(name, f"is truncated ({len(data)} bytes, no end marker)", fix="replace the file")
    try:
        with muted():
            image = _decode(data) if data else None
    except Image.DecompressionBombError as error:
        what = f"has more than {MAX_PIXELS:,} pixels, or takes more than {MAX_DECODED_BYTES:,} bytes of memory"
        raise DataError(name, what, fix="scale it down") from error
    except Exception as error:  # decoders raise errors of any class for damaged data
        reason = str(getattr(error, "err", error)).strip() or type(error).__name__
        raise DataError(name, f"cannot be decoded ({reason.splitlines()[0][:60]})", fix="replace the file") from error
    if image is None:
        raise DataError(name, f"is not an image ({len(data)} bytes)", fix="replace the file")
    if image.nbytes > _LARGE_BYTES:
        release_memory()  # of the decoder, which may have taken several times as much
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
    height, width, channels = image.shape
    if image.dtype == np.uint8 and channels == 3:
        return np.ascontiguousarray(image)
    white = _white_level(image)
    result = np.empty((height, width, 3), np.uint8)
    rows = max(_BLOCK_PIXELS // width, 1)
    for top in range(0, height, rows):
        result[top : top + rows] = _to_rgb8_block(image[top : top + rows], white)
    return result


def _white_level(image: np.ndarray) -> float:
    """Return the value that becomes 255, by the rule of `to_rgb8`."""
    if image.dtype in (np.uint8, bool, np.uint16):  # given by the type
        return math.nan
    rows = max(_BLOCK_PIXELS // image.shape[1], 1)
    blocks = (image[top : top + rows] for top in range(0, len(image), rows))
    maximum = max(float(np.nan_to_num(block.astype(np.float64), nan=0.0, posinf=0.0).max()) for block in blocks)
    return next((w for w in (1, 255, 65535) if maximum <= w and (w > 1 or image.dtype.kind == "f")), maximum)


def _to_rgb8_block(image: np.ndarray, white: float) -> np.ndarray:
    """Convert rows of an image, (H, W, C) of any real type, to uint8 RGB, (H, W, 3) or (H, W, 1)."""
    if image.dtype == np.uint16:
        image = ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)
    elif image.dtype == bool:
        image = image.astype(np.uint8) * 255
    elif image.dtype != np.uint8:
        values = np.nan_to_num(image.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
        image = np.rint(values.clip(0) * (255 / white)).astype(np.uint8)
    if image.shape[2] not in (2, 4):
        return image
    colour, alpha = image[..., :-1], image[..., -1:]
    if alpha.min() == 255:
        return colour
    _warn_about_alpha()
    return ((colour.astype(np.uint16) * alpha + 127) // 255).astype(np.uint8)


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
    with contextlib.ExitStack() as stack:
        if header is None:
            deep, orientation = data.startswith(_DEEP_SIGNATURES), 1
            with suppress_pillow_warnings():
                size = _checked_size(*raw_size(data))
        else:
            stack.enter_context(header)
            stack.enter_context(suppress_pillow_warnings())
            bits = max(getattr(header, "tag_v2", {}).get(BITS_PER_SAMPLE, (8,)))
            deep = header.mode[0] in "IF" or bits > 8 or (header.format == "PNG" and data[24] == 16)
            # OpenCV keeps two copies of a PNG of 16 bits.
            depth = max((bits + 7) // 8, 4 if header.mode[0] in "IF" or header.format == "PNG" else 1) if deep else 1
            depth = max(depth, _BYTES_PER_SAMPLE.get(str(header.format), 1))
            size = _checked_size(header.width * header.height, len(header.getbands()) * depth)
            # OpenCV applies the orientation of TIFFs itself.
            orientation = header.getexif().get(ORIENTATION_TAG, 1) if deep and header.format != "TIFF" else 1
            if not deep and (
                header.format == "TIFF" or header.mode not in _OPENCV_MODES or "transparency" in header.info
            ):
                with _one_at_a_time(size):
                    return pil_to_rgb8(header)
    with _one_at_a_time(size):
        if deep:
            return _decode_deep(data, orientation)
        image = opencv_decode(data, cv2.IMREAD_COLOR_RGB)
        if image is None and header is not None and header.format in ("AVIF", "JPEG2000"):  # OpenCV was built without
            return pil_to_rgb8(Image.open(io.BytesIO(data), formats=_PILLOW_FORMATS))
        return image


def opencv_decode(data: bytes, flags: int) -> np.ndarray | None:
    """Return what OpenCV decodes, by EXIF orientation unless the flags say otherwise; None if it refuses the file."""
    return cv2.imdecode(np.frombuffer(data, np.uint8), flags)


def _checked_size(pixels: int, bytes_per_pixel: int) -> int:
    """Return the bytes that an image takes while it is decoded; a DecompressionBombError if they are too many."""
    if pixels > MAX_PIXELS or pixels * bytes_per_pixel > MAX_DECODED_BYTES:
        raise Image.DecompressionBombError
    return pixels * bytes_per_pixel


def _one_at_a_time(size: int) -> contextlib.AbstractContextManager[object]:
    """Return a context that threads enter one by one if the image of so many bytes is large."""
    return _LARGE_IMAGES if size > _LARGE_BYTES else contextlib.nullcontext()


def pil_to_rgb8(image: Image.Image) -> np.ndarray:
    """Return a PIL image as (H, W, 3) uint8 RGB, EXIF orientation applied and alpha composited on black."""
    if image.getexif().get(ORIENTATION_TAG, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode[0] in "IF":  # more than 8 bits
        return to_rgb8(np.asarray(image))
    has_alpha = image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info
    mode = "RGBA" if has_alpha else "RGB"
    rows = max(_BLOCK_PIXELS // max(image.width, 1), 1)
    if image.height <= rows:
        return to_rgb8(np.asarray(image.convert(mode)))
    result = np.empty((image.height, image.width, 3), np.uint8)
    for top in range(0, image.height, rows):
        block = image.crop((0, top, image.width, min(top + rows, image.height)))
        result[top : top + rows] = to_rgb8(np.asarray(block.convert(mode)))
    return result


def open_header(data: bytes) -> Image.Image | None:
    """Read an image's header; None if Pillow does not know the format."""
    try:
        with suppress_pillow_warnings():
            return Image.open(io.BytesIO(data), formats=_PILLOW_FORMATS)
    except (OSError, ValueError, SyntaxError):
        return None


def _decode_deep(data: bytes, orientation: int) -> np.ndarray | None:
    """Decode an image of more than 8 bits, and apply its EXIF orientation (1 to 8)."""
    image = opencv_decode(data, cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None or (image.dtype == np.uint8 and data.startswith(TIFF_SIGNATURES)):
        return None  # Pillow reads TIFFs of 8 bits; of those that it refuses, OpenCV makes a black image
    image = to_rgb8(image)[..., ::-1]  # OpenCV returns BGR
    if orientation in (5, 6, 7, 8):
        image = image.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)
