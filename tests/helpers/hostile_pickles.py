"""Builds 290 hostile checkpoint files, each with text that the error must contain: the name of what was refused.

`python -m tests.helpers.hostile_pickles FOLDER` writes them to a folder. If any payload ran, it would create the file
CANARY in the working directory.
"""

import io
import itertools
import pickle
import random
import struct
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from tests.helpers.assemble_pickle import (
    PROTO,
    STOP,
    Raw,
    bare_zip,
    call,
    edit_zip,
    emit,
    legacy,
    make,
    pickled,
    push_global,
    push_stack_global,
    storage,
    tensor,
    wrong_crc,
    zipped,
)

CANARY = "pwned"
COMMAND = f"echo > {CANARY}"
CODE = f"open('{CANARY}', 'w')"
DAMAGED = "truncated or damaged"
Case = tuple[str, bytes, str]

CALLS: dict[str, tuple[object, ...]] = {
    "os.system": (COMMAND,),
    "posix.system": (COMMAND,),
    "nt.system": (COMMAND,),
    "os.popen": (COMMAND,),
    "os.execv": ("/bin/touch", ["touch", CANARY]),
    "os.remove": (CANARY,),
    "subprocess.Popen": (["touch", CANARY],),
    "subprocess.call": (["touch", CANARY],),
    "subprocess.check_output": (["touch", CANARY],),
    "builtins.eval": (CODE,),
    "builtins.exec": (CODE,),
    "builtins.compile": (CODE, "x", "exec"),
    "builtins.open": (CANARY, "w"),
    "builtins.__import__": ("antigravity",),
    "builtins.getattr": (push_global("torch.nn.Module"), "__init__"),
    "__builtin__.eval": (CODE,),
    "importlib.import_module": ("this",),
    "runpy._run_code": (CODE, {}),
    "pty.spawn": (["touch", CANARY],),
    "code.interact": (),
    "timeit.timeit": (CODE,),
    "cProfile.run": (CODE,),
    "bdb.Bdb": (),
    "pdb.run": (CODE,),
    "shutil.rmtree": ("nothing",),
    "socket.create_connection": (("127.0.0.1", 9),),
    "urllib.request.urlopen": ("http://127.0.0.1:9",),
    "webbrowser.open": ("http://127.0.0.1:9",),
    "ctypes.CDLL": ("libc.so.6",),
    "multiprocessing.Process": (),
    "functools.partial": (push_global("models.yolo.parse_model"),),
    "operator.attrgetter": ("__class__",),
    "types.FunctionType": (),
    "pickle.loads": (pickled(call("os.system", COMMAND)),),
    "marshal.loads": (b"c",),
    "logging.config.fileConfig": ("x",),
    "copyreg._reconstructor": (push_global("builtins.object"), push_global("builtins.object"), None),
    "torch.load": ("other.pt",),
    "torch.hub.load": ("a/b", "c"),
    "torch.storage._load_from_bytes": (zipped(pickled(call("os.system", COMMAND))),),
    "torch.utils.cpp_extension.load_inline": ("x", CODE),
    "torch.jit.load": ("x.pt",),
    "torch._utils._rebuild_qtensor": (),
    "torch._utils._rebuild_sparse_tensor": (),
    "torch._utils._rebuild_wrapper_subclass": (),
    "torch._utils._rebuild_meta_tensor_no_storage": (push_global("torch.float32"), (9, 9), (9, 1), False),
    "torch._tensor._rebuild_from_type_v2": (),
    "torch.nn.Linear": (100_000, 100_000),
    "numpy.load": ("x.npy",),
    "numpy.f2py.crackfortran.myeval": (CODE,),
    "numpy.testing._private.utils.runstring": (CODE, {}),
    "models.yolo.DetectionModel": (),
    "models.yolo.parse_model": (),
    "utils.files.atomic_write": (CANARY, "x"),
    "utils.plugins.load_plugins": (("x.py",),),
    "yaml.unsafe_load": (f"!!python/object/apply:os.system ['{COMMAND}']",),
    "pandas.read_pickle": ("x",),
    "pip.main": (["install", "x"],),
    "IPython.get_ipython": (),
    "somewhere.unknown": (),
}
DIRECT = (
    "os.system",
    "posix.system",
    "builtins.eval",
    "builtins.exec",
    "subprocess.Popen",
    "pickle.loads",
    "torch.load",
)


