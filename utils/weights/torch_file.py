"""Reads both formats of `torch.save` without running anything: a zip, and before torch 1.6 a sequence of pickles.

Memory is bounded by the size of the file, and every tensor stays inside its storage.

Source of the formats: files that `torch.save` wrote, and the zip format of Python's `zipfile`.
"""

from __future__ import annotations

import io
import math
import re
import struct
import sys
import zipfile
import zlib
from typing import Any, BinaryIO

import torch
from torch import Tensor

from utils.weights.restricted_pickle import (
    STORAGE_DTYPES,
    DamagedError,
    PickleStubClass,
    RefusedError,
    RestrictedUnpickler,
    printable,
    type_name,
)

ZIP_START = b"PK"
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
MAX_MEMBERS = 200_000
MAX_DIMENSIONS = 16
MAX_EMPTY_SIZE = 2**40
# Bytes of all tensors per byte of the file. A model and its average, views of one flat buffer, are far below.
MAX_VIEWED_PER_STORED = 4
DTYPES = {f"torch.{storage}": getattr(torch, dtype) for storage, dtype in STORAGE_DTYPES.items()}
_BYTE_ORDER = "numbers in another byte order than this machine's"
# What `zipfile` raises for damaged headers, by its source.
_ZIP_ERRORS = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError),
    *(ValueError, NotImplementedError, RuntimeError, OverflowError, LookupError),
)


def read_torch_file(data: bytes) -> Any:  # noqa: ANN401
    """Return what was saved: plain values, tensors, and a `PickleStub` for every other object.

    Raises:
        RefusedError: it contains something that no checkpoint needs; the message names it.
        DamagedError: it is truncated, altered, or was not written by torch.
    """
    if sys.byteorder != "little":
        raise RefusedError(_BYTE_ORDER)
    if not data.startswith(ZIP_START):
        return _read_legacy(data)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return _read_zip(archive, len(data))
    except _ZIP_ERRORS as error:
        raise DamagedError(str(error)) from error


class TensorUnpickler(RestrictedUnpickler):
    """Reads tensors too. Their storages are allocated as the pickle names them, and filled from the file afterwards."""

    def __init__(self, stream: BinaryIO, *, budget: int) -> None:
        super().__init__(stream)
        # One-dimensional tensors by key; together they have at most `budget` bytes, the size of the file.
        self.storages: dict[str, Tensor] = {}
        self._storage_ids: set[int] = set()
        self._budget = budget
        self._allocated = self._viewed = 0

    def persistent_load(self, pid: Any) -> Any:  # noqa: ANN401
        """Return the storage of a tensor, or in the older format a class, whose source text is dropped."""
        kind = pid[0] if isinstance(pid, tuple) and pid else None
        if kind == "storage" and len(pid) >= 5 and (len(pid) == 5 or pid[5] is None):
            return self._storage(pid[1], pid[2], pid[4])
        if kind == "module" and len(pid) == 4 and isinstance(pid[1], PickleStubClass):
            return pid[1]
        raise RefusedError(f"a persistent id of type {printable(kind) if isinstance(kind, str) else type_name(kind)}")

    def call(self, path: str, args: tuple[Any, ...]) -> Any:  # noqa: ANN401
        """Return a tensor or parameter, or what the base class returns."""
        if path == "torch._utils._rebuild_tensor_v2" and len(args) >= 4:
            return self._view(*args[:4])
        if path.startswith("torch._utils._rebuild_parameter") and args and isinstance(args[0], Tensor):
            return args[0]
        if path.startswith("torch._utils."):
            raise DamagedError("a tensor is incomplete")
        return super().call(path, args)

    def _storage(self, kind: object, key: object, count: object) -> Tensor:
        dtype = DTYPES.get(kind.path) if isinstance(kind, PickleStubClass) else None
        if dtype is None:
            raise RefusedError(f"a tensor of type {type_name(kind)}")
        if not isinstance(key, str) or not re.fullmatch(r"\w{1,40}", key, re.ASCII):
            raise RefusedError(f"a storage named {printable(key) if isinstance(key, str) else type_name(key)}")
        if type(count) is not int or count < 0:
            raise DamagedError("a storage has an invalid size")
        if key not in self.storages:
            self._allocated += count * dtype.itemsize
            if self._allocated > self._budget:
                raise DamagedError("the storages are larger than the file")
            self.storages[key] = torch.zeros(count, dtype=dtype)
            self._storage_ids.add(id(self.storages[key]))
        storage = self.storages[key]
        if (storage.dtype, len(storage)) != (dtype, count):
            raise DamagedError("a storage is described twice, and differently")
        return storage

    def _view(self, storage: object, offset: Any, size: Any, stride: Any) -> Tensor:  # noqa: ANN401
        if not isinstance(storage, Tensor) or id(storage) not in self._storage_ids:  # not a view either
            raise DamagedError("a tensor has no storage")
        paired = isinstance(size, tuple) and isinstance(stride, tuple) and len(size) == len(stride) <= MAX_DIMENSIONS
        if not paired or any(type(value) is not int or value < 0 for value in (offset, *size, *stride)):
            raise DamagedError("a tensor has an invalid shape")
        count = math.prod(size)
        if count == 0 and math.prod(max(length, 1) for length in size) <= MAX_EMPTY_SIZE:
            return torch.empty(size, dtype=storage.dtype)
        last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
        distinct = math.prod(length for length, step in zip(size, stride, strict=True) if step)  # the rest is expanded
        limit = MAX_VIEWED_PER_STORED * self._budget
        if count < 1 or distinct > len(storage) or last >= len(storage):
            raise DamagedError("a tensor reaches beyond its storage")
        if count > len(storage) and count * storage.itemsize > limit:
            raise DamagedError("a tensor is expanded to many times the size of the file")
        self._viewed += count * storage.itemsize
        if self._viewed > limit:
            raise RefusedError("tensors that unfold to many times the size of the file")
        return storage.as_strided(size, stride, offset)


