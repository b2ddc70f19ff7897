"""The size of an image file that is certainly intact, without decoding its pixels."""

from __future__ import annotations

import re
import struct
import zlib

import cv2

from utils.datasets.images import open_header, opencv_decode
from utils.library_messages import muted

_MAX_PIXELS = 30_000_000  # larger images are decoded, one at a time
_START_OF_SCAN, _FIRST_RESTART, _JPEG_END = 0xDA, 0xD0, b"\xff\xd9"
# Baseline, extended and progressive frames; Huffman and quantization tables; restart interval; scan; APPn; comment.
_JPEG_SEGMENTS = frozenset((0xC0, 0xC1, 0xC2, 0xC4, 0xDB, 0xDD, _START_OF_SCAN, *range(0xE0, 0xF0), 0xFE))
_MARKER = re.compile(rb"\xff[^\x00]")  # in entropy-coded data, a byte 0xFF is followed by 0
_PNG_HEADER = re.compile(rb"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR.{8}\x08[\x00\x02]\x00\x00\x00", re.DOTALL)
# Ancillary chunks that neither change the pixels nor make a decoder refuse the file.
_ANCILLARY = rb"(?:gAMA|cHRM|sRGB|iCCP|pHYs|tIME|sBIT|tEXt|zTXt|iTXt)*"
_PNG_CHUNKS = re.compile(rb"IHDR" + _ANCILLARY + rb"(?:IDAT)+" + _ANCILLARY + rb"IEND")
_EXIF_TEXT = b"Raw profile type"  # ImageMagick's name for EXIF in a text chunk
_MAX_PNG_CHUNK = 1_000_000  # bytes; decoders refuse chunks from 8 MB
_MAX_DEFLATE_RATIO = 1032


def intact_size(data: bytes) -> tuple[int, int] | None:
    """Return height and width of the image that `decode_image` returns; None if the file may be damaged.

    Intact JPEGs, and PNGs of 8 bits without transparency or orientation, are recognised. Of damage, only this is not
    found: pixels of a PNG that were compressed wrongly or lack whole chunks, although all checksums are right.
    """
    try:
        with muted():
            return _size(data)
    except Exception:  # decoders raise errors of any class for damaged data
        return None


def _size(data: bytes) -> tuple[int, int] | None:
    header = open_header(data)
    if header is None or header.mode not in ("L", "RGB") or "transparency" in header.info:
        return None
    width, height = header.size
    if width * height > _MAX_PIXELS:
        return None
    if header.format == "PNG":
        return (height, width) if _is_intact_png(data) else None
    # The scale is 1/8 unless that would hide whether OpenCV has exchanged the sides, by EXIF.
    scale = 1 if width != height and -(-width // 8) == -(-height // 8) else 8
    segments = _jpeg_without_scans(data)
    flags = cv2.IMREAD_COLOR if scale == 1 else cv2.IMREAD_REDUCED_COLOR_8
    image = opencv_decode(segments, flags) if segments else None
    shape = None if image is None else image.shape[:2]
    sizes = ((height, width), (width, height))
    return next((size for size in sizes if shape == tuple(-(-side // scale) for side in size)), None)


def _jpeg_without_scans(data: bytes) -> bytes:
    r"""Return a JPEG without its entropy-coded data: OpenCV accepts it only if it accepts the file; b"" if unknown.

    libjpeg reads entropy-coded data to the next marker, whatever it holds, and takes what is missing for zeros. Its
    errors come from the segments, all of which are kept, and from restart markers out of order, which are unknown.
    """
    if not data.startswith(b"\xff\xd8"):
        return b""
    kept, start, position = [], 0, 2
    while position + 4 <= len(data) and data[position] == 0xFF and data[position + 1] in _JPEG_SEGMENTS:
        is_scan = data[position + 1] == _START_OF_SCAN
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if is_scan:
            kept.append(data[start:position])
            start = position = _end_of_scan(data, position)
    return b"".join((*kept, data[start:position], _JPEG_END)) if data.startswith(_JPEG_END, position) else b""


def _end_of_scan(data: bytes, position: int) -> int:
    """Return where entropy-coded data ends: at the first marker that is not the next restart."""
    restart = 0
    while marker := _MARKER.search(data, position):
        if data[marker.start() + 1] != _FIRST_RESTART + restart:
            return marker.start()
        restart, position = (restart + 1) % 8, marker.end()
    return len(data)


def _is_intact_png(data: bytes) -> bool:
    """Return whether a PNG of 8 bits, grey or RGB, has only common chunks, in order and with their checksums.

    Whoever wrote the checksum of the compressed pixels is trusted to have compressed them right.
    """
    if not _PNG_HEADER.match(data):
        return False
    kinds: list[bytes] = []
    position = 8
    length = compressed = 0
    while kinds[-1:] != [b"IEND"]:
        if position + 12 > len(data):
            return False
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 8 + length
        checksum = zlib.crc32(data[position + 4 : end]).to_bytes(4, "big")
        if length > _MAX_PNG_CHUNK or data[end : end + 4] != checksum or data.startswith(_EXIF_TEXT, position + 8):
            return False
        kinds.append(kind)
        compressed += length * (kind == b"IDAT")
        position = end + 4
    width, height = struct.unpack_from(">II", data, 16)
    pixels = height * (1 + width * (3 if data[25] else 1))
    return length == 0 and pixels <= compressed * _MAX_DEFLATE_RATIO and bool(_PNG_CHUNKS.fullmatch(b"".join(kinds)))
