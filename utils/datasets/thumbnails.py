"""Small grey thumbnails of images: read fast, moved, and compared in every place once they are aligned."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import cv2
import numpy as np
from PIL import ImageOps

from utils.datasets.images import decode_image, open_header, read_image_file
from utils.errors import DataError

SIDE = 96  # of the thumbnails, which are square whatever the shape of the image: stretched copies are found too
MAX_DISTORTION = 0.15  # of the alignment, relative to the candidate's
MIN_OVERLAP = 0.75  # of the aligned thumbnails
DARK, BRIGHT = 8, 235  # grey levels beyond which brightening may have clipped a colour


def read_thumbnail(path: str) -> tuple[bytes, np.ndarray] | None:
    """Return the digest of a file and the thumbnail of its image; None if it cannot be read."""
    try:
        data = read_image_file(path)
        grey = _reduced_jpeg(data)
        if grey is None:
            grey = cv2.cvtColor(decode_image(data, name=path), cv2.COLOR_RGB2GRAY)
    except DataError:
        return None
    return hashlib.blake2b(data, digest_size=16).digest(), cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def _reduced_jpeg(data: bytes) -> np.ndarray | None:
    """Decode a JPEG fast to (H, W) uint8 grey, not much larger than a thumbnail; None if it is none, or damaged."""
    image = open_header(data)
    if image is None or image.format != "JPEG":
        return None
    try:
        image.draft("L", (2 * SIDE, 2 * SIDE))
        return np.asarray(ImageOps.exif_transpose(image).convert("L"))
    except Exception:  # decoders raise errors of any class; `decode_image` says whether the image is damaged
        return None


def _alignments() -> Iterator[np.ndarray]:
    """Yield (2, 3) affine maps from a pixel of the other thumbnail to one of this: as it is, cropped, and mirrored."""
    corners = [(0.95, 0.025 * x, 0.025 * y) for x in range(3) for y in range(3)]
    for mirror in (False, True):
        for scale, x, y in [(1, 0, 0), *corners, (0.9, 0.05, 0.05)]:
            shift_x, shift_y = (SIDE * offset + scale / 2 - 0.5 for offset in (x, y))
            row = (-scale, 0, SIDE - 1 - shift_x) if mirror else (scale, 0, shift_x)
            yield np.array([row, (0, scale, shift_y)], np.float32)


ALIGNMENTS = tuple(_alignments())
ALL = np.full((SIDE, SIDE), 255, np.uint8)  # pixels


def warped(thumbnail: np.ndarray, alignment: np.ndarray) -> np.ndarray:
    """Return a thumbnail moved by an affine map, with the nearest pixels where it has none."""
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(thumbnail, alignment, (SIDE, SIDE), flags=flags, borderMode=cv2.BORDER_REPLICATE)


def compare(first: np.ndarray, second: np.ndarray, alignment: np.ndarray) -> tuple[float, float]:
    """Return how much two thumbnails differ once `first` is aligned to `second`, and their change of brightness >= 1.

    The alignment starts with `alignment`; the difference is that of `_difference`, infinite if they cannot be aligned.
    """
    try:
        criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 20, 1e-4)
        _, refined = cv2.findTransformECC(second, first, alignment.copy(), cv2.MOTION_AFFINE, criteria, ALL, 3)
    except cv2.error:  # the alignment does not converge
        return np.inf, 1.0
    covered = cv2.erode(_inside(refined), np.ones((3, 3), np.uint8), borderValue=0) > 0
    if np.abs((refined - alignment) / (1, 1, SIDE)).max() > MAX_DISTORTION or covered.mean() < MIN_OVERLAP:
        return np.inf, 1.0
    ours, theirs = (cv2.GaussianBlur(image, (0, 0), 1).astype(np.float32) for image in (warped(first, refined), second))
    return min(_difference(ours, theirs, covered), _difference(theirs, ours, covered))


def _inside(alignment: np.ndarray) -> np.ndarray:
    """Return (96, 96) uint8, 1 where an aligned thumbnail has pixels."""
    return (cv2.warpAffine(ALL, alignment, (SIDE, SIDE), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP) > 250).astype(
        np.uint8
    )


def _difference(image: np.ndarray, target: np.ndarray, covered: np.ndarray) -> tuple[float, float]:
    """Return the largest difference between two aligned images after a linear change of brightness, and that change.

    1 is about what the residual error of the alignment, compression and scaling leave, which is more along edges. Where
    a colour may be clipped, nothing is compared. The change is the factor, or its inverse if it is below 1.
    """
    usable = covered & (np.minimum(image, target) > DARK) & (np.maximum(image, target) < BRIGHT)
    if usable.mean() < 0.1:
        return np.inf, 1.0
    x, y = image[usable], target[usable]
    gain = float(((x - x.mean()) * (y - y.mean())).mean() / max(float(x.var()), 1.0))
    predicted = y.mean() + gain * (image - x.mean())
    clipped = (predicted < DARK) | (np.maximum(predicted, np.maximum(image, target)) > BRIGHT)
    usable = covered & (cv2.dilate(clipped.astype(np.uint8), np.ones((3, 3), np.uint8)) == 0)
    if gain <= 0 or usable.mean() < 0.1:
        return np.inf, 1.0
    difference = np.where(usable, target - predicted, 0)
    difference = np.where(usable, difference - cv2.GaussianBlur(difference, (0, 0), SIDE / 8), 0)
    slopes = np.hypot(*(cv2.Sobel(target, cv2.CV_32F, dx, 1 - dx, scale=0.125) for dx in (1, 0)))
    expected = 4 + 0.15 * cv2.blur(slopes, (3, 3))
    contrast = max(float(target[covered].std()) / 50, 0.2)
    return float((np.abs(cv2.blur(difference, (3, 3))) / expected).max()) / contrast, max(gain, 1 / gain)
