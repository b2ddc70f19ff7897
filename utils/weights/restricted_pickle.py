"""Reads a pickle without running it: nothing is imported, called or evaluated.

What comes out is plain values, tensors, and stand-ins for all else. The instructions of a pickle that could reach code
(GLOBAL, REDUCE, NEWOBJ, BUILD) only make and fill stand-ins; those that none of the files wanted has are refused. Time
and memory are bounded by the size of the file.

Source of the format: the documentation in Python's `pickletools`.
"""

from __future__ import annotations

import pickle
import pickletools
import struct
from collections.abc import Callable
from typing import Any

from torch import Tensor

from utils.weights.pickle_tensors import StoragePool
from utils.weights.pickle_values import (
    BYTES,
    BYTES_BY_TEXT,
    CALLABLE,
    DEFAULT_DICTIONARY,
    DICTIONARY,
    REBUILD_PARAMETER,
    REBUILD_TENSOR,
    SET,
    DamagedError,
    PickleStub,
    PickleStubClass,
    RefusedError,
    check_extent,
    make_stub,
    printable,
    type_name,
)

MAX_INSTRUCTIONS = 1_000_000
MAX_NAME = 200
MAX_KEY = 2**60


class RestrictedUnpickler:
    """Carries out the instructions of one pickle."""

    def __init__(self, data: bytes, pool: StoragePool) -> None:
        """Prepare to read `data`, tensors on the memory of `pool`."""
        self.data = data
        self.pool = pool
        self.position = 0
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def load(self, start: int = 0) -> tuple[Any, int]:
        """Read the pickle that begins at a position.

        Returns:
            Its value, and the position after it.

        Raises:
            RefusedError: it holds something else than a checkpoint; the text names it.
            DamagedError: it is no whole pickle.
        """
        self.position, self.stack, self.marks, self.memo = start, [], [], {}
        try:
            for _ in range(MAX_INSTRUCTIONS):
                instruction = self.data[self.position]
                self.position += 1
                if instruction == pickle.STOP[0]:
                    value = self.stack.pop()
                    check_extent(value)
                    return value, self.position
                handler = _HANDLERS.get(instruction)
                if handler is None:
                    raise self._unknown(instruction)
                handler(self)
        except (IndexError, KeyError, struct.error, UnicodeError) as error:
            raise DamagedError("the pickle ends early or is garbled") from error
        raise RefusedError(f"more than {MAX_INSTRUCTIONS:,} instructions")

    def _unknown(self, instruction: int) -> ValueError:
        """Return the error for an instruction that is not carried out, with the name it aims at."""
        known = next((opcode for opcode in pickletools.opcodes if opcode.code == chr(instruction)), None)
        if known is None or (self.position == 1 and instruction != pickle.PROTO[0]):
            return DamagedError("this is no pickle")
        target = ""
        if known.name == "INST":
            target = f" of {printable(self._line())}.{printable(self._line())}"
        elif known.name == "OBJ" and self.stack and isinstance(self.stack[0], PickleStubClass):
            target = f" of {self.stack[0].path}"
        elif known.name.startswith("EXT"):
            target = f" {int.from_bytes(self._take(int(known.name[3:])), 'little')} of the extension registry"
        return RefusedError(f"the pickle instruction {known.name}{target}")

    def _take(self, count: int) -> bytes:
        """Return the next bytes."""
        end = self.position + count
        if end > len(self.data):
            raise DamagedError("the pickle ends early")
        taken = self.data[self.position : end]
        self.position = end
        return taken

    def _number(self, form: struct.Struct) -> Any:  # noqa: ANN401
        return form.unpack(self._take(form.size))[0]

    def _line(self) -> str:
        """Return the next line, a part of a name."""
        end = self.data.find(b"\n", self.position, self.position + MAX_NAME)
        if end < 0:
            raise DamagedError("a name does not end")
        line = self.data[self.position : end].decode("utf-8")
        self.position = end + 1
        return line

    def _since_mark(self) -> list[Any]:
        """Return what was pushed since the last MARK, and take it off."""
        items, self.stack = self.stack, self.marks.pop()
        return items

    def mark(self) -> None:
        """Begin a group."""
        self.marks.append(self.stack)
        self.stack = []

    def pop(self) -> None:
        """Drop the top."""
        self.stack.pop()

    def tuple_of_marked(self) -> None:
        """Make a tuple of a group."""
        items = self._since_mark()
        self.stack.append(tuple(items))

    def append(self, items: list[Any]) -> None:
        """Lengthen the list on top, or a set's stand-in."""
        target = self.stack[-1]
        if isinstance(target, PickleStub) and target.kind == SET and target.args:
            target = target.args[0]
        if not isinstance(target, list):
            raise RefusedError(f"items given to {type_name(target)}")
        target.extend(items)

    def set_items(self, items: list[Any]) -> None:
        """Put pairs into the mapping on top. Keys are plain, so that none takes long to compare or to hash."""
        target = self.stack[-1]
        if isinstance(target, PickleStub) and target.kind == DEFAULT_DICTIONARY:
            target.state = {} if target.state is None else target.state
            target = target.state
        if not isinstance(target, dict) or len(items) % 2:
            raise RefusedError(f"keys given to {type_name(target)}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not (key is None or isinstance(key, (str, int))) or (isinstance(key, int) and abs(key) >= MAX_KEY):
                raise RefusedError(f"a key of kind {type_name(key)}")
            target[key] = value

    def name_by_lines(self) -> None:
        """GLOBAL: a name written in two lines."""
        module = self._line()
        self.stack.append(make_stub(module, self._line()))

    def name_on_stack(self) -> None:
        """STACK_GLOBAL: a name from the stack."""
        name, module = self.stack.pop(), self.stack.pop()
        self.stack.append(make_stub(module, name))

    def reduce(self) -> None:
        """REDUCE: a call. Tensors and mappings are made; the few other calls that checkpoints hold are kept as data."""
        args, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, PickleStubClass) or not isinstance(args, tuple):
            raise RefusedError(f"a call of {type_name(function)}")
        if function.path not in CALLABLE:
            raise RefusedError(f"a call of {function.path}")
        self.stack.append(self._called(function.path, args))

    def _called(self, path: str, args: tuple[Any, ...]) -> Any:  # noqa: ANN401
        if path == REBUILD_TENSOR:
            if len(args) < 4:
                raise DamagedError("a tensor is incomplete")
            return self.pool.view(*args[:4])
        if path == REBUILD_PARAMETER:
            if not args or not isinstance(args[0], Tensor):
                raise DamagedError("a parameter is incomplete")
            return args[0]
        if path == DICTIONARY:
            pairs = args[0] if args else []
            if not isinstance(pairs, list) or not all(isinstance(p, (list, tuple)) and len(p) == 2 for p in pairs):
                raise RefusedError(f"a call of {path} on {type_name(pairs)}")
            self.stack.append({})
            self.set_items([item for pair in pairs for item in pair])
            return self.stack.pop()
        path = path.replace("__builtin__", "builtins")
        if path == BYTES and not args:
            return b""
        if path == BYTES_BY_TEXT and len(args) == 2 and args[1] == "latin1" and isinstance(args[0], str):
            return args[0].encode("latin-1")
        return PickleStub(path, args)

    def new_object(self) -> None:
        """NEWOBJ: an object of a class, so far without attributes."""
        args, kind = self.stack.pop(), self.stack.pop()
        if not isinstance(kind, PickleStubClass) or not isinstance(args, tuple):
            raise RefusedError(f"an object of {type_name(kind)}")
        self.stack.append(PickleStub(kind.path, args))

    def build(self) -> None:
        """BUILD: the attributes of the object on top. Those of a mapping (`_metadata` of a state dict) are dropped."""
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, PickleStub) and target.state is None:
            target.state = state
        elif not isinstance(target, dict):
            raise RefusedError(f"attributes given to {type_name(target)}")

    def persistent(self) -> None:
        """BINPERSID: the memory of a tensor, or in the older format a class with its source text, which is dropped."""
        name = self.stack.pop()
        kind = name[0] if isinstance(name, tuple) and name else None
        if kind == "storage" and len(name) >= 5 and (len(name) == 5 or name[5] is None):
            self.stack.append(self.pool.claim(name[1], name[2], name[4]))
        elif kind == "module" and len(name) == 4 and isinstance(name[1], PickleStubClass):
            self.stack.append(name[1])
        else:
            raise RefusedError(
                f"a persistent id of kind {printable(kind) if isinstance(kind, str) else type_name(kind)}"
            )