def _read_zip(archive: zipfile.ZipFile, size: int) -> Any:  # noqa: ANN401
    members = _members(archive, size)
    pickles = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise DamagedError("the zip has no data.pkl")
    folder = pickles[0].removesuffix("data.pkl")
    if folder + "constants.pkl" in members:
        raise RefusedError("a TorchScript program")
    order = folder + "byteorder"
    if order in members and archive.read(members[order]) != b"little":
        raise RefusedError(_BYTE_ORDER)
    unpickler = TensorUnpickler(io.BytesIO(archive.read(members[pickles[0]])), budget=size)
    value = unpickler.load()
    for key, storage in unpickler.storages.items():
        name = f"{folder}data/{key}"
        if name not in members:
            raise DamagedError(f"{printable(name)} is missing")
        _fill(storage, archive.read(members[name]))
    return value


def _members(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """Return a zip's members by name: all uncompressed, none twice, together no larger than the file."""
    listed = archive.infolist()
    members = {member.filename: member for member in listed}
    if len(members) != len(listed) or len(listed) > MAX_MEMBERS:
        raise DamagedError("the zip has duplicate members, or too many")
    for name, member in members.items():
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
            raise RefusedError(f"the compressed or encrypted member {printable(name)}, which torch never writes")
        if member.compress_size != member.file_size:
            raise DamagedError("a member has two sizes")
    if sum(member.file_size for member in listed) > size:
        raise DamagedError("the members are larger than the file")
    return members


def _read_legacy(data: bytes) -> Any:  # noqa: ANN401
    """Read the older format: pickles of a magic number, version, system, content, storage keys; then the storages."""
    if data[257:262] == b"ustar":
        raise RefusedError("a tar archive")
    stream = io.BytesIO(data)
    if RestrictedUnpickler(stream).load() != LEGACY_MAGIC:
        raise RefusedError("a bare pickle")
    _, system = RestrictedUnpickler(stream).load(), RestrictedUnpickler(stream).load()
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise RefusedError(_BYTE_ORDER)
    unpickler = TensorUnpickler(stream, budget=len(data))
    value, keys = unpickler.load(), RestrictedUnpickler(stream).load()
    storages = unpickler.storages
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or sorted(keys) != sorted(storages):
        raise DamagedError("the list of storages does not match")
    for key in keys:
        if stream.read(8) != len(storages[key]).to_bytes(8, "little"):
            raise DamagedError("a storage has another size")
        _fill(storages[key], stream.read(storages[key].nbytes))
    return value


def _fill(storage: Tensor, data: bytes) -> None:
    """Copy a storage's bytes into its memory."""
    if len(data) != storage.nbytes:
        raise DamagedError("a storage has another size")
    if data:
        source = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        if storage.dtype == torch.bool:
            source = source.ne(0).view(torch.uint8)  # a bool is 0 or 1; other bytes are undefined
        storage.view(torch.uint8).copy_(source)
