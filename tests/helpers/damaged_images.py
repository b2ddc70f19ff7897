"""Small image files of many kinds, and random damage to them, in headers, tables, chunks and compressed pixels."""

import io
import struct
import zlib

import cv2
import numpy as np
from PIL import Image

JPEG, PNG = b"\xff\xd8", b"\x89PNG"
CHUNKS = "gAMA cHRM sRGB pHYs tIME sBIT bKGD tEXt zTXt iTXt iCCP hIST PLTE tRNS acTL fcTL eXIf CgBI abCd".split()


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def image_files(rng: np.random.Generator) -> dict[str, bytes]:
    """Return intact files by kind, with random pixels of a random size; most are intact for `image_size` as well."""
    height, width = map(int, rng.integers(12, 70, 2))
    noise = rng.integers(0, 255, (5, 6, 3), dtype=np.uint8)
    image = Image.fromarray(cv2.resize(noise, (width, height)))
    exif, quality = Image.Exif(), int(rng.integers(5, 100))
    exif[0x0112] = int(rng.integers(0, 10))

    def write(kind: str, mode: str = "RGB", **options: object) -> bytes:
        buffer = io.BytesIO()
        image.convert(mode).save(buffer, kind, **({"quality": quality} if kind in ("JPEG", "MPO") else {}), **options)
        return buffer.getvalue()

    files = {
        "jpeg": write("JPEG", subsampling=int(rng.integers(3))),
        "jpeg rotated": write("JPEG", exif=exif),
        "jpeg progressive": write("JPEG", progressive=True, comment=b"comment"),
        "jpeg grey": write("JPEG", "L", optimize=True),
        "jpeg CMYK": write("JPEG", "CMYK"),
        "jpeg restarts": write("JPEG", restart_marker_blocks=int(rng.integers(1, 5))),
        "jpeg progressive restarts": write("JPEG", progressive=True, restart_marker_rows=1),
        "jpeg RGB": write("JPEG", keep_rgb=True, icc_profile=b"profile"),
        "jpeg of two": write("MPO", save_all=True, append_images=[image]),
        "png": write("PNG", compress_level=int(rng.integers(10))),
        "png grey": write("PNG", "L"),
        "png palette": write("PNG", "P"),
        "png alpha": write("PNG", "RGBA"),
        "png bilevel": write("PNG", "1"),
        "png rotated": write("PNG", exif=exif),
        "png transparent colour": write("PNG", transparency=(1, 2, 3)),
        "png 16 bits": cv2.imencode(".png", noise.astype(np.uint16) * 257)[1].tobytes(),
        **{kind.lower(): write(kind) for kind in ("BMP", "WEBP", "TIFF", "GIF")},
    }
    files["jpeg and more"] = files["jpeg"] + rng.bytes(20)
    png, kind = files["png"], str(rng.choice(CHUNKS)).encode()
    at = int(rng.choice([33, len(png) - 12]))  # after the header or before the end
    files["png with a chunk"] = png[:at] + png_chunk(kind, rng.bytes(int(rng.integers(40)))) + png[at:]
    pixels, cut = png[41:-16], int(rng.integers(len(png) - 57))  # of the one chunk of pixels
    between = png_chunk(b"tEXt", b"a\0b") * int(rng.integers(2))
    files["png in pieces"] = (
        png[:33] + png_chunk(b"IDAT", pixels[:cut]) + between + png_chunk(b"IDAT", pixels[cut:]) + png[-12:]
    )
    return files


def segments(data: bytes) -> list[tuple[int, int]]:
    """Return start and end of each segment of a JPEG up to its first scan, or of each chunk of a PNG, if it is one."""
    if not data.startswith((JPEG, PNG)):
        return []
    is_jpeg = data.startswith(JPEG)
    position, found = 2 if is_jpeg else 8, []
    while position + 8 <= len(data) and not (is_jpeg and data[position] != 0xFF):
        size = 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        size = size if is_jpeg else 12 + int.from_bytes(data[position : position + 4], "big")
        found.append((position, min(position + size, len(data))))
        if is_jpeg and data[position + 1] == 0xDA:
            break
        position += size
    return found


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """Return a file with one random damage, but no checksum corrected, and no chunk moved if pixels are in several."""
    file, size = bytearray(data), len(data)

    def anywhere(below: int = size) -> int:
        return int(rng.integers(below))

    start = anywhere()
    end = min(start + anywhere(200), size)
    match anywhere(12):
        case 0:
            del file[start:]
        case 1:
            for _ in range(1 + anywhere(3)):
                file[anywhere()] ^= 1 << anywhere(8)
        case 2:
            file[anywhere(min(size, 700))] = anywhere(256)
        case 3:
            file += rng.bytes(1 + anywhere(50))
        case 4:
            file[start:end] = bytes(end - start)
        case 5:
            del file[start:end]
        case 6:
            file[start:start] = bytes((0xFF, anywhere(256)))
        case 7:
            file[start : start + 2] = bytes((0xFF, 0xC0 + anywhere(64)))
        case 8:
            at = anywhere()
            file[at:at] = data[start:end]
        case _ if not (parts := segments(data)):
            file[start] ^= 0xFF
        case case:
            start, end = parts[anywhere(len(parts))]
            if case == 9 or data.count(b"IDAT") > 1:
                file[start + anywhere(end - start)] = int(rng.choice([0, 1, 2, 3, 4, 0x11, 0x12, 0x22, 0x41, 255]))
            elif case == 10:
                del file[start:end]
            else:
                at = parts[anywhere(len(parts))][0]
                file[at:at] = data[start:end]
    return bytes(file)
