"""What the bytes of an image file say of themselves, before a decoder believes them."""

from __future__ import annotations

import io
import struct

from PIL.TiffImagePlugin import ImageFileDirectory_v2

TIFF_SIGNATURES = (b"II*\0", b"MM\0*")
PFM_SIGNATURES = (b"PF", b"Pf")
BITS_PER_SAMPLE = 258
_IMAGE_WIDTH, _IMAGE_LENGTH, _SAMPLES_PER_PIXEL = 256, 257, 277
_PNG_START = b"\x89PNG\r\n\x1a\n"
_JPEG_START, _JPEG_END, _START_OF_SCAN = b"\xff\xd8", b"\xff\xd9", 0xDA


def is_truncated(data: bytes) -> bool:
    """Return whether a JPEG or PNG lacks its end; decoders fill the missing part with grey, or allocate its length."""
    if data.startswith(_JPEG_START):
        return _is_truncated_jpeg(data)
    return data.startswith(_PNG_START) and _is_truncated_png(data)


def _is_truncated_jpeg(data: bytes) -> bool:
    """Skip headers by their lengths, so that the end marker of an embedded thumbnail does not count."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == _START_OF_SCAN:
            return data.rfind(_JPEG_END, position) < 0
        if marker == 0xFF:  # a fill byte
            position += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:  # without a length
            position += 2
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return True


def _is_truncated_png(data: bytes) -> bool:
    """Return whether a PNG has no end, or a chunk that is longer than the file: OpenCV would allocate that."""
    position = len(_PNG_START)
    while position + 12 <= len(data):
        length, kind = struct.unpack(">I4s", data[position : position + 8])
        position += 12 + length
        if kind == b"IEND":
            return False
    return True


def raw_size(data: bytes) -> tuple[int, int]:
    """Return the pixels and the bytes per pixel that an image says of itself whose header Pillow refuses; 0 if unknown.

    OpenCV reads some of these, and believes their headers.
    """
    try:
        if data.startswith(_PNG_START):
            width, height, depth = struct.unpack(">IIB", data[16:25])
            return width * height, 4 * (depth // 8 or 1)
        if data.startswith(TIFF_SIGNATURES):
            tags = ImageFileDirectory_v2(data[:8])
            with io.BytesIO(data) as file:
                file.seek(tags.next)
                tags.load(file)
            bits = max(tags.get(BITS_PER_SAMPLE, (1,)))
            return tags[_IMAGE_WIDTH] * tags[_IMAGE_LENGTH], tags.get(_SAMPLES_PER_PIXEL, 1) * (bits + 7) // 8
        if data.startswith(PFM_SIGNATURES):
            width, height = map(int, data[:100].split()[1:3])
            return width * height, 12 if data.startswith(b"PF") else 4
    except (OSError, ValueError, LookupError, TypeError, SyntaxError, struct.error):
        pass
    return 0, 0
