"""Reads a pickle without running it: nothing is imported, called or evaluated.

`RestrictedUnpickler` inherits the handlers of plain values, of the memo and of frames from the standard library's
unpickler in Python. The opcodes that can reach code (GLOBAL, REDUCE, NEWOBJ, BUILD) create stubs, which only hold data;
opcodes that no checkpoint needs are refused. So nothing callable is ever on the stack.

The unpickler in C, `pickle.Unpickler`, is not safe with a `find_class` alone, nor after a scan of the opcodes:

- It inserts any hashable key into a dict. Hashing a tuple nested 900,000 deep overflows the C stack and ends the
  process; pairs of the same pair, 50 levels deep, take days; colliding integers take quadratic time.
- It allocates as many memo entries as the largest index in the file: 64 GB for 2**32 - 1.
- BUILD calls `__setstate__` of whatever is on the stack, even of a tensor.
- It skips the rest of a frame that ends within an argument, and so executes other opcodes than a scan finds.
"""

from __future__ import annotations

import pickle
import pickletools
import re
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

MAX_OPCODES = 1_000_000
MAX_DEPTH = 200
MAX_VALUES = 2_000_000
MAX_KEY = 2**60  # larger integers may have equal hashes
ORDERED_DICT = "collections.OrderedDict"
DEFAULT_DICT = "collections.defaultdict"
SET = "builtins.set"
GETATTR = "builtins.getattr"
STORAGE_DTYPES = {
    **{"DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": "bfloat16"},
    **{"LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8"},
    **{"ByteStorage": "uint8", "BoolStorage": "bool"},
}
# What checkpoints contain of the standard library, torch and numpy. Every other name of these is refused, except the
# layers in torch.nn. Only the names listed here may be called; other classes are instantiated by NEWOBJ alone.
ALLOWED_NAMES = {
    "argparse": {"Namespace"},
    "collections": {"OrderedDict", "defaultdict"},
    "builtins": {
        *("bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "getattr", "int", "list", "object"),
        *("range", "set", "slice", "str", "tuple"),
    },
    "pathlib": {"PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath", "Path", "PurePath"},
    "_codecs": {"encode"},
    "numpy": {"dtype", "ndarray", "bool_", "float16", "float32", "float64", "int32", "int64"},
    "numpy.core.multiarray": {"scalar", "_reconstruct"},
    "torch": {*STORAGE_DTYPES, *STORAGE_DTYPES.values(), "Size", "device"},
    "torch._utils": {"_rebuild_tensor_v2", "_rebuild_parameter", "_rebuild_parameter_with_state"},
}
# Names of these modules in other versions of Python and numpy.
ALIASES = {"__builtin__": "builtins", "pathlib._local": "pathlib", "numpy._core.multiarray": "numpy.core.multiarray"}
OPCODES = (
    "PROTO FRAME STOP MARK POP POP_MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT "
    "SHORT_BINUNICODE BINUNICODE BINUNICODE8 SHORT_BINBYTES BINBYTES EMPTY_DICT EMPTY_LIST EMPTY_SET EMPTY_TUPLE "
    "TUPLE TUPLE1 TUPLE2 TUPLE3 APPEND APPENDS ADDITEMS SETITEM SETITEMS BINPUT LONG_BINPUT MEMOIZE BINGET LONG_BINGET "
    "GLOBAL STACK_GLOBAL REDUCE NEWOBJ BUILD BINPERSID INST OBJ EXT1 EXT2 EXT4"  # the last five only to be refused
)


class RefusedError(Exception):
    """The file contains something that no checkpoint needs; the message names it."""


class DamagedError(Exception):
    """The bytes are not a complete checkpoint."""


@dataclass(frozen=True, eq=False)
class PickleStubClass:
    """The dotted name of a class or function, in its place; `callable` if it is in ALLOWED_NAMES."""

    path: str
    callable: bool


@dataclass(eq=False, repr=False)
class PickleStub:
    """What was pickled of an object."""

    kind: str  # dotted name of its class, or of the function that would have created it
    args: tuple[Any, ...] = ()  # the arguments of that call
    state: Any = None  # its attributes by name, None if it had none


def printable(text: str, limit: int = 80) -> str:
    """Return text from a file for a message or a table: shortened, without characters that break or repaint a line."""
    return "".join(c if c.isprintable() else "?" for c in text[:limit]) + ("..." if len(text) > limit else "")


def type_name(value: object) -> str:
    """Return the type of a value, for a message; for a stub, the class that it stands for."""
    if isinstance(value, PickleStubClass):
        return printable(value.path)
    return printable(value.kind) if isinstance(value, PickleStub) else type(value).__name__


class RestrictedUnpickler(pickle._Unpickler):
    """Reads one pickle into plain values and stubs; after `load`, the stream's position is the end of the pickle."""

    stack: list[Any]  # these three are attributes of the base class
    append: Callable[[Any], None]
    pop_mark: Callable[[], list[Any]]

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__(stream)
        self.dispatch = _Dispatch(_HANDLERS)  # type: ignore[misc]

    def load(self) -> Any:  # noqa: ANN401
        """Return the value; RefusedError for what no checkpoint needs, DamagedError for an incomplete pickle."""
        try:
            value = super().load()
        except (pickle.UnpicklingError, EOFError, LookupError, ValueError, OverflowError, struct.error) as error:
            raise DamagedError(f"the pickle ends early or is garbled ({error})") from error
        check_extent(value)
        return value

    def find_class(self, module: str, name: str) -> PickleStubClass:
        """Return the stub of a class or function; RefusedError if no checkpoint needs it."""
        requested = f"{printable(module)}.{printable(name)}"
        module = ALIASES.get(module, module)
        listed = name in ALLOWED_NAMES.get(module, ())
        well_formed = re.fullmatch(r"[A-Za-z_][\w.]*", module, re.ASCII) and re.fullmatch(r"\w+", name, re.ASCII)
        if not well_formed or (_is_guarded(module) and not listed and not f"{module}.".startswith("torch.nn.")):
            raise RefusedError(requested)
        return PickleStubClass(f"{module}.{name}", callable=listed)

    def call(self, path: str, args: tuple[Any, ...]) -> Any:  # noqa: ANN401
        """Return the result of a call in ALLOWED_NAMES: a mapping, bytes, or a stub that holds the arguments."""
        if path == ORDERED_DICT:
            pairs = args[0] if args else []
            if not isinstance(pairs, list) or not all(isinstance(p, (list, tuple)) and len(p) == 2 for p in pairs):
                raise RefusedError(f"a call of {path} with {type_name(pairs)}")
            mapping: dict[Any, Any] = {}
            _set_items(mapping, [item for pair in pairs for item in pair])
            return mapping
        if path == "builtins.bytes" and not args:
            return b""
        if path == "_codecs.encode" and len(args) == 2 and isinstance(args[0], str) and args[1] == "latin1":
            return args[0].encode("latin-1")  # bytes as older protocols write them
        if path == GETATTR:
            if not _is_method(args):
                raise RefusedError(f"a call of {path}")
            args = args[1:]  # without the object, which holds its own `forward`
        return PickleStub(path, args)

    def load_reduce(self) -> None:  # noqa: D102
        args, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, PickleStubClass) or not function.callable or not isinstance(args, tuple):
            raise RefusedError(f"a call of {type_name(function)}")
        self.append(self.call(function.path, args))

    def load_newobj(self) -> None:  # noqa: D102
        args, kind = self.stack.pop(), self.stack.pop()
        if not isinstance(kind, PickleStubClass) or not isinstance(args, tuple):
            raise RefusedError(f"an object of {type_name(kind)}")
        self.append(PickleStub(kind.path, args))

    def load_build(self) -> None:  # noqa: D102
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, PickleStub) and target.state is None:
            target.state = state
        elif not isinstance(target, dict):  # attributes of a mapping, as `_metadata` of a state dict, are dropped
            raise RefusedError(f"attributes given to {type_name(target)}")

    def load_empty_set(self) -> None:  # noqa: D102
        self.append(PickleStub(SET, ([],)))

    def load_append(self) -> None:  # noqa: D102
        item = self.stack.pop()
        _extend(self.stack[-1], [item])

    def load_appends(self) -> None:  # noqa: D102
        items = self.pop_mark()
        _extend(self.stack[-1], items)

    load_additems = load_appends

    def load_setitem(self) -> None:  # noqa: D102
        value, key = self.stack.pop(), self.stack.pop()
        _set_items(self.stack[-1], [key, value])

    def load_setitems(self) -> None:  # noqa: D102
        items = self.pop_mark()
        _set_items(self.stack[-1], items)

    def get_extension(self, code: int) -> None:  # noqa: D102
        raise RefusedError(f"entry {code} of pickle's extension registry")

    def _instantiate(self, kind: object, args: object) -> None:  # of INST and OBJ
        raise RefusedError(f"a call of {type_name(kind)}")


