"""Read archives that may be hostile: all is checked before a byte is taken out, and only plain small files are."""

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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Any, BinaryIO, cast

from utils.datasets.images import IMAGE_SUFFIXES
from utils.errors import DataError

MAX_MEMBERS = 1_000_000
MAX_TOTAL_BYTES = 200_000_000_000
MAX_FILE_BYTES = 2_000_000_000
MAX_RATIO = 100
RATIO_MATTERS_FROM = 1_000_000  # a short text of one repeated line may well shrink more
TAKEN_SUFFIXES = IMAGE_SUFFIXES | frozenset("txt csv json xml yaml yml md".split())
TAKEN_NAMES = frozenset(("LICENSE", "README"))
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
    """What an archive says of one file."""

    name: str
    size: int
    packed: int
    is_plain: bool
    is_folder: bool = False


@dataclass(frozen=True)
class Archive:
    """A checked zip or tar file: images, labels and texts; programs and hidden files are left inside.

    Attributes:
        where: what messages call it.
        left_out: how many files were not of a kind that is taken.
    """

    where: str
    contents: dict[str, Callable[[], bytes]]
    left_out: int = 0

    @property
    def names(self) -> Sequence[str]:
        """Names in the order in which they are stored, which is the fastest to read."""
        return list(self.contents)

    def read(self, name: str) -> bytes:
        """Return a file's content.

        Raises:
            DataError: it is damaged.
        """
        try:
            return self.contents[name]()
        except _BROKEN as error:
            raise _refused(self.where, f"is damaged at {name!r} ({error})") from error


def open_archive(file: BinaryIO, *, where: str) -> Archive:
    """Check a zip or tar file as a whole.

    Args:
        file: open for reading, and kept open as long as the result is used.
        where: what messages call it.

    Raises:
        DataError: it is neither, damaged, or holds what no honest archive of a data set does: absolute names or `..`,
            links, devices, encryption, a name twice, more than a million members, more than 200 GB, or files packed
            more than a hundredfold.
    """
    packed_total = file.seek(0, os.SEEK_END)
    file.seek(0)
    try:
        is_zip = zipfile.is_zipfile(file)
        file.seek(0)
        listed = _zip_members(file) if is_zip else _tar_members(file, packed_total)
        contents: dict[str, Callable[[], bytes]] = {}
        seen: set[str] = set()
        total = left_out = 0
        for count, (member, read) in enumerate(listed, start=1):
            total += member.size
            name = _checked_name(member, seen, where)
            if count > MAX_MEMBERS:
                raise _refused(where, f"has more than {MAX_MEMBERS:,} members")
            if total > MAX_TOTAL_BYTES or total > MAX_RATIO * max(packed_total, RATIO_MATTERS_FROM / MAX_RATIO):
                raise _refused(where, f"unpacks to far more than its {packed_total:,} bytes ({total:,} or more)")
            if not member.is_folder:
                taken = _is_taken(name)
                left_out += not taken
                if taken:
                    contents[name] = read
        below = next((n for n in seen if any(str(parent) in contents for parent in PurePosixPath(n).parents)), None)
        if below is not None:
            raise _refused(where, f"has a member below a file ({below[:60]!r})")
    except _BROKEN as error:
        raise _refused(where, f"is damaged, or no zip or tar file ({error})") from error
    return Archive(where, contents, left_out)


def _refused(where: str, what: str) -> DataError:
    return DataError(where, what, fix="do not use this archive")


def _checked_name(member: _Member, seen: set[str], where: str) -> str:
    """Return a member's name without `./` and the like, if it is a plain file or folder with a plain name.

    Raises:
        DataError: it is.
    """
    name = member.name
    path = PurePosixPath(name)
    shown = repr(name[:60])
    if not name or not name.isprintable() or "\\" in name or ":" in name.split("/")[0]:
        raise _refused(where, f"has a member with an odd name ({shown})")
    if path.is_absolute() or ".." in path.parts:
        raise _refused(where, f"has a member outside its folder ({shown})")
    if not (member.is_plain or member.is_folder):
        raise _refused(where, f"has a link, a device or an encrypted file ({shown})")
    key = path.as_posix()
    if key in seen and not member.is_folder:
        raise _refused(where, f"has a member twice ({shown})")
    seen.add(key)
    if member.size > MAX_FILE_BYTES:
        raise _refused(where, f"has a file of {member.size:,} bytes ({shown})")
    if member.size > max(RATIO_MATTERS_FROM, MAX_RATIO * member.packed):
        raise _refused(where, f"has a file packed more than {MAX_RATIO}-fold ({shown})")
    return key


def _is_taken(name: str) -> bool:
    path = PurePosixPath(name)
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    return not hidden and (path.suffix[1:].lower() in TAKEN_SUFFIXES or path.name in TAKEN_NAMES)


def _zip_members(file: BinaryIO) -> Iterator[tuple[_Member, Callable[[], bytes]]]:
    archive = zipfile.ZipFile(file)
    for info in archive.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        member = _Member(
            name=info.orig_filename if "\0" in info.orig_filename else info.filename,
            size=info.file_size,
            packed=info.compress_size,
            is_plain=not info.is_dir() and kind in (0, stat.S_IFREG) and not info.flag_bits & 0x1,
            is_folder=info.is_dir() and kind in (0, stat.S_IFDIR),
        )
        yield member, lambda info=info: _whole(archive.read(info), info.file_size)  # type: ignore[misc]


def _tar_members(file: BinaryIO, packed_total: int) -> Iterator[tuple[_Member, Callable[[], bytes]]]:
    start = file.read(6)
    file.seek(0)
    unpack = next((unpack for magic, unpack in _UNPACKERS if start.startswith(magic)), None)
    most = max(MAX_RATIO * packed_total, RATIO_MATTERS_FROM)
    stream = file if unpack is None else _Limited(unpack(file), most)
    archive = tarfile.open(fileobj=cast(BinaryIO, stream), mode="r:")
    for info in archive:
        member = _Member(
            name=info.name,
            size=info.size,
            packed=packed_total,  # members of a tar file are packed together
            is_plain=info.isreg() and not info.issparse(),
            is_folder=info.isdir(),
        )
        yield member, lambda info=info: _read_tar_member(archive, info)  # type: ignore[misc]


class _Limited(io.RawIOBase):
    """A stream that ends with an error where an archive unpacks to too much, be it in the headers."""

    def __init__(self, stream: IO[bytes], most: int) -> None:
        self._stream, self._most = stream, most

    def read(self, size: int = -1) -> bytes:
        if size < 0 or self._stream.tell() + min(size, MAX_FILE_BYTES) > self._most + RATIO_MATTERS_FROM:
            raise tarfile.ReadError("unpacks to too much")
        return self._stream.read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_SET and offset > self._most + RATIO_MATTERS_FROM:
            raise tarfile.ReadError("unpacks to too much")
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()


def _read_tar_member(archive: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    """Return a member's content, once Python's own filter for data has let it pass too."""
    stored = archive.extractfile(tarfile.data_filter(info, os.path.abspath(os.sep + "target")))
    return _whole(stored.read() if stored is not None else b"", info.size)


def _whole(content: bytes, size: int) -> bytes:
    """Return a content that has the size that the archive tells.

    Raises:
        EOFError: it has not.
    """
    if len(content) != size:
        raise EOFError(f"{len(content)} of {size} bytes")
    return content
