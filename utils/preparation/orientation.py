"""Brings annotations and images into one orientation: cameras store a rotation in EXIF that not every tool applies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from utils.datasets.convert.annotated import AnnotatedImage, AnnotatedSet, Label
from utils.datasets.convert.layout import Source, image_header
from utils.datasets.images import FIRST_TRANSPOSED
from utils.errors import DataError

BOX_VALUES = 4


def orient(found: AnnotatedSet, source: Source) -> None:
    """Rotate the labels of images that were annotated as stored, and leave out files that are not images.

    This program, as most, shows images rotated as EXIF says. If the size in an annotation is that of the stored image
    and not of the rotated one, its coordinates are of the stored image too. Sizes that are neither are counted only:
    normalized coordinates stay right when an image has been scaled.
    """
    images = []
    for image in source.track(found.images, "Checking sizes"):
        if image.size_wh is None:
            images.append(image)
            continue
        try:
            stored, orientation = image_header(source.files, image.file)
        except DataError:
            found.report["files that are not images skipped"] += 1
            continue
        shown = stored[::-1] if orientation >= FIRST_TRANSPOSED else stored
        if image.size_wh != shown and image.size_wh == stored:
            found.report["images whose labels were rotated as EXIF says"] += 1
            image = _rotated(image, orientation)
        elif image.size_wh != shown:
            found.report["images of another size than their annotation says"] += 1
        images.append(image)
    found.images = images


def _rotated(image: AnnotatedImage, orientation: int) -> AnnotatedImage:
    return replace(image, labels=[Label(name, rotate(values, orientation)) for name, values in image.labels])


def rotate(values: Sequence[float], orientation: int) -> list[float]:
    """Return the normalized values of a box or polygon after a transposing EXIF orientation, from 5 to 8."""
    if len(values) == BOX_VALUES:
        (cx, cy), (width, height) = _rotate_point(values[0], values[1], orientation), values[2:]
        return [cx, cy, height, width]
    pairs = zip(values[::2], values[1::2], strict=True)
    return [value for x, y in pairs for value in _rotate_point(x, y, orientation)]


def _rotate_point(x: float, y: float, orientation: int) -> tuple[float, float]:
    return {5: (y, x), 6: (1 - y, x), 7: (1 - y, 1 - x), 8: (y, 1 - x)}[orientation]