def calls() -> Iterator[Case]:
    """Calls of dangerous functions, at the top and nested, by every opcode that can reach code."""
    for path, args in CALLS.items():
        yield f"reduce {path}", zipped(pickled({"model": call(path, *args)})), path
    for path in DIRECT:
        args = CALLS[path]
        module, _, last = path.rpartition(".")
        line = f"{module}\n{last}\n".encode()
        opcodes = {
            "stack_global": push_stack_global(path) + emit(args) + pickle.REDUCE,
            "inst": pickle.MARK + b"".join(map(emit, args)) + pickle.INST + line,
            "obj": pickle.MARK + push_global("models.yolo.Model") + b"".join(map(emit, args)) + pickle.OBJ,
            "newobj": make(path, args=args),
            "newobj_ex": push_stack_global(path) + emit(args) + emit({}) + pickle.NEWOBJ_EX,
            "build": make("models.yolo.Model", {"__setstate__": push_global(path), "__reduce__": args}),
            "key": pickle.EMPTY_DICT + call(path, *args) + pickle.NONE + pickle.SETITEM,
        }
        for opcode, raw in opcodes.items():
            expected = {"obj": "models.yolo.Model"}.get(opcode, path)
            yield f"{opcode} {path}", zipped(pickled({"model": Raw(raw)})), expected
        yield f"legacy {path}", legacy(pickled(call(path, *args))), path
        yield f"bare {path}", pickled(call(path, *args)), path


def unusual_opcodes() -> Iterator[Case]:
    """Opcodes that no checkpoint contains, and misuse of those that it contains."""
    model_class = push_global("models.A")
    raw = {
        "ext1": (pickle.EXT1 + b"\x07", "entry 7 of pickle's extension registry"),
        "ext2": (pickle.EXT2 + b"\x01\x01", "entry 257"),
        "ext4": (pickle.EXT4 + struct.pack("<I", 70_000), "entry 70000"),
        "persid": (pickle.PERSID + b"os.system\n", "PERSID"),
        "decimal bomb": (pickle.LONG + b"9" * 1_000_000 + b"L\n", "LONG"),
        "long4 lie": (pickle.LONG4 + struct.pack("<i", 2**31 - 1), "LONG4"),
        "long4 bomb": (pickle.LONG4 + struct.pack("<i", 2**20) + b"\x7f" * 2**20, "LONG4"),
        "text lie": (pickle.BINUNICODE8 + struct.pack("<Q", 2**63), DAMAGED),
        "bytes lie": (pickle.BINBYTES + struct.pack("<I", 2**32 - 1), DAMAGED),
        "bytearray": (pickle.BYTEARRAY8 + struct.pack("<Q", 2**40), "BYTEARRAY8"),
        "buffer": (pickle.NEXT_BUFFER, "NEXT_BUFFER"),
        "dup": (pickle.EMPTY_LIST + pickle.DUP, "DUP"),
        "text memo": (pickle.NONE + pickle.PUT + b"99999999999999999999\n", "PUT"),
        "unknown": (b"\xff", DAMAGED),
        "empty stack": (pickle.REDUCE, DAMAGED),
        "no mark": (pickle.TUPLE, DAMAGED),
        "no memo": (pickle.LONG_BINGET + struct.pack("<I", 2**32 - 1), DAMAGED),
        "far memo": (pickle.NONE + pickle.LONG_BINPUT + struct.pack("<I", 2**32 - 1), "not a model"),
        "endless name": (pickle.GLOBAL + b"a" * 100_000, "a" * 80),
        "dotted name": (
            push_stack_global("models.x")[:-1] + emit("common.os.system") + pickle.STACK_GLOBAL,
            "common.os.system",
        ),
        "name of a number": (emit(1) + emit(2) + pickle.STACK_GLOBAL, DAMAGED),
        "name of escapes": (push_stack_global("models.\x1b[2J\nerror: fine"), "models.?[2J?error"),
        "call of a number": (emit(7) + emit(()) + pickle.REDUCE, "a call of int"),
        "call of an object": (make("models.A") + emit(()) + pickle.REDUCE, "a call of models.A"),
        "new of a text": (emit("os.system") + emit(()) + pickle.NEWOBJ, "an object of str"),
        "build a class": (model_class + emit({"x": 1}) + pickle.BUILD, "attributes given to models.A"),
        "build twice": (make("models.A", {"x": 1}) + emit({"x": 2}) + pickle.BUILD, "attributes given to models.A"),
        "build a list": (
            emit([]) + emit({"append": model_class}) + pickle.BUILD,
            "attributes given to list",
        ),
        "append to an object": (make("models.A") + emit(1) + pickle.APPEND, "items given to models.A"),
        "keys to a class": (model_class + emit("x") + emit(1) + pickle.SETITEM, "keys given to models.A"),
        "attributes of a tensor": (
            tensor(storage(1), 0, (1,), (1,)) + emit((0, (2**40,))) + pickle.BUILD,
            "attributes given to Tensor",
        ),
        "frame that ends in a text": (
            pickle.FRAME + struct.pack("<Q", 4) + pickle.SHORT_BINUNICODE + b"\4ab" + b"cdef",
            DAMAGED,
        ),
        "persistent call": (emit(("call", model_class)) + pickle.BINPERSID, "a persistent id of type call"),
        "persistent number": (emit(7) + pickle.BINPERSID, "a persistent id of type NoneType"),
        "pairs that are none": (call("collections.OrderedDict", [(1, 2, 3)]), "collections.OrderedDict"),
        "missing factory": (call("collections.OrderedDict", [[make("models.A"), 1]]), "a key of type models.A"),
    }
    for label, (data, expected) in raw.items():
        yield label, zipped(PROTO + data + STOP), expected