_Handler = Callable[[RestrictedUnpickler], None]
_BYTE, _SHORT, _INT, _LENGTH, _LONG_LENGTH = (struct.Struct(form) for form in ("<B", "<H", "<i", "<I", "<Q"))


def _pushes(make: Callable[[RestrictedUnpickler], Any]) -> _Handler:
    return lambda reader: reader.stack.append(make(reader))


def _memorises(index: Callable[[RestrictedUnpickler], int]) -> _Handler:
    def put(reader: RestrictedUnpickler) -> None:
        reader.memo[index(reader)] = reader.stack[-1]

    return put


def _sized(length: struct.Struct, make: Callable[[bytes], Any]) -> _Handler:
    return _pushes(lambda reader: make(reader._take(reader._number(length))))


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


def _whole(data: bytes) -> int:
    return int.from_bytes(data, "little", signed=True)


def _number_of(form: str) -> Callable[[RestrictedUnpickler], Any]:
    packed = struct.Struct(form)
    return lambda reader: reader._number(packed)


def _tuple_of(count: int) -> _Handler:
    def make(reader: RestrictedUnpickler) -> tuple[Any, ...]:
        items = [reader.stack.pop() for _ in range(count)]
        return tuple(items[::-1])

    return _pushes(make)


_HANDLERS: dict[int, _Handler] = {
    code[0]: handler
    for code, handler in {
        pickle.PROTO: lambda reader: reader._number(_BYTE),
        pickle.FRAME: lambda reader: reader._number(_LONG_LENGTH),
        pickle.MARK: RestrictedUnpickler.mark,
        pickle.POP: RestrictedUnpickler.pop,
        pickle.POP_MARK: RestrictedUnpickler._since_mark,
        pickle.NONE: _pushes(lambda _: None),
        pickle.NEWTRUE: _pushes(lambda _: True),
        pickle.NEWFALSE: _pushes(lambda _: False),
        pickle.BININT: _pushes(_number_of("<i")),
        pickle.BININT1: _pushes(_number_of("<B")),
        pickle.BININT2: _pushes(_number_of("<H")),
        pickle.LONG1: _sized(_BYTE, _whole),
        pickle.BINFLOAT: _pushes(_number_of(">d")),
        pickle.SHORT_BINUNICODE: _sized(_BYTE, _text),
        pickle.BINUNICODE: _sized(_LENGTH, _text),
        pickle.BINUNICODE8: _sized(_LONG_LENGTH, _text),
        pickle.SHORT_BINBYTES: _sized(_BYTE, bytes),
        pickle.BINBYTES: _sized(_LENGTH, bytes),
        pickle.EMPTY_DICT: _pushes(lambda _: {}),
        pickle.EMPTY_LIST: _pushes(lambda _: []),
        pickle.EMPTY_SET: _pushes(lambda _: PickleStub(SET, ([],))),
        pickle.EMPTY_TUPLE: _pushes(lambda _: ()),
        pickle.TUPLE: RestrictedUnpickler.tuple_of_marked,
        pickle.TUPLE1: _tuple_of(1),
        pickle.TUPLE2: _tuple_of(2),
        pickle.TUPLE3: _tuple_of(3),
        pickle.APPEND: lambda reader: reader.append([reader.stack.pop()]),
        pickle.APPENDS: lambda reader: reader.append(reader._since_mark()),
        pickle.ADDITEMS: lambda reader: reader.append(reader._since_mark()),
        pickle.SETITEM: lambda reader: reader.set_items([reader.stack.pop() for _ in "kv"][::-1]),
        pickle.SETITEMS: lambda reader: reader.set_items(reader._since_mark()),
        pickle.BINPUT: _memorises(_number_of("<B")),
        pickle.LONG_BINPUT: _memorises(_number_of("<I")),
        pickle.MEMOIZE: _memorises(lambda reader: len(reader.memo)),
        pickle.BINGET: _pushes(lambda reader: reader.memo[reader._number(_BYTE)]),
        pickle.LONG_BINGET: _pushes(lambda reader: reader.memo[reader._number(_LENGTH)]),
        pickle.GLOBAL: RestrictedUnpickler.name_by_lines,
        pickle.STACK_GLOBAL: RestrictedUnpickler.name_on_stack,
        pickle.REDUCE: RestrictedUnpickler.reduce,
        pickle.NEWOBJ: RestrictedUnpickler.new_object,
        pickle.BUILD: RestrictedUnpickler.build,
        pickle.BINPERSID: RestrictedUnpickler.persistent,
    }.items()
}
