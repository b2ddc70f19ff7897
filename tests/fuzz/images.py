"""Images and videos."""

from __future__ import annotations

import contextlib
import io
import random
import struct
import warnings
import zlib
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageFile

from tests.fuzz.isolation import Limits, WrongResultError
from tests.fuzz.kind import Bases, Kind, no_bases
from tests.fuzz.mutation import mutate_bytes, pick
from tests.helpers.damaged_images import JPEG, PNG, damaged, image_files, png_chunk
from utils.datasets.image_size import intact_size
from utils.datasets.images import read_image
from utils.datasets.streams import ReconnectPolicy
from utils.datasets.videos import read_video
from utils.errors import DataError

SUFFIXES = {"jpeg": "jpg", "png": "png", "bmp": "bmp", "webp": "webp", "tiff": "tif", "gif": "gif"}
PIXEL_TOLERANCE = 12  # decoders round differently, most in CMYK


def mutate_image(bases: Bases, rng: random.Random) -> tuple[str, bytes]:
    """Return a damaged image, often with checksums that are right again."""
    numbers = np.random.default_rng(rng.getrandbits(63))
    kind, data = rng.choice(list(image_files(numbers).items()))
    for _ in range(pick(rng, 0, 1, 1, 1, 2)):
        data = damaged(data, numbers) if rng.random() < 0.7 else mutate_bytes(data, rng)
    if kind.startswith("png") and rng.random() < 0.5:
        data = _with_checksums(data, rng)
    return f"case.{SUFFIXES[kind.split()[0]]}", data


def _with_checksums(data: bytes, rng: random.Random) -> bytes:
    """Return a PNG, its header changed at times, whose chunks have the right checksums."""
    chunks, position = [], 8
    while position + 12 <= len(data):
        size = int.from_bytes(data[position : position + 4], "big")
        chunks.append((data[position + 4 : position + 8], data[position + 8 : position + 8 + size]))
        position += 12 + size
    if chunks and chunks[0][0] == b"IHDR" and len(chunks[0][1]) == 13 and rng.random() < 0.5:
        header = list(struct.unpack(">IIBBBBB", chunks[0][1]))
        place = rng.randrange(7)
        header[place] = pick(rng, 0, 1, 2, 3, 4, 6, 8, 16, *((1000, 30_000, 2**31 - 1) if place < 2 else (255,)))
        chunks[0] = (b"IHDR", struct.pack(">IIBBBBB", *header))
    return data[:8] + b"".join(png_chunk(kind, content) for kind, content in chunks)


def check_image(path: Path) -> None:
    """Read an image and compare it with Pillow's reading; the size without decoding must be that of the pixels."""
    data = path.read_bytes()
    claimed = intact_size(data)
    try:
        pixels = read_image(path)
    except DataError:
        # `intact_size` believes the checksums of a PNG's compressed pixels.
        if claimed is not None and not data.startswith(PNG):
            raise WrongResultError(f"intact, of size {claimed}, but cannot be read") from None
        raise
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise WrongResultError(f"pixels of shape {pixels.shape}")
    if claimed is not None and claimed != pixels.shape[:2]:
        raise WrongResultError(f"size {claimed}, pixels {pixels.shape}")
    try:
        with warnings.catch_warnings():
            expected = _pillow(data)
    except Exception as error:  # decoders raise anything
        if _metadata_are_damaged(data):
            return
        raise WrongResultError(f"read as {pixels.shape}, but Pillow finds: {str(error)[:80]}") from error
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = False  # it concerns the program's own reading too
    # Where EXIF is damaged, decoders differ in the orientation that they find in it.
    turned = [np.rot90(side, k) for side in (expected, expected[:, ::-1]) for k in range(4)] if b"Exif" in data else []
    same_shape = [image for image in (expected, *turned) if image.shape == pixels.shape]
    if not same_shape:
        raise WrongResultError(f"read as {pixels.shape}, by Pillow as {expected.shape}")
    difference = min(int(np.abs(pixels.astype(int) - image).max()) for image in same_shape)
    if difference > PIXEL_TOLERANCE:
        raise WrongResultError(f"pixels differ from Pillow's by up to {difference}")


