import io
import os

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from utils.datasets.images import IMAGE_SUFFIXES, has_suffix, read_image, write_image
from utils.errors import DataError

HEIGHT, WIDTH = 36, 52


@pytest.fixture
def picture():
    """A smooth (H, W, 3) picture that is like none of its mirror images."""
    noise = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)


def encoded(picture, kind, **options):
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, kind, **options)
    return buffer.getvalue()


def difference(image, other):
    return np.abs(image.astype(int) - np.asarray(other).astype(int)).max()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("suffix", "options"), [(".jpg", {"quality": 95, "subsampling": 0}), (".png", {}), (".webp", {"lossless": True})]
)
def test_exif_orientation_is_applied_as_by_pillow(tmp_path, picture, suffix, options, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = tmp_path / f"a{suffix}"
    Image.fromarray(picture).save(file, exif=exif, **options)
    with Image.open(file) as opened:
        upright = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    image = read_image(file)
    assert image.shape == upright.shape == ((HEIGHT, WIDTH, 3) if orientation < 5 else (WIDTH, HEIGHT, 3))
    assert difference(image, upright) <= 3


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_every_png_mode_reads_as_rgb(tmp_path, picture, mode):
    original = Image.fromarray(picture).convert(mode)
    original.save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.shape == (HEIGHT, WIDTH, 3) and image.dtype == np.uint8 and image.flags.c_contiguous
    assert difference(image, original.convert("RGB")) == 0


def test_cmyk_and_grey_jpeg_read_as_rgb(tmp_path, picture):
    for mode in ("CMYK", "L"):
        Image.fromarray(picture).convert(mode).save(tmp_path / "a.jpg", quality=100, subsampling=0)
        image = read_image(tmp_path / "a.jpg")
        assert image.shape == (HEIGHT, WIDTH, 3) and image.dtype == np.uint8
        with Image.open(tmp_path / "a.jpg") as opened:
            assert difference(image, opened.convert("RGB")) <= 3


def test_sixteen_bits_become_eight(tmp_path, picture):
    cv2.imwrite(str(tmp_path / "colour.png"), picture[..., ::-1].astype(np.uint16) * 257)
    ramp = np.arange(0, 65536, 4, dtype=np.uint16).reshape(128, 128)[:, :100]
    cv2.imwrite(str(tmp_path / "grey.png"), ramp)
    image = read_image(tmp_path / "grey.png")
    assert image.shape == (128, 100, 3) and image.dtype == np.uint8
    assert np.abs(image[..., 0] - ramp / 257).max() <= 1
    assert difference(read_image(tmp_path / "colour.png"), picture) <= 1


def test_transparency_is_dropped_not_blended(tmp_path, picture):
    alpha = np.full((HEIGHT, WIDTH, 1), 100, np.uint8)
    Image.fromarray(np.concatenate((picture, alpha), 2)).save(tmp_path / "a.png")
    assert difference(read_image(tmp_path / "a.png"), picture) == 0


@pytest.mark.parametrize("name", ["中文.png", "a b.png", "🚦 é.png", "line\nbreak.png", b"\xff\xfe.png"])
def test_any_file_name_can_be_read(tmp_path, picture, name):
    file = os.path.join(tmp_path, os.fsdecode(name))
    with open(file, "wb") as opened:
        opened.write(encoded(picture, "PNG"))
    assert difference(read_image(file), picture) == 0


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP", "TIFF"])
def test_truncated_picture_is_refused_wherever_it_ends(tmp_path, picture, kind):
    data = encoded(picture, kind)
    for length in sorted({0, 1, 2, 3, len(data) - 1, *range(4, len(data), len(data) // 25)}):
        (tmp_path / "a.img").write_bytes(data[:length])
        with pytest.raises(DataError):
            read_image(tmp_path / "a.img")


def test_truncated_jpeg_with_a_thumbnail_is_refused(tmp_path, picture):
    thumbnail = encoded(picture[:16, :24], "JPEG")
    whole = encoded(picture, "JPEG", progressive=True)
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    data = whole[:2] + segment + whole[2:]
    (tmp_path / "a.jpg").write_bytes(data)
    assert read_image(tmp_path / "a.jpg").shape == (HEIGHT, WIDTH, 3)
    for length in range(len(segment), len(data) - 1, len(data) // 40):
        (tmp_path / "a.jpg").write_bytes(data[:length])
        with pytest.raises(DataError):
            read_image(tmp_path / "a.jpg")


def test_truncated_jpeg_says_so(tmp_path, picture):
    (tmp_path / "a.jpg").write_bytes(encoded(picture, "JPEG")[:-40])
    with pytest.raises(DataError, match=r"a\.jpg: is truncated \(\d+ bytes, no end marker\)"):
        read_image(tmp_path / "a.jpg")


def test_complete_jpeg_may_have_bytes_after_its_end(tmp_path, picture):
    (tmp_path / "a.jpg").write_bytes(encoded(picture, "JPEG") + b"\0\0camera notes")
    assert read_image(tmp_path / "a.jpg").shape == (HEIGHT, WIDTH, 3)


def test_complete_jpeg_may_have_any_bytes_after_its_end(tmp_path, picture):
    (tmp_path / "a.jpg").write_bytes(encoded(picture, "JPEG") + b"movie\xff\xdamovie")
    assert read_image(tmp_path / "a.jpg").shape == (HEIGHT, WIDTH, 3)


def test_what_is_no_picture_is_a_data_error(tmp_path):
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("no picture at all")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "broken.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    for name in ("empty", "text", "folder", "broken", "loop", "pipe", "missing"):
        with pytest.raises(DataError, match=f"{name}.jpg: .*Fix: "):
            read_image(tmp_path / f"{name}.jpg")


def test_picture_of_another_kind_than_its_suffix_is_read(tmp_path, picture):
    (tmp_path / "a.jpg").write_bytes(encoded(picture, "PNG"))
    assert difference(read_image(tmp_path / "a.jpg"), picture) == 0


def test_damaged_bytes_never_raise_anything_else(tmp_path, picture):
    rng = np.random.default_rng(0)
    for kind in ("JPEG", "PNG", "WEBP"):
        for _ in range(60):
            data = bytearray(encoded(picture, kind))
            for _ in range(int(rng.integers(1, 5))):
                data[int(rng.integers(2, len(data)))] = int(rng.integers(256))
            (tmp_path / "a.img").write_bytes(data)
            try:
                image = read_image(tmp_path / "a.img")
            except DataError:
                continue
            assert image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".PNG"])
def test_written_picture_reads_back(tmp_path, picture, suffix):
    file = write_image(tmp_path / f"ü{suffix}", picture)
    assert difference(read_image(file), picture) == 0


def test_suffixes_are_told_in_any_letter_case():
    assert has_suffix("x/A.JPeG", IMAGE_SUFFIXES) and has_suffix("a.b.png", IMAGE_SUFFIXES)
    assert not has_suffix("a.txt", IMAGE_SUFFIXES) and not has_suffix("png", IMAGE_SUFFIXES)
