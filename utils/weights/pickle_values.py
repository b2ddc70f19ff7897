"""What a pickle is turned into instead of running it: plain values, and stand-ins that only hold data.

Names that no checkpoint has a use for are refused by name, before anything is done with them.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from typing import Any

import torch

MAX_DEPTH = 200
MAX_UNFOLDED = 2_000_000

STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
REBUILD_TENSOR = "torch._utils._rebuild_tensor_v2"
REBUILD_PARAMETER = "torch._utils._rebuild_parameter"
DICTIONARY = "collections.OrderedDict"
DEFAULT_DICTIONARY = "collections.defaultdict"
SET = "builtins.set"
BYTES = "builtins.bytes"
BYTES_BY_TEXT = "_codecs.encode"  # how older protocols write bytes
_BUILTIN = tuple("bool bytearray bytes complex dict float frozenset int list object range set slice str tuple".split())
_PATHS = ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath", "Path", "PurePath")
_NUMPY_CORE = ("scalar", "_reconstruct")
# Names of the standard library, torch and numpy that checkpoints hold. All else that these three define is refused,
# except layers of torch.nn, which are classes like any other.
KNOWN: dict[str, tuple[str, ...]] = {
    "argparse": ("Namespace",),
    "collections": ("OrderedDict", "defaultdict"),
    "builtins": _BUILTIN,
    "__builtin__": _BUILTIN,
    "pathlib": _PATHS,
    "pathlib._local": _PATHS,
    "_codecs": ("encode",),
    "numpy": ("dtype", "ndarray", "bool_", "float16", "float32", "float64", "int32", "int64"),
    "numpy.core.multiarray": _NUMPY_CORE,
    "numpy._core.multiarray": _NUMPY_CORE,
    "torch": (*STORAGES, "Size", "device", *(str(dtype).removeprefix("torch.") for dtype in STORAGES.values())),
    "torch._utils": ("_rebuild_tensor_v2", "_rebuild_parameter"),
}
CALLABLE = frozenset(f"{module}.{name}" for module, names in KNOWN.items() for name in names)


class RefusedError(ValueError):
    """A file holds something that no checkpoint has a use for; the text names it."""


class DamagedError(ValueError):
    """The bytes are no whole checkpoint."""


@dataclass(frozen=True, eq=False)
class PickleStubClass:
    """The dotted name of a class or function; it can be neither called nor looked up."""

    path: str


@dataclass(eq=False, repr=False)
class PickleStub:
    """What was pickled of one object.

    Attributes:
        kind: dotted name of its class, or of the function that would have made it.
        args: what that would have been called with.
        state: its attributes by name, if it had any.
    """

    kind: str
    args: tuple[Any, ...] = ()
    state: Any = None


def printable(text: str) -> str:
    """Return a text of a file for a message: short, and letters that can be seen."""
    return "".join(c if c.isprintable() and c.isascii() else "?" for c in text[:80]) + ("..." if len(text) > 80 else "")


def one_line(text: str) -> str:
    """Return a text of any script without what would break or repaint a line."""
    return "".join(c if c.isprintable() else "?" for c in text[:300])


def type_name(value: object) -> str:
    """Return what a value is, for a message: the class it stands for, or its own."""
    if isinstance(value, PickleStubClass):
        return printable(value.path)
    return printable(value.kind) if isinstance(value, PickleStub) else type(value).__name__


def make_stub(module: object, name: object) -> PickleStubClass:
    """Return the stand-in of a class or function.

    Raises:
        RefusedError: it is none that a checkpoint needs.
    """
    if not isinstance(module, str) or not isinstance(name, str):
        raise RefusedError(f"a name made of {type_name(module)} and {type_name(name)}")
    path = f"{printable(module)}.{printable(name)}"
    plain = re.fullmatch(r"[A-Za-z_][\w.]*", module, re.ASCII) and re.fullmatch(r"\w+", name, re.ASCII)
    root = module.partition(".")[0]
    system = root in ("torch", "numpy", "__builtin__") or root in sys.stdlib_module_names
    if not plain or (system and name not in KNOWN.get(module, ()) and not module.startswith("torch.nn.")):
        raise RefusedError(path)
    return PickleStubClass(path)


def check_extent(root: object) -> None:
    """Check that a value can be walked through: it ends, soon, and no level is too deep.

    Raises:
        RefusedError: it holds itself, nests deeper than MAX_DEPTH, or has few parts that are shared so often that
            they unfold to more than MAX_UNFOLDED values.
    """
    extents: dict[int, tuple[int, int]] = {}  # by identity: values inside, levels inside
    entered: set[int] = set()
    pending: list[tuple[Any, bool]] = [(root, False)]
    while pending:
        value, returning = pending.pop()
        if id(value) in extents:
            continue
        inner = _containers(value)
        if not returning:
            if id(value) in entered:
                raise RefusedError("a value that holds itself")
            entered.add(id(value))
            pending.append((value, True))
            pending.extend((item, False) for item in inner)
            continue
        own = len(value) if isinstance(value, (dict, list, tuple)) else 1
        size = own + sum(extents[id(item)][0] for item in inner)
        depth = 1 + max((extents[id(item)][1] for item in inner), default=0)
        if depth > MAX_DEPTH:
            raise RefusedError(f"values nested more than {MAX_DEPTH} deep")
        if size > MAX_UNFOLDED:
            raise RefusedError(f"shared values that unfold to more than {MAX_UNFOLDED:,}")
        extents[id(value)] = size, depth


def _containers(value: object) -> list[Any]:
    """Return those of the values directly inside that hold others."""
    parts: Any = ()
    if isinstance(value, PickleStub):
        parts = (value.args, value.state)
    elif isinstance(value, (dict, list, tuple)):
        parts = value.values() if isinstance(value, dict) else value
    return [part for part in parts if isinstance(part, (dict, list, tuple, PickleStub))]
