"""A small image and its encoded forms, for the tests of reading images."""

import io

import cv2
import numpy as np
from PIL import Image

HEIGHT, WIDTH = 36, 52


def smooth_pixels():
    """A smooth (HEIGHT, WIDTH, 3) uint8 image that equals none of its mirror images."""
    noise = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)


def encoded(pixels, file_format, **options):
    """Return the bytes of an image file, written by Pillow."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, file_format, **options)
    return buffer.getvalue()


def max_difference(image, other):
    """Return the largest absolute difference of two uint8 images."""
    return np.abs(image.astype(int) - np.asarray(other).astype(int)).max()
