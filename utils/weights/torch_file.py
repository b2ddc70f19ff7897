"""Reads the two kinds of file that `torch.save` writes, through the inert reader: a zip, and the older row of pickles.

Source of the formats: files that `torch.save` wrote, and the zip format of Python's `zipfile`.
"""

from __future__ import annotations

import io
import struct
import sys
import zipfile
import zlib
from typing import Any

import torch
from torch import Tensor

from utils.weights.pickle_tensors import StoragePool
from utils.weights.pickle_values import DamagedError, RefusedError, printable
from utils.weights.restricted_pickle import RestrictedUnpickler

ZIP_START = b"PK"
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
MAX_MEMBERS = 200_000
TAR_MARK = slice(257, 262)


def read_torch_file(data: bytes) -> Any:  # noqa: ANN401
    """Return what was saved: plain values, tensors, and stand-ins for all else.

    Raises:
        RefusedError: it holds something that no checkpoint has a use for; the text names it.
        DamagedError: it is cut short, altered, or nothing that torch wrote.
    """
    if sys.byteorder != "little":
        raise RefusedError("numbers in another byte order than this machine's")
    return _read_zip(data) if data.startswith(ZIP_START) else _read_legacy(data)


def _read_zip(data: bytes) -> Any:  # noqa: ANN401
    """Read a zip whose members are stored as they are, so that it cannot unfold to more than its size."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = _members(archive, len(data))
            pickles = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
            if len(pickles) != 1:
                raise DamagedError("the zip holds no data.pkl")
            folder = pickles[0].removesuffix("data.pkl")
            if folder + "constants.pkl" in members:
                raise RefusedError("a TorchScript program")
            order = folder + "byteorder"
            if order in members and archive.read(members[order]) != b"little":
                raise RefusedError("numbers in another byte order than this machine's")
            pool = StoragePool(budget=len(data))
            value, _ = RestrictedUnpickler(archive.read(members[pickles[0]]), pool).load()
            for key, storage in pool.storages.items():
                name = f"{folder}data/{key}"
                if name not in members:
                    raise DamagedError(f"{printable(name)} is missing")
                _fill(storage, archive.read(members[name]))
            return value
    except (RefusedError, DamagedError):
        raise
    # What `zipfile` raises on damaged headers, by its source; none of it comes from running anything.
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, NotImplementedError, RuntimeError) as error:
        raise DamagedError(str(error)) from error
    except (struct.error, zlib.error, OverflowError, LookupError) as error:
        raise DamagedError(str(error)) from error


def _members(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """Return a zip's members by name, checked to be plain: stored, unlike in name, in all no larger than the file."""
    listed = archive.infolist()
    members = {member.filename: member for member in listed}
    if len(members) != len(listed) or len(listed) > MAX_MEMBERS:
        raise DamagedError("the zip names a member twice")
    for member in listed:
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
            raise RefusedError(
                f"the compressed or encrypted member {printable(member.filename)}, which torch never writes"
            )
        if member.compress_size != member.file_size:
            raise DamagedError("a member's two sizes differ")
    if sum(member.file_size for member in listed) > size:
        raise DamagedError("the members are larger than the file")
    return members


def _read_legacy(data: bytes) -> Any:  # noqa: ANN401
    """Read the older format: pickles of a magic number, version, system, content, storage keys; then the storages."""
    if data[TAR_MARK] == b"ustar":
        raise RefusedError("a tar archive")
    pool = StoragePool(budget=len(data))
    reader = RestrictedUnpickler(data, pool)
    magic, position = reader.load()
    if magic != LEGACY_MAGIC:
        raise RefusedError("a bare pickle")
    _, position = reader.load(position)
    system, position = reader.load(position)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise RefusedError("numbers in another byte order than this machine's")
    value, position = reader.load(position)
    keys, position = reader.load(position)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or set(keys) != set(pool.storages):
        raise DamagedError("the list of storages does not fit")
    if len(keys) != len(pool.storages):
        raise DamagedError("a storage is listed twice")
    for key in keys:
        storage = pool.storages[key]
        start = position + 8
        if data[position:start] != len(storage).to_bytes(8, "little"):
            raise DamagedError("a storage's size is wrong")
        position = start + storage.nbytes
        _fill(storage, data[start:position])
    return value


def _fill(storage: Tensor, data: bytes) -> None:
    """Copy a storage's bytes into its memory, in place."""
    if len(data) != storage.nbytes:
        raise DamagedError("a storage's size is wrong")
    if not data:
        return
    source = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    if storage.dtype == torch.bool:
        source = source.ne(0).view(torch.uint8)
    storage.view(torch.uint8).copy_(source)
