"""Reads archives that may be hostile: all members are validated first, and only data files are extracted."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import IO, Any, BinaryIO, cast

from utils.datasets.convert.layout import Files
from utils.datasets.images import IMAGE_SUFFIXES
from utils.errors import DataError
from utils.log import LOGGER

MAX_MEMBERS = 1_000_000
MAX_TOTAL_BYTES = 200_000_000_000
MAX_FILE_BYTES = 2_000_000_000
MAX_DEPTH = 50  # folders
MAX_NAME_BYTES = 255  # of a file or folder, on most file systems
MAX_RATIO = 100
MAX_RATIO_APPLIES_FROM = 1_000_000  # bytes; short repetitive text may compress better
DATA_SUFFIXES = IMAGE_SUFFIXES | frozenset("txt csv json xml yaml yml md".split())
DATA_NAMES = frozenset(("LICENSE", "README"))
_BROKEN = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError),
    *(NotImplementedError, RuntimeError, ValueError, LookupError, OverflowError),
)
_UNPACKERS: tuple[tuple[bytes, Callable[[BinaryIO], Any]], ...] = (
    (b"\x1f\x8b", lambda file: gzip.GzipFile(fileobj=file)),
    (b"BZh", bz2.BZ2File),
    (b"\xfd7zXZ\0", lzma.LZMAFile),
)


@dataclass(frozen=True)
class _Member:
    """The entry of one member in an archive."""

    name: str
    size: int
    compressed: int
    is_plain: bool
    is_folder: bool


def open_archive(file: BinaryIO, *, where: str) -> Files:
    """Validate all of a zip or tar file, and return its images, labels and text files.

    The files are in stored order, which is the fastest to read in. The number of other files, such as programs and
    hidden ones, is logged.

    Args:
        file: open for reading; must stay open while the result is used.
        where: its name in messages, also of the DataError for a damaged file that is read later.

    Raises:
        DataError: it is neither, it is damaged, or it has what no honest data set has: absolute names or `..`, links,
            devices, encryption, duplicate names, more than a million members, more than 200 GB, or files compressed
            more than a hundredfold.
    """
    compressed_total = file.seek(0, os.SEEK_END)
    file.seek(0)
    try:
        is_zip = zipfile.is_zipfile(file)
        file.seek(0)
        members = _zip_members(file) if is_zip else _tar_members(file, compressed_total)
        contents: dict[str, Callable[[], bytes]] = {}
        seen: set[str] = set()
        total = skipped = 0
        for count, (member, read) in enumerate(members, start=1):
            total += member.size
            name = _checked_name(member, seen, where)
            if count > MAX_MEMBERS:
                raise _refused(where, f"has more than {MAX_MEMBERS:,} members")
            if total > MAX_TOTAL_BYTES or total > MAX_RATIO * max(compressed_total, MAX_RATIO_APPLIES_FROM / MAX_RATIO):
                what = f"decompresses to far more than its {compressed_total:,} bytes ({total:,} or more)"
                raise _refused(where, what)
            if _is_data(name) and not member.is_folder:
                contents[name] = partial(_read, read, name, where)
            else:
                skipped += not member.is_folder
        below = next((n for n in seen if any(str(parent) in contents for parent in PurePosixPath(n).parents)), None)
        if below is not None:
            raise _refused(where, f"has a member below a file ({below[:60]!r})")
    except _BROKEN as error:
        raise _refused(where, f"is damaged, or not a zip or tar file ({error})") from error
    if skipped:
        LOGGER.info(f"{where}: skipped {skipped} files that are not data")
    return contents


def _read(read: Callable[[], bytes], name: str, where: str) -> bytes:
    try:
        return read()
    except _BROKEN as error:
        raise _refused(where, f"is damaged at {name!r} ({error})") from error


def _refused(where: str, what: str) -> DataError:
    return DataError(where, what, fix="do not use this archive")


def _checked_name(member: _Member, seen: set[str], where: str) -> str:
    """Return a member's normalized name; DataError if it is not a plain file or folder with a plain name."""
    name = member.name
    path = PurePosixPath(name)
    quoted = repr(name[:60])
    if not name or not name.isprintable() or "\\" in name or ":" in name.split("/")[0]:
        raise _refused(where, f"has a member with an invalid name ({quoted})")
    if path.is_absolute() or ".." in path.parts:
        raise _refused(where, f"has a member outside its folder ({quoted})")
    if len(path.parts) > MAX_DEPTH or any(len(os.fsencode(part)) > MAX_NAME_BYTES for part in path.parts):
        raise _refused(where, f"has a member too deep in folders, or with too long a name ({quoted})")
    if not (member.is_plain or member.is_folder):
        raise _refused(where, f"has a link, a device or an encrypted file ({quoted})")
    key = path.as_posix()
    if key in seen and not member.is_folder:
        raise _refused(where, f"has a duplicate member ({quoted})")
    seen.add(key)
    if member.size > MAX_FILE_BYTES:
        raise _refused(where, f"has a file of {member.size:,} bytes ({quoted})")
    if member.size > max(MAX_RATIO_APPLIES_FROM, MAX_RATIO * member.compressed):
        raise _refused(where, f"has a file compressed more than {MAX_RATIO}-fold ({quoted})")
    return key


