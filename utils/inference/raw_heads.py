"""Decode a head's raw maps, as NPUs return them from files of `export.py --raw-heads`.

This file needs NumPy only: it may be copied to a board by itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def decode_heads(
    maps: Sequence[np.ndarray], *, anchors: Sequence[Sequence[Sequence[float]]], strides: Sequence[int]
) -> np.ndarray:
    """Decode the raw maps of all levels to predictions, as the other exported files return them.

    Args:
        maps: of each level (B, A (5 + classes), h, w), floating-point, in the order of the file's outputs.
        anchors: of each level, A pairs of width and height in pixels.
        strides: pixels per cell of each level; `anchors` and `strides` are in the `.json` beside the file.

    Returns:
        (B, n, 5 + classes) float32: cx, cy, w, h in pixels of the network's input, objectness and class probabilities;
        n counts levels, then anchors, rows and columns.

    Raises:
        ValueError: the number of levels or channels does not fit.
    """
    if not len(maps) == len(anchors) == len(strides):
        raise ValueError(f"{len(maps)} maps, {len(anchors)} lists of anchors and {len(strides)} strides")
    levels = zip(maps, anchors, strides, strict=True)
    return np.concatenate([_decode_level(np.asarray(raw), np.array(sizes), s) for raw, sizes, s in levels], 1)


def _decode_level(raw: np.ndarray, anchors: np.ndarray, stride: int) -> np.ndarray:
    """Decode one level."""
    count = len(anchors)
    if raw.ndim != 4 or raw.shape[1] % count or raw.shape[1] // count < 6:
        raise ValueError(f"a map of shape {raw.shape} does not hold 5 numbers and a class for {count} anchors")
    batch, channels, height, width = raw.shape
    raw = raw.astype(np.float32).reshape(batch, count, channels // count, height, width).transpose(0, 1, 3, 4, 2)
    with np.errstate(over="ignore"):  # exp of a large number is infinite, and the probability 0
        probability = 1 / (1 + np.exp(-raw))
    rows, columns = np.mgrid[:height, :width]
    cell = np.stack((columns, rows), -1)
    centre = (probability[..., 0:2] * 2 - 0.5 + cell) * stride
    size = (probability[..., 2:4] * 2) ** 2 * anchors.reshape(count, 1, 1, 2)
    parts = (centre, size, probability[..., 4:])
    return np.concatenate(parts, -1, dtype=np.float32).reshape(batch, -1, channels // count)