def _is_method(args: tuple[Any, ...]) -> bool:
    """Return whether `getattr` would give a method of a pickled object or class: a hook, or `forward_fuse`.

    The result is a stub too, so it cannot be called.
    """
    named = len(args) == 2 and isinstance(args[1], str) and re.fullmatch(r"_?[A-Za-z]\w*", args[1], re.ASCII)
    owner = args[0] if args else None
    pickled = isinstance(owner, PickleStub) or (isinstance(owner, PickleStubClass) and not _is_guarded(owner.path))
    return bool(named) and pickled


def _is_guarded(module: str) -> bool:
    """Return whether a module or class belongs to torch, numpy or the standard library."""
    root = module.partition(".")[0]
    return root in ("torch", "numpy") or root in sys.stdlib_module_names


def _extend(target: object, items: list[Any]) -> None:
    if isinstance(target, PickleStub) and target.kind == SET and target.args:
        target = target.args[0]
    if not isinstance(target, list):
        raise RefusedError(f"items given to {type_name(target)}")
    target.extend(items)


def _set_items(target: object, items: list[Any]) -> None:
    """Insert keys and values, in turn. Keys are plain, so that hashing and comparing them takes constant time."""
    if isinstance(target, PickleStub) and target.kind == DEFAULT_DICT:
        target.state = {} if target.state is None else target.state
        target = target.state
    if not isinstance(target, dict) or len(items) % 2:
        raise RefusedError(f"keys given to {type_name(target)}")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if not (key is None or isinstance(key, (str, int))) or (isinstance(key, int) and abs(key) >= MAX_KEY):
            raise RefusedError(f"a key of type {type_name(key)}")
        target[key] = value