def _metadata_are_damaged(data: bytes) -> bool:
    """Return whether a PNG has damaged chunks that do not concern the pixels, for which Pillow refuses it."""
    position, pixels, damage = 8, True, False
    while data.startswith(PNG) and position + 12 <= len(data):
        size = int.from_bytes(data[position : position + 4], "big")
        kind, content = data[position + 4 : position + 8], data[position + 8 : position + 8 + size]
        right = data[position + 8 + size : position + 12 + size] == zlib.crc32(kind + content).to_bytes(4, "big")
        pixels &= right or kind not in (b"IHDR", b"PLTE", b"IDAT")
        damage |= kind not in (b"IHDR", b"PLTE", b"IDAT", b"IEND")  # wrong within, if its checksum is right
        position += 12 + size
    return pixels and damage


def _pillow(data: bytes) -> np.ndarray:
    """Return what Pillow reads, (H, W, 3) in RGB on black; what a JPEG lacks is grey, as libjpeg fills it."""
    orientation = 1
    ImageFile.LOAD_TRUNCATED_IMAGES = data.startswith(JPEG)
    warnings.simplefilter("ignore")  # those of the program have been counted
    with Image.open(io.BytesIO(data)) as image:
        with contextlib.suppress(Exception):  # damaged metadata do not count
            orientation = image.getexif().get(0x0112, 1)
        if image.mode[0] in "IF":
            array = (np.asarray(image).astype(np.float64) / 257).round().clip(0, 255).astype(int)
            array = np.repeat(array[..., None], 3, 2)
        else:
            rgba = np.asarray(image.convert("RGBA")).astype(int)
            array = (rgba[..., :3] * rgba[..., 3:] + 127) // 255
    if orientation in (5, 6, 7, 8):
        array = array.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return array


CODECS = {"mjpg.avi": "MJPG", "mp4v.mp4": "mp4v", "mp4v.mkv": "mp4v", "mp4v.mov": "mp4v", "mpg1.mpg": "PIM1"}
FRAMES, VIDEO_HW = 12, (48, 64)


def video_bases(folder: Path, quick: bool) -> Bases:
    """Return a video in each container that OpenCV can write here, and a GIF."""
    bases: dict[str, bytes] = {}
    frames = [np.full((*VIDEO_HW, 3), 20 * index + 10, np.uint8) for index in range(FRAMES)]
    for index, frame in enumerate(frames):
        frame[8:24, 3 * index : 3 * index + 16] = (40, 200, 90)
    for name, codec in CODECS.items():
        path = folder / name
        writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), 10, VIDEO_HW[::-1])
        for frame in frames:
            writer.write(frame)
        writer.release()
        if path.exists() and path.stat().st_size:
            bases[name] = path.read_bytes()
    buffer = io.BytesIO()
    images = [Image.fromarray(frame) for frame in frames]
    images[0].save(buffer, "GIF", save_all=True, append_images=images[1:])
    return {**bases, "case.gif": buffer.getvalue()}


def mutate_video(bases: Bases, rng: random.Random) -> tuple[str, bytes]:
    """Return a damaged video; sometimes it has the suffix of another container."""
    name, data = rng.choice(list(bases.items()))
    suffix = Path(name if rng.random() < 0.9 else rng.choice(list(bases))).suffix
    return f"case{suffix}", mutate_bytes(data, rng)


def check_video(path: Path) -> None:
    """Read all frames: as many as there can be, in order, all of one size."""
    shapes, last = set(), -1
    for count, frame in enumerate(read_video(path, path, number=0, vid_stride=1, policy=ReconnectPolicy()), 1):
        if frame.image.dtype != np.uint8 or frame.image.ndim != 3 or frame.image.shape[2] != 3 or not frame.image.size:
            raise WrongResultError(f"a frame of shape {frame.image.shape}")
        if frame.index <= last or not 0 < frame.fps < 1e6 or count > 20 * FRAMES:
            raise WrongResultError(f"frame {frame.index} after {last}, the {count}th, at {frame.fps} per second")
        shapes.add(frame.image.shape)
        last = frame.index
    if not shapes:
        raise WrongResultError("no frames and no error")


KINDS = (
    Kind(
        name="images",
        cases=2000,
        quick=70,
        batch=50,
        prepare=no_bases,
        mutate=mutate_image,
        check=check_image,
        limits=Limits(megabytes=1200),
    ),
    Kind(name="videos", cases=500, quick=15, batch=10, prepare=video_bases, mutate=mutate_video, check=check_video),
)