def _is_data(name: str) -> bool:
    path = PurePosixPath(name)
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    return not hidden and (path.suffix[1:].lower() in DATA_SUFFIXES or path.name in DATA_NAMES)


def _zip_members(file: BinaryIO) -> Iterator[tuple[_Member, Callable[[], bytes]]]:
    archive = zipfile.ZipFile(file)
    for info in archive.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        name = info.orig_filename if "\0" in info.orig_filename else info.filename
        is_plain = not info.is_dir() and kind in (0, stat.S_IFREG) and not info.flag_bits & 0x1
        is_folder = info.is_dir() and kind in (0, stat.S_IFDIR)
        member = _Member(name, info.file_size, info.compress_size, is_plain, is_folder)
        yield member, lambda info=info: _complete(archive.read(info), info.file_size)  # type: ignore[misc]


def _tar_members(file: BinaryIO, compressed_total: int) -> Iterator[tuple[_Member, Callable[[], bytes]]]:
    start = file.read(6)
    file.seek(0)
    unpack = next((unpack for magic, unpack in _UNPACKERS if start.startswith(magic)), None)
    limit = max(MAX_RATIO * compressed_total, MAX_RATIO_APPLIES_FROM)
    stream = file if unpack is None else _Limited(unpack(file), limit)
    archive = tarfile.open(fileobj=cast(BinaryIO, stream), mode="r:")
    for info in archive:
        is_plain = info.isreg() and not info.issparse()
        # The members of a tar file are compressed together.
        member = _Member(info.name, info.size, compressed_total, is_plain, info.isdir())
        yield member, lambda info=info: _read_tar_member(archive, info)  # type: ignore[misc]


class _Limited(io.RawIOBase):
    """A stream that fails where an archive decompresses to too much, even inside a header."""

    def __init__(self, stream: IO[bytes], limit: int) -> None:
        self._stream, self._limit = stream, limit

    def read(self, size: int = -1) -> bytes:
        if size < 0 or self._stream.tell() + min(size, MAX_FILE_BYTES) > self._limit + MAX_RATIO_APPLIES_FROM:
            raise tarfile.ReadError("decompresses to too much")
        return self._stream.read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_SET and offset > self._limit + MAX_RATIO_APPLIES_FROM:
            raise tarfile.ReadError("decompresses to too much")
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()


def _read_tar_member(archive: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    """Return a member's content, if Python's own extraction filter accepts it too."""
    stored = archive.extractfile(tarfile.data_filter(info, os.path.abspath(os.sep + "target")))
    return _complete(stored.read() if stored is not None else b"", info.size)


def _complete(content: bytes, size: int) -> bytes:
    """Return the content of a member; EOFError if it does not have the size of its entry."""
    if len(content) != size:
        raise EOFError(f"{len(content)} of {size} bytes")
    return content