def bombs() -> Iterator[Case]:
    """Small files that would take unbounded memory or time."""
    model_class = push_global("models.A")
    put, get = (lambda n: pickle.BINPUT + bytes([n])), (lambda n: pickle.BINGET + bytes([n]))
    laughs = (
        emit([])
        + put(0)
        + b"".join(pickle.EMPTY_LIST + pickle.MARK + get(n) * 10 + pickle.APPENDS + put(n + 1) for n in range(30))
    )
    yield "memo bomb of lists", zipped(PROTO + laughs + STOP), "unfold"
    laughs = (
        emit({})
        + put(0)
        + b"".join(
            pickle.EMPTY_DICT
            + pickle.MARK
            + b"".join(emit(k) + get(n) for k in "abcdefgh")
            + pickle.SETITEMS
            + put(n + 1)
            for n in range(30)
        )
    )
    yield "memo bomb of dicts", zipped(PROTO + laughs + STOP), "unfold"
    laughs = (
        make("models.A")
        + put(0)
        + b"".join(
            model_class
            + emit(())
            + pickle.NEWOBJ
            + emit({k: Raw(get(n)) for k in "abcdefgh"})
            + pickle.BUILD
            + put(n + 1)
            for n in range(30)
        )
    )
    yield "memo bomb of objects", zipped(PROTO + laughs + STOP), "unfold"
    depth = 100_000
    yield "deep lists", zipped(PROTO + pickle.EMPTY_LIST * depth + pickle.APPEND * (depth - 1) + STOP), "nested"
    yield "deep tuples", zipped(PROTO + pickle.EMPTY_TUPLE + pickle.TUPLE1 * depth + STOP), "nested"
    deep_key = pickle.EMPTY_DICT + pickle.EMPTY_TUPLE + pickle.TUPLE1 * depth + pickle.NONE + pickle.SETITEM
    yield "deep key", zipped(PROTO + deep_key + STOP), "a key of type tuple"
    deep_key = pickle.EMPTY_DICT + pickle.EMPTY_TUPLE + pickle.TUPLE1 * 900_000 + pickle.NONE + pickle.SETITEM
    yield "key that overflows the C stack", zipped(PROTO + deep_key + STOP), "a key of type tuple"
    doubled = pickle.EMPTY_TUPLE + b"".join(put(n) + get(n) + pickle.TUPLE2 for n in range(60))
    shared_key = pickle.EMPTY_DICT + doubled + pickle.NONE + pickle.SETITEM
    yield "key of exponential size", zipped(PROTO + shared_key + STOP), "a key of type tuple"
    yield "itself", zipped(PROTO + pickle.EMPTY_LIST + put(0) + get(0) + pickle.APPEND + STOP), "nested"
    colliding = {(2**61 - 1) * n: None for n in range(1, 50)}
    yield "colliding keys", zipped(pickled(colliding)), "a key of type int"
    yield "key of a number", zipped(pickled({1.5: None})), "a key of type float"
    yield "marks", zipped(PROTO + pickle.MARK * 100_000 + STOP), DAMAGED
    yield "opcodes", zipped(PROTO + (pickle.NONE + pickle.POP) * 510_000 + STOP), "opcodes"


