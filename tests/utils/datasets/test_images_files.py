"""Image files: names, truncated and damaged content, suffixes, and writing."""

import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, features

from tests.helpers.encoded_images import HEIGHT, WIDTH, encoded, max_difference, smooth_pixels
from utils.datasets.image_writing import write_image
from utils.datasets.images import IMAGE_SUFFIXES, has_suffix, pil_to_rgb8, read_image, to_rgb8
from utils.errors import DataError


@pytest.fixture
def pixels():
    return smooth_pixels()


@pytest.mark.parametrize("name", ["中文.png", "a b.png", "🚦 é.png", "line\nbreak.png", b"\xff\xfe.png"])
def test_any_file_name_can_be_read(tmp_path, pixels, name):
    file = os.path.join(tmp_path, os.fsdecode(name))
    with open(file, "wb") as opened:
        opened.write(encoded(pixels, "PNG"))
    assert max_difference(read_image(file), pixels) == 0


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP", "TIFF"])
def test_image_truncated_anywhere_is_refused(tmp_path, pixels, kind):
    data = encoded(pixels, kind)
    for length in sorted({0, 1, 2, 3, len(data) - 1, *range(4, len(data), len(data) // 25)}):
        (tmp_path / "a.img").write_bytes(data[:length])
        with pytest.raises(DataError):
            read_image(tmp_path / "a.img")


def test_truncated_jpeg_with_a_thumbnail_is_refused(tmp_path, pixels):
    thumbnail = encoded(pixels[:16, :24], "JPEG")
    whole = encoded(pixels, "JPEG", progressive=True)
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    data = whole[:2] + segment + whole[2:]
    (tmp_path / "a.jpg").write_bytes(data)
    assert read_image(tmp_path / "a.jpg").shape == (HEIGHT, WIDTH, 3)
    for length in range(len(segment), len(data) - 1, len(data) // 40):
        (tmp_path / "a.jpg").write_bytes(data[:length])
        with pytest.raises(DataError):
            read_image(tmp_path / "a.jpg")


def test_truncated_jpeg_is_an_error_with_file_and_size(tmp_path, pixels):
    data = encoded(pixels, "JPEG")[:-40]
    (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(DataError) as caught:
        read_image(tmp_path / "a.jpg")
    assert caught.value.where == str(tmp_path / "a.jpg") and f"{len(data)} bytes" in caught.value.what


def test_complete_jpeg_may_have_bytes_after_its_end(tmp_path, pixels):
    (tmp_path / "a.jpg").write_bytes(encoded(pixels, "JPEG") + b"\0\0camera notes")
    assert read_image(tmp_path / "a.jpg").shape == (HEIGHT, WIDTH, 3)


def test_complete_jpeg_may_have_markers_after_its_end(tmp_path, pixels):
    (tmp_path / "a.jpg").write_bytes(encoded(pixels, "JPEG") + b"movie\xff\xdamovie")
    assert read_image(tmp_path / "a.jpg").shape == (HEIGHT, WIDTH, 3)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_file_that_is_not_an_image_is_a_data_error(tmp_path):
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("not an image at all")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "broken.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    for name in ("empty", "text", "folder", "broken", "loop", "pipe", "missing"):
        with pytest.raises(DataError) as caught:
            read_image(tmp_path / f"{name}.jpg")
        assert caught.value.where == str(tmp_path / f"{name}.jpg") and caught.value.fix


def test_image_with_the_wrong_suffix_is_read(tmp_path, pixels):
    (tmp_path / "a.jpg").write_bytes(encoded(pixels, "PNG"))
    assert max_difference(read_image(tmp_path / "a.jpg"), pixels) == 0


@pytest.mark.slow
def test_damaged_bytes_never_raise_other_errors(tmp_path, pixels):
    rng = np.random.default_rng(0)
    for kind in ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"):
        for _ in range(60):
            data = bytearray(encoded(pixels, kind))
            for _ in range(int(rng.integers(1, 5))):
                data[int(rng.integers(2, len(data)))] = int(rng.integers(256))
            (tmp_path / "a.img").write_bytes(data)
            try:
                image = read_image(tmp_path / "a.img")
            except DataError:
                continue
            assert image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".PNG"])
def test_written_image_reads_back(tmp_path, pixels, suffix):
    file = write_image(tmp_path / f"ü{suffix}", pixels)
    assert max_difference(read_image(file), pixels) == 0


def test_suffixes_are_matched_in_any_letter_case():
    assert has_suffix("x/A.JPeG", IMAGE_SUFFIXES) and has_suffix("a.b.png", IMAGE_SUFFIXES)
    assert not has_suffix("a.txt", IMAGE_SUFFIXES) and not has_suffix("png", IMAGE_SUFFIXES)


# Memory


def png_header(width, height, *, depth=8, colour=2):
    """A PNG that says of itself to be so large, with a few bytes of pixels."""

    def chunk(kind, content):
        return struct.pack(">I4s", len(content), kind) + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def tiff_header(width, height, *, samples=3, bits=32):
    """A TIFF of floating-point pixels that says of itself to be so large, without pixels."""
    entries = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, bits), (259, 3, 1, 1), (262, 3, 1, 2)]
    entries += [(273, 4, 1, 8), (277, 3, 1, samples), (278, 4, 1, height), (279, 4, 1, 8), (339, 3, 1, 3)]
    content = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + content + bytes(20)


HOSTILE = {
    "16 bits": png_header(13_000, 13_000, depth=16),
    "pixels": png_header(20_000, 20_000),
    "RGBA of 16 bits": png_header(12_000, 12_000, depth=16, colour=6),
    "16 bits, with a wrong checksum": png_header(13_000, 13_000, depth=16)[:29] + bytes(8) + b"IEND....",
    "float RGB": tiff_header(13_000, 13_000),
    "PFM": b"PF\n13000 13000\n-1.0\n" + bytes(1000),
    "length of a chunk": png_header(64, 48)[:33] + b"\xff\x00\x24\x3bIDAT" + bytes(60),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_an_image_that_would_take_gigabytes_is_refused_before_it_is_decoded(tmp_path, kind, monkeypatch):
    (tmp_path / "a.png").write_bytes(HOSTILE[kind])
    decoders = []
    monkeypatch.setattr("utils.datasets.images.cv2.imdecode", lambda *args: decoders.append(args))
    monkeypatch.setattr("utils.datasets.images.pil_to_rgb8", decoders.append)
    with pytest.raises(DataError):
        read_image(tmp_path / "a.png")
    assert not decoders


def test_a_sparse_file_is_refused_unread(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    os.truncate(tmp_path / "a.jpg", 2**32)
    with pytest.raises(DataError) as caught:
        read_image(tmp_path / "a.jpg")
    assert f"{2**32:,}" in caught.value.what


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "int32", "bool"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_images_are_converted_in_blocks_of_rows_to_the_same_pixels(dtype, channels, monkeypatch):
    rng = np.random.default_rng(0)
    image = (rng.random((37, 11, channels)) * (1 if dtype == "float32" else 2 if dtype == "bool" else 255)).astype(
        dtype
    )
    image[5:20, :, -1] = image.max()
    whole = to_rgb8(image)
    monkeypatch.setattr("utils.datasets.images._BLOCK_PIXELS", 50)
    assert np.array_equal(to_rgb8(image), whole)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "CMYK", "P"])
def test_pillow_images_are_converted_in_blocks_of_rows_to_the_same_pixels(pixels, mode, monkeypatch):
    image = Image.fromarray(pixels).convert(mode)
    if mode in ("RGBA", "LA"):
        image.putalpha(Image.fromarray(pixels[..., 0]))
    whole = pil_to_rgb8(image)
    monkeypatch.setattr("utils.datasets.images._BLOCK_PIXELS", 500)
    assert np.array_equal(pil_to_rgb8(image), whole)


@pytest.mark.parametrize(("suffix", "kind"), [("jfif", "JPEG"), ("JPE", "JPEG"), ("jp2", "JPEG2000"), ("avif", "AVIF")])
def test_other_names_of_jpeg_and_its_successors_are_read(tmp_path, pixels, suffix, kind):
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("needs Pillow with AVIF")
    file = tmp_path / f"a.{suffix}"
    Image.fromarray(pixels).save(file, kind)
    assert has_suffix(file, IMAGE_SUFFIXES) and max_difference(read_image(file), pixels) < 60
    assert write_image(tmp_path / f"b.{suffix}", pixels).exists()
