"""Decoding: pixel formats, bit depths, alpha and orientation."""

import io
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.helpers.encoded_images import HEIGHT, WIDTH, encoded, max_difference, smooth_pixels
from utils.datasets import images
from utils.datasets.images import decode_image, read_image, to_rgb8


@pytest.fixture
def pixels():
    return smooth_pixels()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("suffix", "options"), [(".jpg", {"quality": 95, "subsampling": 0}), (".png", {}), (".webp", {"lossless": True})]
)
def test_exif_orientation_is_applied_as_by_pillow(tmp_path, pixels, suffix, options, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = tmp_path / f"a{suffix}"
    Image.fromarray(pixels).save(file, exif=exif, **options)
    with Image.open(file) as opened:
        upright = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    image = read_image(file)
    assert image.shape == upright.shape == ((HEIGHT, WIDTH, 3) if orientation < 5 else (WIDTH, HEIGHT, 3))
    assert max_difference(image, upright) <= 3


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_every_png_mode_reads_as_rgb(tmp_path, pixels, mode):
    original = Image.fromarray(pixels).convert(mode)
    original.save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.shape == (HEIGHT, WIDTH, 3) and image.dtype == np.uint8 and image.flags.c_contiguous
    assert max_difference(image, original.convert("RGB")) == 0


def test_cmyk_and_grey_jpeg_read_as_rgb(tmp_path, pixels):
    for mode in ("CMYK", "L"):
        Image.fromarray(pixels).convert(mode).save(tmp_path / "a.jpg", quality=100, subsampling=0)
        image = read_image(tmp_path / "a.jpg")
        assert image.shape == (HEIGHT, WIDTH, 3) and image.dtype == np.uint8
        with Image.open(tmp_path / "a.jpg") as opened:
            assert max_difference(image, opened.convert("RGB")) <= 3


def test_sixteen_bits_become_eight(tmp_path, pixels):
    cv2.imwrite(str(tmp_path / "colour.png"), pixels[..., ::-1].astype(np.uint16) * 257)
    ramp = np.arange(0, 65536, 4, dtype=np.uint16).reshape(128, 128)[:, :100]
    cv2.imwrite(str(tmp_path / "grey.png"), ramp)
    image = read_image(tmp_path / "grey.png")
    assert image.shape == (128, 100, 3) and image.dtype == np.uint8
    assert np.abs(image[..., 0] - ramp / 257).max() <= 1
    assert max_difference(read_image(tmp_path / "colour.png"), pixels) <= 1


# Position in the stored image, of h rows and w columns, of the pixel at row r and column c of the upright image.
STORED_POSITION = {
    1: lambda r, c, h, w: (r, c),
    2: lambda r, c, h, w: (r, w - 1 - c),
    3: lambda r, c, h, w: (h - 1 - r, w - 1 - c),
    4: lambda r, c, h, w: (h - 1 - r, c),
    5: lambda r, c, h, w: (c, r),
    6: lambda r, c, h, w: (h - 1 - c, r),
    7: lambda r, c, h, w: (h - 1 - c, w - 1 - r),
    8: lambda r, c, h, w: (c, w - 1 - r),
}


def reference_pixels(stored, white, orientation=1):
    """The upright image in 8 bits, composited on black, one pixel at a time."""
    h, w = stored.shape[:2]
    stored = stored.reshape(h, w, -1)
    rows, columns = (h, w) if orientation < 5 else (w, h)
    upright = np.zeros((rows, columns, 3))
    for r in range(rows):
        for c in range(columns):
            *colour, alpha = [float(v) / white for v in stored[STORED_POSITION[orientation](r, c, h, w)]]
            if stored.shape[2] in (1, 3):
                colour, alpha = [*colour, alpha], 1
            upright[r, c] = [max(value, 0) * alpha * 255 for value in (colour * 3)[:3]]
    return upright


def with_orientation(image, kind, orientation, **options):
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, kind, exif=exif, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("PNG", "RGBA", {}),
        ("PNG", "LA", {}),
        ("WEBP", "RGBA", {"lossless": True, "exact": True}),
        ("TIFF", "RGB", {}),
        ("TIFF", "RGBA", {"compression": "tiff_lzw"}),
        ("TIFF", "L", {"compression": "tiff_adobe_deflate"}),
    ],
)
def test_alpha_is_composited_on_black_and_every_format_is_rotated_upright(pixels, kind, mode, options, orientation):
    alpha = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 1), dtype=np.uint8)
    alpha[:8], alpha[8:16] = 0, 255
    stored = Image.fromarray(np.concatenate((pixels, alpha), 2)).convert(mode)
    image = decode_image(with_orientation(stored, kind, orientation, **options), name="a")
    assert np.abs(image - reference_pixels(np.asarray(stored), 255, orientation)).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_sixteen_bits_are_divided_by_257_and_rotated_upright(suffix, channels, orientation):
    stored = np.random.default_rng(2).integers(0, 65536, (7, 11, channels), dtype=np.uint16)
    stored[0], stored[1] = 0, 65535
    data = cv2.imencode(suffix, stored[..., [2, 1, 0, 3][:channels]] if channels > 1 else stored)[1].tobytes()
    if suffix == ".tiff":
        data = set_tiff_orientation(data, orientation)
    else:  # a PNG chunk: length, name, content, checksum, after the 33 bytes of the header
        chunk = b"eXIf" + b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0" + bytes([orientation]) + bytes(6)
        chunk = (len(chunk) - 4).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
        data = data[:33] + chunk + data[33:]
    image = decode_image(data, name="a")
    assert np.abs(image - reference_pixels(stored, 65535, orientation)).max() <= (0.5 + 1e-6 if channels < 4 else 1.5)


