"""Tensors of a file that is not trusted: memory no larger than the file, shapes that stay inside it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

import torch
from torch import Tensor

from utils.weights.pickle_values import STORAGES, DamagedError, PickleStubClass, RefusedError, printable, type_name

MAX_DIMENSIONS = 16
MAX_EMPTY = 2**40
# A state beside its average, views of one flat buffer: honest files stay far below.
MAX_VIEWED_PER_STORED = 4


@dataclass
class StoragePool:
    """Memory of tensors, given out as a pickle names it and filled from the file afterwards.

    Attributes:
        budget: bytes that may be given out, at most what the file holds.
        storages: by key, one-dimensional.
    """

    budget: int
    storages: dict[str, Tensor] = field(default_factory=dict)
    viewed: int = 0
    given: int = 0

    def claim(self, kind: object, key: object, count: object) -> Tensor:
        """Return the memory of a storage, the same for the same key.

        Raises:
            RefusedError: no storage of plain numbers.
            DamagedError: it is larger than the file, or was named otherwise before.
        """
        dtype = STORAGES.get(kind.path.removeprefix("torch.")) if isinstance(kind, PickleStubClass) else None
        if dtype is None:
            raise RefusedError(f"a tensor of kind {type_name(kind)}")
        if not isinstance(key, str) or not re.fullmatch(r"\w{1,40}", key, re.ASCII):
            raise RefusedError(f"a storage named {printable(key) if isinstance(key, str) else type_name(key)}")
        if type(count) is not int or not 0 <= count <= self.budget // dtype.itemsize:
            raise DamagedError("a storage is larger than the file")
        known = self.storages.get(key)
        if known is None:
            self.given += count * dtype.itemsize
            if self.given > self.budget:
                raise DamagedError("the storages are larger than the file")
            known = self.storages[key] = torch.zeros(count, dtype=dtype)
        elif (known.dtype, len(known)) != (dtype, count):
            raise DamagedError("a storage is described twice, and differently")
        return known

    def view(self, storage: object, offset: object, size: object, stride: object) -> Tensor:
        """Return a tensor of the given shape on a storage.

        Raises:
            RefusedError: more of it is asked for than honest tensors need.
            DamagedError: it reaches beyond its storage.
        """
        if not isinstance(storage, Tensor) or not isinstance(size, tuple) or not isinstance(stride, tuple):
            raise DamagedError("a tensor is incomplete")
        numbers = (offset, *size, *stride)
        if len(size) != len(stride) or len(size) > MAX_DIMENSIONS or any(type(n) is not int or n < 0 for n in numbers):
            raise DamagedError("a tensor's shape is wrong")
        count = math.prod(size)
        last = int(offset) + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if count else 0  # type: ignore[call-overload]
        if count > len(storage) or (count and last >= len(storage)):
            raise DamagedError("a tensor reaches beyond its storage")
        if not count:
            if math.prod(max(n, 1) for n in size) > MAX_EMPTY:
                raise DamagedError("a tensor's shape is wrong")
            return torch.empty(size, dtype=storage.dtype)
        self.viewed += count * storage.itemsize
        if self.viewed > MAX_VIEWED_PER_STORED * self.budget:
            raise RefusedError("tensors that unfold to many times the file")
        return storage.as_strided(size, stride, int(offset))  # type: ignore[call-overload]
