"""Files recognised as intact without decoding have the size that decoding finds; no damaged file is recognised."""

import os
import struct
import zlib

import numpy as np
import pytest

from tests.helpers.damaged_images import damaged, image_files, png_chunk
from utils.datasets.image_size import intact_size
from utils.datasets.images import decode_image
from utils.errors import DataError

KINDS = sorted(image_files(np.random.default_rng(0)))
QUICK = "jpeg,jpeg progressive,jpeg grey,jpeg restarts,jpeg progressive restarts,jpeg RGB,jpeg of two,jpeg and more"
ROUNDS = int(os.environ.get("AKCONV_CASES", "32")) // 8


def decoded_size(data: bytes) -> tuple[int, ...] | None:
    try:
        return decode_image(data, name="file").shape[:2]
    except DataError:
        return None


def is_as_decoded(data: bytes) -> bool:
    """Return whether the file is in doubt, or has the size that decoding finds."""
    return intact_size(data) in (None, decoded_size(data))


@pytest.mark.parametrize("kind", KINDS)
def test_the_verdict_on_damaged_files_is_that_of_decoding(kind: str) -> None:
    rng = np.random.default_rng(zlib.crc32(kind.encode()))
    refused = 0
    for _ in range(ROUNDS):
        intact = image_files(rng)[kind]
        assert is_as_decoded(intact)
        for _ in range(24):
            data = damaged(intact, rng)
            data = damaged(data, rng) if len(data) > 100 and rng.random() < 0.2 else data
            assert is_as_decoded(data)
            refused += decoded_size(data) is None
    assert refused >= 2 * ROUNDS


@pytest.mark.parametrize("kind", [*QUICK.split(","), "jpeg rotated", "png", "png grey"])
def test_intact_files_are_recognised(kind: str) -> None:
    rng = np.random.default_rng(1)
    files = [image_files(rng)[kind] for _ in range(12)]
    assert [intact_size(data) for data in files] == [decoded_size(data) for data in files]


@pytest.mark.parametrize("marker", [0x01, 0xC4, 0xCC, 0xD0, 0xD3, 0xD8, 0xD9, 0xDC, 0xFE, 0xFF])
@pytest.mark.parametrize("kind", ["jpeg", "jpeg progressive", "jpeg restarts"])
def test_a_marker_within_the_scan_changes_nothing_of_the_verdict(kind: str, marker: int) -> None:
    rng = np.random.default_rng(marker)
    for _ in range(20):
        data = bytearray(image_files(rng)[kind])
        at = int(rng.integers(data.index(b"\xff\xda") + 14, len(data) - 4))
        data[at : at + 2] = bytes((0xFF, marker))
        assert is_as_decoded(bytes(data))


def test_a_png_with_a_wrong_checksum_too_few_pixels_or_chunks_out_of_order_is_in_doubt() -> None:
    data = image_files(np.random.default_rng(2))["png"]
    header, pixels, end = data[:33], data[33:-12], data[-12:]
    tall = header[:16] + struct.pack(">II", 9000, 3000) + header[24:29]
    text = png_chunk(b"tEXt", b"Raw profile type exif\0")
    doubtful = [
        header[:-1] + bytes([header[-1] ^ 1]) + pixels + end,
        header + pixels[:-1] + bytes([pixels[-1] ^ 1]) + end,
        tall + struct.pack(">I", zlib.crc32(tall[12:])) + pixels + end,
        header + end,
        pixels + header + end,
        header + header[8:] + pixels + end,
        header + pixels + png_chunk(b"tEXt", b"a\0b") + pixels + end,
        header + text + pixels + end,
        header + png_chunk(b"abCd", b"") + pixels + end,
        header + pixels + png_chunk(b"IEND", b"1"),
        data[:-1],
    ]
    assert intact_size(data) and not any(map(intact_size, doubtful))


def test_a_png_that_lacks_a_whole_chunk_of_pixels_is_found_by_decoding_only() -> None:
    data = image_files(np.random.default_rng(3))["png"]
    pixels = data[41:-16]
    halves = png_chunk(b"IDAT", pixels[: len(pixels) // 2]), png_chunk(b"IDAT", pixels[len(pixels) // 2 :])
    assert intact_size(data[:33] + b"".join(halves) + data[-12:]) == decoded_size(data)
    short = data[:33] + halves[0] + data[-12:]
    assert intact_size(short) == decoded_size(data) and decoded_size(short) is None