def set_tiff_orientation(data, orientation):
    """Replace an unused tag of a TIFF, software or resolution unit, by the orientation."""
    start = int.from_bytes(data[4:8], "little")
    count = int.from_bytes(data[start : start + 2], "little")
    entries = [data[start + 2 + 12 * i : start + 14 + 12 * i] for i in range(count)]
    entries = [e for e in entries if int.from_bytes(e[:2], "little") not in (0x0112, 305, 296)]
    entries.append(b"\x12\x01\x03\0\x01\0\0\0" + bytes([orientation, 0, 0, 0]))
    entries.sort(key=lambda e: int.from_bytes(e[:2], "little"))
    table = len(entries).to_bytes(2, "little") + b"".join(entries) + bytes(4)
    return data[:4] + len(data).to_bytes(4, "little") + data[8:] + table


@pytest.mark.parametrize("scale", [1, 255, 65535, 1e6])
@pytest.mark.parametrize("channels", [1, 3])
def test_white_level_of_floating_point_follows_from_its_range(channels, scale):
    stored = (np.random.default_rng(3).random((7, 11, channels)) * scale).astype(np.float32)
    stored[0, 0], stored[0, 1] = scale, -scale
    for suffix in (".tiff", ".pfm"):
        data = cv2.imencode(suffix, stored[..., ::-1] if channels > 1 else stored)[1].tobytes()
        assert np.abs(decode_image(data, name="a") - reference_pixels(stored, scale)).max() <= 0.5 + 1e-3
    stored[2], stored[3], stored[4] = np.nan, np.inf, -np.inf
    assert (to_rgb8(stored)[2:5] == 0).all() and to_rgb8(stored)[0, 0].tolist() == [255] * 3


def test_cmyk_and_ycck_jpeg_equal_those_of_opencv(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert("CMYK").save(buffer, "JPEG", quality=100, subsampling=0)
    data = bytearray(buffer.getvalue())
    transform = data.index(b"Adobe") + 11
    for kind in (0, 2):  # as stored, and as luminance, chroma and black
        data[transform] = kind
        expected = cv2.imdecode(np.frombuffer(bytes(data), np.uint8), cv2.IMREAD_COLOR_RGB)
        assert max_difference(decode_image(bytes(data), name="a"), expected) <= 3 and expected.std() > 5


@pytest.mark.parametrize(
    ("kind", "options"), [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("TIFF", {"compression": "group4"})]
)
def test_one_bit_is_black_and_white(pixels, kind, options):
    bits = pixels[..., 0] > 128
    image = decode_image(encoded(bits, kind, **options), name="a")
    assert max_difference(image, bits[..., None].repeat(3, 2) * 255) == 0


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_transparent_colour_of_a_palette_is_composited_on_black(pixels, kind):
    stored = Image.fromarray(pixels).convert("P", palette=Image.Palette.ADAPTIVE, colors=16)
    indices = np.asarray(stored)
    expected = np.asarray(stored.convert("RGB")).copy()
    expected[indices == 5] = 0
    buffer = io.BytesIO()
    stored.save(buffer, kind, transparency=5, optimize=False)
    assert max_difference(decode_image(buffer.getvalue(), name="a"), expected) == 0


def test_transparent_colour_without_a_palette_is_composited_on_black(pixels):
    key = tuple(int(v) for v in pixels[3, 4])
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", transparency=key)
    expected = pixels.copy()
    expected[(pixels == key).all(2)] = 0
    assert max_difference(decode_image(buffer.getvalue(), name="a"), expected) == 0


def test_first_image_of_an_mpo_is_read(tmp_path, pixels):
    first, second = Image.fromarray(pixels), Image.fromarray(255 - pixels)
    first.save(tmp_path / "a.mpo", save_all=True, append_images=[second], quality=100, subsampling=0)
    with Image.open(tmp_path / "a.mpo") as opened:
        assert (opened.format, opened.n_frames) == ("MPO", 2)
    assert max_difference(read_image(tmp_path / "a.mpo"), pixels) <= 8


def test_alpha_is_warned_about_once(pixels, caplog):
    images._warn_about_alpha.cache_clear()
    data = encoded(np.concatenate((pixels, pixels[..., :1] // 2), 2), "PNG")
    for _ in range(3):
        decode_image(data, name="a")
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_eight_threads_decode_the_same_as_one(pixels):
    kinds = [encoded(pixels, kind) for kind in ("JPEG", "PNG", "TIFF", "WEBP")]
    kinds.append(encoded(np.concatenate((pixels, pixels[..., :1]), 2), "PNG"))
    alone = [decode_image(data, name="a") for data in kinds]
    filters = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        for decoded in pool.map(lambda _: [decode_image(data, name="a") for data in kinds], range(64)):
            assert all((a == b).all() for a, b in zip(alone, decoded, strict=True))
    assert warnings.filters == filters


@pytest.mark.parametrize("shape", [(0, 5, 3), (4, 5, 7), (5,), (1, 2, 3, 4)])
def test_an_array_that_is_not_an_image_is_refused(shape):
    with pytest.raises(ValueError) as caught:
        to_rgb8(np.zeros(shape, np.uint8))
    assert str(shape) in str(caught.value)