def tensors() -> Iterator[Case]:
    """Tensors with false storage sizes, and shapes that reach outside or unfold."""
    memory = bytes(64)
    good = storage(16)
    shapes = {
        "beyond": (0, (17,), (1,)),
        "stride beyond": (0, (2, 2), (1, 16)),
        "offset beyond": (16, (1,), (1,)),
        "huge shape": (0, (2**31, 2**31), (2**31, 1)),
        "huge number": (0, (2**2000,), (1,)),
        "no step": (0, (10**12,), (0,)),
        "negative shape": (0, (-4,), (1,)),
        "negative stride": (15, (16,), (-1,)),
        "negative offset": (-1, (4,), (1,)),
        "offset of 64 bits": (2**63, (1,), (1,)),
        "unequal lengths": (0, (2, 2), (1,)),
        "list for shape": (0, [4], (1,)),
        "text in shape": (0, ("4",), (1,)),
        "truth in shape": (0, (True,), (1,)),
        "fraction": (0.5, (4,), (1,)),
        "dimensions": (0, (1,) * 10_000, (1,) * 10_000),
        "empty but huge": (0, (0, 2**62, 2**62), (1, 1, 1)),
    }
    for label, numbers in shapes.items():
        yield f"tensor: {label}", zipped(pickled({"model": tensor(good, *numbers)}), {"0": memory}), DAMAGED
        if label in ("beyond", "huge shape", "negative stride"):
            yield f"legacy tensor: {label}", legacy(pickled(tensor(good, *numbers)), {"0": memory}), DAMAGED
    one = (0, (1,), (1,))
    lying = {
        "larger than its record": (storage(17), {"0": memory}, DAMAGED),
        "smaller than its record": (storage(15), {"0": memory}, DAMAGED),
        "larger than the file": (storage(2**40), {"0": memory}, DAMAGED),
        "of 2**62": (storage(2**62), {"0": memory}, DAMAGED),
        "negative": (storage(-1), {"0": memory}, DAMAGED),
        "text for size": (storage("16"), {"0": memory}, DAMAGED),
        "missing": (storage(16, key="1"), {"0": memory}, DAMAGED),
        "elsewhere": (storage(16, key="../../../etc/passwd"), {"0": memory}, "../../../etc/passwd"),
        "number for key": (storage(16, key=0), {"0": memory}, "a storage named int"),
        "quantised": (storage(16, kind="torch.QInt8Storage"), {"0": memory}, "torch.QInt8Storage"),
        "untyped": (storage(16, kind="torch.storage.UntypedStorage"), {"0": memory}, "UntypedStorage"),
        "of another class": (storage(16, kind="models.FloatStorage"), {"0": memory}, "models.FloatStorage"),
        "text for class": (storage(16, kind=Raw(emit("os.system"))), {"0": memory}, "a tensor of type str"),
        "view of a view": (storage(16, more=(("1", 0, 4),)), {"0": memory}, "a persistent id of type storage"),
    }
    for label, (claimed, records, expected) in lying.items():
        yield f"storage: {label}", zipped(pickled({"model": tensor(claimed, *one)}), records), expected
    two = [tensor(good, *one), tensor(storage(8, kind="torch.DoubleStorage"), *one)]
    yield "storage: of two kinds", zipped(pickled(two), {"0": memory}), DAMAGED
    many = [tensor(storage(2**16, key=str(n)), *one) for n in range(40)]
    yield "storage: many", zipped(pickled(many), {"0": bytes(2**18)}), DAMAGED
    views = [tensor(storage(2**18), 0, (2**18,), (1,)) for _ in range(200)]
    yield "views of all", zipped(pickled(views), {"0": bytes(2**20)}), "unfold"
    scalar, empty = tensor(good, 0, (), ()), tensor(good, 0, (2**40, 0), (1, 1))
    for label, view in {"scalar": scalar, "empty tensor": empty, "tensor": tensor(good, *one)}.items():
        yield f"view of a {label}", zipped(pickled({"model": tensor(view, *one)}), {"0": memory}), DAMAGED
        yield f"legacy view of a {label}", legacy(pickled(tensor(view, *one)), {"0": memory}), DAMAGED
    yield "tensor of nothing", zipped(pickled(call("torch._utils._rebuild_tensor_v2"))), DAMAGED
    yield (
        "parameter of a class",
        zipped(pickled(call("torch._utils._rebuild_parameter", push_global("A.B")))),
        DAMAGED,
    )


