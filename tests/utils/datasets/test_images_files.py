"""Image files: names, truncated and damaged content, suffixes, and writing."""

import os

import numpy as np
import pytest

from tests.helpers.encoded_images import HEIGHT, WIDTH, encoded, max_difference, smooth_pixels
from utils.datasets.image_writing import write_image
from utils.datasets.images import IMAGE_SUFFIXES, has_suffix, read_image
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
