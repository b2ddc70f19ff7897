"""The embedded data set, drawn by this program: see data/shapes.yaml.

A class is the shape of a curve; colour, size, thickness and angle are random, so that only the shape identifies it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np

from utils.boxes import pairwise_iou
from utils.datasets.config import SPLITS, DataConfig
from utils.errors import ConfigError
from utils.folders import atomic_write_folder
from utils.log import LOGGER

VERSION = 2
MARKER = "shapes.json"
SIZES_WH = ((320, 256), (320, 288), (256, 320), (320, 240))
MAX_OBJECTS = 8
MAX_OVERLAP = 0.25
MIN_SIZE, MAX_SIZE = 18.0, 130.0
JPEG_QUALITY = 92
Curves = list[np.ndarray]
Shape = Callable[[np.random.Generator], Curves]


def _ring(rng: np.random.Generator) -> Curves:
    angle = np.linspace(0, 2 * math.pi, 61)
    return [np.stack((np.cos(angle), rng.uniform(0.45, 1) * np.sin(angle)), 1)]


def _cross(rng: np.random.Generator) -> Curves:
    lean = rng.uniform(-0.25, 0.25)
    return [np.array([(-1.0, 0.0), (1.0, 0.0)]), np.array([(lean, -1.0), (-lean, 1.0)])]


def _arc(rng: np.random.Generator) -> Curves:
    angle = np.linspace(0, rng.uniform(0.8, 1.3) * math.pi, 41)
    return [np.stack((np.cos(angle), np.sin(angle)), 1)]


def _wave(rng: np.random.Generator) -> Curves:
    x = np.linspace(-1, 1, 61)
    return [np.stack((x, rng.uniform(0.2, 0.4) * np.sin(rng.uniform(2, 3) * math.pi * x)), 1)]


def _star(rng: np.random.Generator) -> Curves:
    corners = 2 * int(rng.integers(4, 7))
    angle = np.linspace(0, 2 * math.pi, corners + 1)
    radius = np.where(np.arange(corners + 1) % 2 == 0, 1.0, rng.uniform(0.35, 0.55))
    return [np.stack((radius * np.cos(angle), radius * np.sin(angle)), 1)]


def _spiral(rng: np.random.Generator) -> Curves:
    angle = np.linspace(0, rng.uniform(3.5, 5) * math.pi, 101)
    radius = 0.1 + 0.9 * angle / angle[-1]
    return [np.stack((radius * np.cos(angle), radius * np.sin(angle)), 1)]


DRAW: dict[str, Shape] = {
    **{"ring": _ring, "cross": _cross, "arc": _arc, "wave": _wave, "star": _star, "spiral": _spiral}
}


def ensure_shapes(config: DataConfig) -> None:
    """Draw the embedded data set, unless it exists with the settings of this yaml. Do nothing for other data sets.

    Raises:
        ConfigError: the yaml's generator settings are invalid, or its folder contains something else.
        RunError: the folder cannot be written.
    """
    if config.generator is None:
        return
    folder = config.roots[0]
    unknown = [name for name in config.names if name not in DRAW]
    counts = {split: config.generator.get(split) for split in SPLITS}
    values = [config.generator.get("seed"), *counts.values()]
    if unknown or any(isinstance(value, bool) or not isinstance(value, int) or value < 0 for value in values):
        what = f"has invalid generator settings ({config.generator})"
        raise ConfigError(config.file, what, fix=f"use the names {', '.join(DRAW)}")
    settings = {"version": VERSION, "seed": config.generator["seed"], **counts, "names": list(config.names)}
    marker = folder / MARKER
    if marker.is_file() and json.loads(marker.read_text(encoding="utf-8")) == settings:
        return
    if folder.exists() and not marker.is_file():
        raise ConfigError(config.file, f"{folder} exists and was not drawn by this program", fix="change `path`")
    LOGGER.info(f"Drawing the embedded data set into {folder}")
    atomic_write_folder(folder, _files(settings, config))


def _files(settings: dict[str, Any], config: DataConfig) -> Iterator[tuple[str, bytes]]:
    yield MARKER, (json.dumps(settings, indent=1) + "\n").encode()
    for split_index, split in enumerate(SPLITS):
        for index in range(settings[split]):
            rng = np.random.Generator(np.random.Philox(np.random.SeedSequence((settings["seed"], split_index, index))))
            image, rows = draw_image(rng, config.names)
            bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
            encoded = cv2.imencode(".jpg", bgr, (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))[1]
            labels = "".join(f"{int(row[0])} " + " ".join(f"{v:.6f}" for v in row[1:]) + "\n" for row in rows)
            yield f"images/{split}/{index:04d}.jpg", encoded.tobytes()
            yield f"labels/{split}/{index:04d}.txt", labels.encode()


def draw_image(rng: np.random.Generator, names: tuple[str, ...]) -> tuple[np.ndarray, list[tuple[float, ...]]]:
    """Draw one image, (H, W, 3) uint8 RGB, and return it with its normalized rows of class id, cx, cy, w, h."""
    width, height = SIZES_WH[int(rng.integers(len(SIZES_WH)))]
    canvas = _background(rng, height, width)
    boxes: list[np.ndarray] = []
    class_ids: list[int] = []
    for _ in range(int(rng.integers(2, MAX_OBJECTS + 1))):
        class_id = int(rng.integers(len(names)))
        mask = _stroke(rng, DRAW[names[class_id]], height, width)
        box = _bounds(mask)
        if box is None or (boxes and pairwise_iou(box[None], np.stack(boxes)).max() > MAX_OVERLAP):
            continue
        colour = _contrasting(rng, canvas[mask > 127].mean(0))
        left, top, drawn_width, drawn_height = cv2.boundingRect(mask)
        part = np.s_[top : top + drawn_height, left : left + drawn_width]
        alpha = mask[part][..., None].astype(np.float32) / 255
        canvas[part] = canvas[part] * (1 - alpha) + colour * alpha
        boxes.append(box)
        class_ids.append(class_id)
    noisy = canvas + 5 * rng.standard_normal(canvas.shape, dtype=np.float32)
    rows: list[tuple[float, ...]] = [
        (class_id, (x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
        for class_id, (x1, y1, x2, y2) in zip(class_ids, boxes, strict=True)
    ]
    return noisy.clip(0, 255).astype(np.uint8), rows


def _background(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return a textured background, (H, W, 3) float32: coarse and fine blobs, and thin straight lines."""
    background = np.full((height, width, 3), rng.uniform(70, 185, 3), np.float32)
    for cells, strength in ((5, 38), (24, 16)):
        blobs = rng.normal(0, strength, (cells, cells, 3)).astype(np.float32)
        background += cv2.resize(blobs, (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(int(rng.integers(4, 12))):
        start, end = (tuple(int(v) for v in rng.integers(0, (width, height))) for _ in range(2))
        cv2.line(background, start, end, rng.uniform(30, 225, 3).tolist(), 1, cv2.LINE_8)
    return background


def _stroke(rng: np.random.Generator, draw: Shape, height: int, width: int) -> np.ndarray:
    """Return the (H, W) uint8 mask of one curve with random position, size, rotation and aspect ratio."""
    size = math.exp(rng.uniform(math.log(MIN_SIZE), math.log(MAX_SIZE)))
    angle = rng.uniform(0, 2 * math.pi)
    aspect = rng.uniform(0.7, 1)
    rotation = np.array([(math.cos(angle), -math.sin(angle)), (math.sin(angle), math.cos(angle))])
    centre = rng.uniform((0.08 * width, 0.08 * height), (0.92 * width, 0.92 * height))
    thickness = int(rng.integers(2, 3 + round(size / 30)))
    mask = np.zeros((height, width), np.uint8)
    for curve in draw(rng):
        points = (curve * (1, aspect) * size / 2) @ rotation.T + centre
        fixed_point = (points * 16).round().astype(np.int32)
        cv2.polylines(mask, [fixed_point.reshape(-1, 1, 2)], False, 255, thickness, cv2.LINE_AA, shift=4)
    return mask


def _bounds(mask: np.ndarray) -> np.ndarray | None:
    """Return the xyxy bounding box of a mask, or None if it has fewer than 8 rows or columns."""
    rows, columns = np.flatnonzero((mask > 127).any(1)), np.flatnonzero((mask > 127).any(0))
    if len(rows) < 8 or len(columns) < 8:
        return None
    return np.array((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1), np.float32)


def _contrasting(rng: np.random.Generator, background: np.ndarray) -> np.ndarray:
    """Return a colour that differs from the background by more than 60 levels in some channel."""
    while True:
        colour = rng.uniform(10, 245, 3)
        if np.abs(colour - background).max() > 60:
            return colour.astype(np.float32)
