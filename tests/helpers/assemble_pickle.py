"""Assembles pickles opcode by opcode, as no honest program would, and torch files around them."""

import io
import pickle
import struct
import zipfile
import zlib

PROTO = pickle.PROTO + b"\x02"
STOP = pickle.STOP
MAGIC = 0x1950A86A20F9469CFC6C


class Raw(bytes):
    """Opcodes that `emit` copies."""


def emit(value: object) -> bytes:
    """Return opcodes that push a plain value; Raw is copied."""
    if isinstance(value, Raw):
        return bytes(value)
    if value is None or isinstance(value, bool):
        return {None: pickle.NONE, True: pickle.NEWTRUE, False: pickle.NEWFALSE}[value]
    if isinstance(value, int):
        data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
        return pickle.LONG1 + bytes([len(data)]) + data
    if isinstance(value, float):
        return pickle.BINFLOAT + struct.pack(">d", value)
    if isinstance(value, str):
        data = value.encode()
        return pickle.BINUNICODE + struct.pack("<I", len(data)) + data
    if isinstance(value, bytes):
        return pickle.BINBYTES + struct.pack("<I", len(value)) + value
    if isinstance(value, tuple):
        return pickle.MARK + b"".join(map(emit, value)) + pickle.TUPLE
    if isinstance(value, list):
        return pickle.EMPTY_LIST + pickle.MARK + b"".join(map(emit, value)) + pickle.APPENDS
    pairs = b"".join(emit(key) + emit(item) for key, item in value.items())
    return pickle.EMPTY_DICT + pickle.MARK + pairs + pickle.SETITEMS


def push_global(path: str) -> Raw:
    """Push a class or function by GLOBAL."""
    module, _, last = path.rpartition(".")
    return Raw(pickle.GLOBAL + f"{module}\n{last}\n".encode())


def push_stack_global(path: str) -> Raw:
    """Push a class or function by STACK_GLOBAL."""
    module, _, last = path.rpartition(".")
    return Raw(emit(module) + emit(last) + pickle.STACK_GLOBAL)


def call(path: str, *args: object) -> Raw:
    """Call by REDUCE."""
    return Raw(push_global(path) + emit(args) + pickle.REDUCE)


def make(path: str, state: object = None, args: tuple = ()) -> Raw:
    """Create an object by NEWOBJ, and set its attributes by BUILD."""
    made = push_global(path) + emit(args) + pickle.NEWOBJ
    return Raw(made if state is None else made + emit(state) + pickle.BUILD)


def storage(count: object, *, kind: object = "torch.FloatStorage", key: object = "0", more: tuple = ()) -> Raw:
    """Push the storage of a tensor by BINPERSID."""
    kind = push_global(kind) if isinstance(kind, str) else kind
    return Raw(emit(("storage", kind, key, "cpu", count, *more)) + pickle.BINPERSID)


def tensor(memory: object, offset: object, size: object, stride: object) -> Raw:
    """Create a tensor by REDUCE."""
    return call("torch._utils._rebuild_tensor_v2", memory, offset, size, stride, False, {})


def pickled(value: object) -> bytes:
    """Return a complete pickle."""
    return PROTO + emit(value) + STOP


def zipped(data: bytes, records: dict[str, bytes] | None = None, **more: bytes) -> bytes:
    """Return a file in the format of torch.save around a pickle."""
    members = {"version": b"3\n", "byteorder": b"little", **more}
    members |= {f"data/{key}": record for key, record in (records or {}).items()}
    return bare_zip({"archive/data.pkl": data, **{f"archive/{key}": member for key, member in members.items()}})


def bare_zip(members: dict[str, bytes], *, compression: int = zipfile.ZIP_STORED) -> bytes:
    """Return a zip."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for member, data in members.items():
            archive.writestr(member, data)
    return buffer.getvalue()


def legacy(
    data: bytes,
    records: dict[str, bytes] | None = None,
    *,
    item_size: int = 4,
    keys: object = None,
    little: object = True,
) -> bytes:
    """Return a file in the older format of torch.save around a pickle."""
    records = records or {}
    system = {"protocol_version": 1001, "little_endian": little, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    listed = sorted(records) if keys is None else keys
    head = pickled(MAGIC) + pickled(1001) + pickled(system) + data + pickled(listed)
    return head + b"".join(
        (len(records[key]) // item_size).to_bytes(8, "little") + records[key] for key in sorted(records)
    )


def edit_zip(data: bytes, *, offset: int, value: bytes, member: bytes = b"archive/data.pkl") -> bytes:
    """Overwrite bytes in a member's entry of the central directory, counted from the entry's start."""
    start = data.rindex(b"PK\x01\x02", 0, data.rindex(member)) + offset
    return data[:start] + value + data[start + len(value) :]


def wrong_crc(data: bytes) -> bytes:
    """Return a zip whose first member has a wrong checksum."""
    return edit_zip(data, offset=16, value=struct.pack("<I", zlib.crc32(b"something else")))