class _Dispatch(dict[int, Callable[[Any], None]]):
    """The handlers of the opcodes, for one pickle: counts the lookups, and refuses opcodes without a handler."""

    count = 0

    def __getitem__(self, code: int) -> Callable[[Any], None]:
        self.count += 1
        if self.count > MAX_OPCODES:
            raise RefusedError(f"more than {MAX_OPCODES:,} pickle opcodes")
        return super().__getitem__(code)

    def __missing__(self, code: int) -> Callable[[Any], None]:
        name = next((opcode.name for opcode in pickletools.opcodes if opcode.code == chr(code)), None)
        if name is None or self.count == 1:
            raise DamagedError("this is not a pickle")
        raise RefusedError(f"the pickle opcode {name}")


_HANDLERS: dict[int, Callable[[Any], None]] = {
    code: getattr(RestrictedUnpickler, pickle._Unpickler.dispatch[code].__name__)
    for code in (getattr(pickle, name)[0] for name in OPCODES.split())
}


def check_extent(root: object) -> None:
    """Check that walking through a value ends soon, however often its parts are shared, and does not go too deep.

    Raises:
        RefusedError: more than MAX_DEPTH levels, as in a list that contains itself, or more than MAX_VALUES values.
    """
    count = 0
    level = [root]
    for _ in range(MAX_DEPTH):
        containers = [_items(value) for value in level]
        count += sum(map(len, containers))
        if count > MAX_VALUES:
            raise RefusedError(f"shared values that unfold to more than {MAX_VALUES:,}")
        level = [item for items in containers for item in items]
    if level:
        raise RefusedError(f"values nested more than {MAX_DEPTH} deep")


def _items(value: object) -> Any:  # noqa: ANN401
    """Return what a container holds: a sized iterable, empty for plain values."""
    if isinstance(value, PickleStub):
        return value.args, value.state
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, (list, tuple)) else ()