def damaged(honest: bytes) -> Iterator[Case]:
    """Files that are truncated, altered or in old formats."""
    payload = pickled(call("os.system", COMMAND))
    for fraction in (0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 0.999):
        yield f"cut at {fraction}", honest[: int(len(honest) * fraction)], DAMAGED
    rng = random.Random(3)
    for trial in range(6):
        at = rng.randrange(200, len(honest) * 9 // 10)
        yield (
            f"bytes altered {trial}",
            honest[:at] + bytes(b ^ 0x55 for b in honest[at : at + 400]) + honest[at + 400 :],
            DAMAGED,
        )
    whole = zipped(payload)
    yield "wrong crc", wrong_crc(zipped(pickled({}))), DAMAGED
    yield "wrong crc of a payload", wrong_crc(whole), DAMAGED
    yield "encrypted", edit_zip(whole, offset=8, value=b"\x01\x00"), "encrypted"
    yield "size lie", edit_zip(whole, offset=24, value=struct.pack("<I", 2**31)), DAMAGED
    yield "both sizes lie", edit_zip(whole, offset=20, value=struct.pack("<II", 2**31, 2**31)), DAMAGED
    yield "place lie", edit_zip(whole, offset=42, value=struct.pack("<I", 2**31)), DAMAGED
    yield "method lie", edit_zip(whole, offset=10, value=b"\x63\x00"), "compressed"
    yield "zip bomb", bare_zip({"archive/data.pkl": bytes(50_000_000)}, compression=zipfile.ZIP_DEFLATED), "compressed"
    yield "lzma bomb", bare_zip({"archive/data.pkl": bytes(50_000_000)}, compression=zipfile.ZIP_LZMA), "compressed"
    yield "empty zip", bare_zip({}), DAMAGED
    yield "zip of images", bare_zip({"a/b.jpg": b"x"}), DAMAGED
    yield "two pickles", bare_zip({"a/data.pkl": pickled({}), "b/data.pkl": payload}), DAMAGED
    yield "empty pickle", zipped(b""), DAMAGED
    yield "other byte order", zipped(pickled({}), byteorder=b"big"), "byte order"
    yield "program", zipped(pickled({}), **{"constants.pkl": pickled(())}), "TorchScript"
    yield "empty file", b"", DAMAGED
    yield "noise", random.Random(4).randbytes(5000), DAMAGED
    yield "text", b"version https://example.org/spec/v1\noid sha256:00\n", DAMAGED
    yield "legacy cut", legacy(pickled(tensor(storage(16), 0, (16,), (1,))), {"0": bytes(64)})[:-10], DAMAGED
    yield "legacy other order", legacy(pickled({}), little=False), "byte order"
    yield "legacy keys lie", legacy(pickled({}), {"0": bytes(64)}), DAMAGED
    yield (
        "legacy keys twice",
        legacy(pickled(tensor(storage(16), 0, (16,), (1,))), {"0": bytes(64)}, keys=["0", "0"]),
        DAMAGED,
    )
    yield (
        "legacy size lies",
        legacy(pickled(tensor(storage(16), 0, (16,), (1,))), {"0": bytes(64)}, item_size=2),
        DAMAGED,
    )
    yield (
        "legacy class of source",
        legacy(pickled(Raw(emit(("module", call("os.system", COMMAND), "", "")) + pickle.BINPERSID))),
        "os.system",
    )
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for member in ("pickle", "storages", "tensors"):
            entry = tarfile.TarInfo(member)
            entry.size = len(payload)
            archive.addfile(entry, io.BytesIO(payload))
    yield "tar", buffer.getvalue(), "tar archive"


def models() -> Iterator[Case]:
    """Well-formed files without a valid model."""
    memory = {"0": bytes(4 * 3 * 27), "1": struct.pack("<6f", *range(1, 7)), "2": struct.pack("<f", 8.0)}
    weight = tensor(storage(81), 0, (27, 3, 1, 1), (3, 1, 1, 1))
    anchors = tensor(storage(6, key="1"), 0, (1, 3, 2), (6, 2, 1))
    stride = tensor(storage(1, key="2"), 0, (1,), (1,))

    def model(**changes: object) -> bytes:
        conv = make("torch.nn.modules.conv.Conv2d", {"_parameters": {"weight": weight}, "_modules": {}})
        levels = make("torch.nn.modules.container.ModuleList", {"_modules": {"0": conv}})
        head = {"nc": 4, "stride": stride, "_buffers": {"anchors": anchors}, "_modules": {"m": levels}}
        head |= {key[5:]: value for key, value in changes.items() if key.startswith("head_")}
        detect = make("models.yolo.Detect", head)
        layers = make("torch.nn.modules.container.Sequential", {"_modules": changes.get("layers", {"0": detect})})
        yaml = {"nc": 4, "backbone": [], "head": [[-1, 1, "Detect", ["nc", "anchors"]]], "anchors": 3}
        state = {"yaml": {**yaml, **changes.get("yaml", {})}, "_modules": {"model": layers}}  # type: ignore[dict-item]
        state |= {key: changes[key] for key in ("names", "_parameters") if key in changes}
        return zipped(pickled({"model": make("models.yolo.Model", state)}), memory)

    row = [-1, 1, "Conv", [64]]
    end = [[-1, 1, "Detect", ["nc", "anchors"]]]
    yield "model: no bias", model(), "model.0.m.0.bias is missing"
    yield "model: no classes", model(head_nc="80"), "classes"
    yield "model: endless classes", model(head_nc=2**1000), "classes"
    yield "model: names of objects", model(names=[make("models.A")] * 4), "names that do not fit"
    yield "model: a yaml of objects", model(yaml={"backbone": [make("models.A")]}), "models.A"
    yield "model: a yaml of long texts", model(yaml={"activation": "-" * 100_000 + "1"}), "unprintable text"
    yield "model: a layer of code", model(yaml={"backbone": [[-1, 1, CODE, []]]}), "unknown module"
    yield "model: endless layers", model(yaml={"backbone": [[-1, 1000, "Conv", [64]]] * 900}), "900001 layers"
    yield "model: weights that are code", model(_parameters={"w": call("os.system", COMMAND)}), "os.system"
    yield "model: weights that are text", model(_parameters={"w": CODE}), "in place of weights"
    yield "model: layers that are text", model(layers={"0": CODE}), "in place of a layer"
    yield (
        "model: another head",
        model(layers={"0": make("models.yolo.Segment", {"_modules": {}})}),
        "models.yolo.Segment",
    )
    yield "model: no head", model(layers={}), "Detect"
    yield (
        "model: rows that are none",
        model(yaml={"backbone": [row], "head": end, "depth_multiple": -1.0}),
        "depth_multiple",
    )
    several = tensor(storage(6, key="1"), 0, (6,), (1,))
    norm = make("torch.nn.modules.batchnorm.BatchNorm2d", {"eps": several, "_modules": {}})
    detect = make("models.yolo.Detect", {"nc": 4, "stride": stride, "_buffers": {"anchors": anchors}, "_modules": {}})
    yield "model: eps that is a tensor", model(layers={"0": norm, "1": detect}), "eps"
    yield "model: strides that are not finite", model(head_stride=several), "has no anchors"
    for key in ("depth_multiple", "width_multiple"):
        for value in (float("inf"), float("nan"), 1e308, 2**1000, "1"):
            yield f"model: {key} {str(value)[:5]}", model(yaml={"backbone": [row], "head": end, key: value}), key
        yield f"model: {key} of tensors", model(yaml={"backbone": [row], "head": end, key: several}), "Tensor"
    yield "of a version that is a tensor", zipped(pickled({"schema": several, "sha256": ""}), memory), "format ?"
    yield "a state alone", zipped(pickled({"model.0.weight": weight}), memory), "without a description"
    yield "a number", zipped(pickled(7)), "contains int, not a model"
    yield "of a newer version", zipped(pickled({"schema": 2, "sha256": ""})), "format 2"
    yield "of ours, altered", zipped(pickled({"schema": 1, "sha256": "0" * 64, "ema": {}})), DAMAGED
    yield "of ours, with an object", zipped(pickled({"schema": 1, "sha256": "", "ema": make("models.A")})), DAMAGED


def corpus(honest: bytes) -> list[Case]:
    """Return all cases: a label, the bytes of the file, and text that the error must contain.

    Args:
        honest: a checkpoint written by torch.save, to be truncated and altered.
    """
    return list(itertools.chain(calls(), unusual_opcodes(), bombs(), tensors(), damaged(honest), models()))


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for index, (label, data, _) in enumerate(corpus(zipped(pickled({"a": "b" * 5000})))):
        (folder / f"{index:03d} {''.join(c if c.isalnum() else '-' for c in label)}.pt").write_bytes(data)
