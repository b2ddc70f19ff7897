"""Archives and label caches."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from tests.fuzz.isolation import WrongResultError
from tests.fuzz.kind import Bases, Kind, no_bases
from tests.fuzz.mutation import hostile, mutate_bytes, pick
from tests.helpers.hostile_archives import patched, special, typed
from utils.datasets.archives import DATA_SUFFIXES, open_archive
from utils.datasets.index import DatasetIndex, read_cache, write_cache
from utils.errors import DataError

MEMBERS = {
    f"set/{part}/train/{n}.{end}": f"{part} {n} ".encode() * 40
    for part, end in (("images", "jpg"), ("labels", "txt"))
    for n in range(3)
}
NAMES = (
    *("../x.txt", "/etc/x.txt", "a/../../x.txt", "a\\..\\x.txt", "C:/x.txt", "\0.txt", "a\n.txt", ".hidden.txt"),
    *("a/" * 60 + "x.txt",),
    *("x" * 300 + ".txt", "é.txt", "x.py", "", ".", "./x.txt", "a//b.txt", "a/./b.txt", "set/images", "CON"),
    *("a .txt", "~/x.txt"),
)


def mutate_archive(bases: Bases, rng: random.Random) -> tuple[str, bytes]:
    """Return a zip or tar with hostile members, wrong numbers, or damaged bytes."""
    members: list[tuple[str, bytes, Any]] = [(name, content, None) for name, content in MEMBERS.items()]
    for _ in range(pick(rng, 0, 1, 1, 2)):
        place = rng.randrange(len(members))
        name, content, kind = members[place]
        match rng.randrange(6):
            case 0:
                members[place] = (rng.choice(NAMES), content, kind)
            case 1:
                members.insert(place, (rng.choice(NAMES), b"x", kind))
            case 2:
                members.append(members[place])
            case 3:
                members[place] = (name, content, pick(rng, "link", "hard", "device", "pipe", "folder", "block", "odd"))
            case 4:
                members[place] = (name, bytes(pick(rng, 0, 10**6, 3 * 10**6)), kind)
            case _:
                members[place] = (f"{name}/{pick(rng, 'a.txt', '..', '')}", content, kind)
    name, data = ("case.zip", _zip(members, rng)) if rng.random() < 0.5 else _tar(members, rng)
    return name, mutate_bytes(data, rng) if rng.random() < 0.4 else data


def _zip(members: list, rng: random.Random) -> bytes:
    buffer = io.BytesIO()
    modes = {
        "link": stat.S_IFLNK,
        "device": stat.S_IFCHR,
        "pipe": stat.S_IFIFO,
        "folder": stat.S_IFDIR,
        "block": stat.S_IFBLK,
    }
    with zipfile.ZipFile(buffer, "w", pick(rng, zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED, zipfile.ZIP_LZMA)) as archive:
        for name, content, kind in members:
            archive.writestr(special(name, modes[kind]) if kind in modes else zipfile.ZipInfo(name or "x"), content)
    data = buffer.getvalue()
    if rng.random() < 0.3:  # a number of an entry: its flags, method, times, checksum, sizes, or place
        offset = pick(rng, 6, 8, 10, 16, 20, 24, 28, 30, 32, 38)
        value = pick(rng, b"\0\0", b"\1\0", b"\x08\0", b"\xff\xff", b"\xff\xff\xff\xff", b"\0\0\0\x80", b"\x10\0\0\0")
        data = patched(data, "", offset, value)
    return data


def _tar(members: list, rng: random.Random) -> tuple[str, bytes]:
    kinds = {"link": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE, "device": tarfile.CHRTYPE, "pipe": tarfile.FIFOTYPE}
    kinds |= {"folder": tarfile.DIRTYPE, "block": tarfile.BLKTYPE, "odd": pick(rng, b"S", b"7", b"K", b"x", b"Z")}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=pick(rng, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)) as archive:
        for name, content, kind in members:
            info = typed(
                name,
                kinds.get(kind, tarfile.REGTYPE),
                pick(rng, "/etc/passwd", "../x", "set"),
                0 if kind else len(content),
            )
            if rng.random() < 0.02:
                info.size = pick(rng, 0, 1, 10**6, 10**11, 2**62)
            archive.addfile(
                info, io.BytesIO(content.ljust(min(info.size, 10**6), b"\0")) if info.size < 10**7 else None
            )
    data = buffer.getvalue()
    suffix, pack = pick(
        rng,
        ("tar", bytes),
        ("tar", bytes),
        ("tar.gz", gzip.compress),
        ("tar.bz2", bz2.compress),
        ("tar.xz", lzma.compress),
    )
    return f"case.{suffix}", pack(data)


def check_archive(path: Path) -> None:
    """Read all of an archive: plain names, contents that have their checksums, and no more than it may unpack to."""
    with path.open("rb") as file:
        contents = open_archive(file, where=str(path))
        total = 0
        for name, read in contents.items():
            content = read()
            total += len(content)
            plain = not name.startswith("/") and ".." not in name.split("/") and name.isprintable() and "\\" not in name
            if not plain or name.split(".")[-1].lower() not in DATA_SUFFIXES:
                raise WrongResultError(f"a member named {name!r}")
            if path.suffix == ".zip":
                with zipfile.ZipFile(path) as archive:
                    stated = [info for info in archive.infolist() if info.filename.endswith(name.split("/")[-1])]
                if zlib.crc32(content) not in {info.CRC for info in stated}:
                    raise WrongResultError(f"the content of {name!r} has another checksum")
        if total > max(100 * path.stat().st_size, 10**6):
            raise WrongResultError(f"{total} bytes of {path.stat().st_size}")


def cache_bases(folder: Path, quick: bool) -> Bases:
    """Return the cache of a scan with boxes and polygons, as arrays and as a file."""
    index = DatasetIndex(
        paths=np.array(["/d/images/a.png", "/d/images/é.png", "/d/images/c.png"]),
        sizes_hw=np.array([[24, 36], [10, 400], [64, 48]], np.int32),
        labels=np.array([[0, 0.5, 0.5, 0.2, 0.3], [2, 0.25, 0.5, 0.5, 1.0], [1, 0.1, 0.9, 0.05, 0.05]], np.float32),
        starts=np.array([0, 2, 2, 3], np.int64),
        points=np.array([[0, 0], [0.5, 0], [0.5, 1], [0, 1]], np.float32),
        point_starts=np.array([0, 0, 4, 4], np.int64),
        skipped=(("/d/images/x.png", "is truncated"),),
        notes=("1 polygons",),
    )
    write_cache(folder / "cache.npz", index)
    data = (folder / "cache.npz").read_bytes()
    with np.load(folder / "cache.npz") as stored:
        return {"arrays": dict(stored), "case.npz": data}


def mutate_cache(bases: Bases, rng: random.Random) -> tuple[str, bytes]:
    """Return a cache with damaged bytes, or with other arrays in a valid file."""
    if rng.random() < 0.3:
        return "case.npz", mutate_bytes(bases["case.npz"], rng)
    arrays: dict[str, Any] = {name: array.copy() for name, array in bases["arrays"].items()}
    for _ in range(pick(rng, 1, 1, 2)):
        name = rng.choice(list(arrays))
        array = np.atleast_1d(arrays[name])
        match rng.randrange(8):
            case 0 if array.size and array.dtype.kind in "if":
                limit = 2**31 - 1
                array.flat[rng.randrange(array.size)] = pick(
                    rng,
                    -1,
                    0,
                    1,
                    2,
                    7,
                    100,
                    limit,
                    *((np.nan, np.inf, 0.5, -0.0) if array.dtype.kind == "f" else (-limit,)),
                )
            case 1:
                arrays[name] = (
                    array.astype(pick(rng, np.float64, np.int8, np.uint64, bool, "U9", np.complex64))
                    if array.dtype.kind != "U"
                    else np.zeros(3)
                )
            case 2:
                arrays[name] = pick(
                    rng,
                    array[:-1],
                    array[1:],
                    np.concatenate([array, array]),
                    array.T,
                    array[None],
                    array.ravel(),
                    array[::-1],
                )
            case 3:
                del arrays[name]
            case 4:
                arrays[pick(rng, "more", name + " ", "paths ")] = arrays.pop(name)
            case 5:
                arrays[name] = np.array(hostile(rng), dtype=object)
            case 6:
                arrays[name] = np.zeros(
                    pick(rng, 0, (0, 5), (3, 0), (2**20, 1), (1,) * 30), pick(rng, np.float32, np.int64, "U1")
                )
            case _:
                arrays[name] = rng.choice(list(arrays.values()))
        if not arrays:
            break
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=True, **arrays)
    return "case.npz", buffer.getvalue()


def check_cache(path: Path) -> None:
    """Read a cache: rebuilt (None, and a warning), or an index whose every image can be used in training."""
    index = read_cache(path)
    if index is None:
        raise DataError(path, "is scanned again")
    index.fingerprint()
    rows = index.labels
    for image in range(len(index)):
        index.rows(image)
        polygons = index.polygons(image)
        if polygons is not None and len(polygons) != len(index.rows(image)):
            raise WrongResultError("polygons and rows differ in number")
    if not ((rows[:, 1:] >= 0) & (rows[:, 1:] <= 1)).all() or not ((rows[:, 0] >= 0) & (rows[:, 0] % 1 == 0)).all():
        raise WrongResultError(f"rows {rows.tolist()}")
    if (len(index) and index.sizes_hw.min() < 1) or not all(isinstance(note, str) for note in index.notes):
        raise WrongResultError(f"sizes {index.sizes_hw.tolist()}, notes {index.notes}")
    if (index.points < 0).any() or (index.points > 1).any():
        raise WrongResultError(f"points {index.points.tolist()}")


KINDS = (
    Kind(name="caches", cases=1000, quick=40, batch=200, prepare=cache_bases, mutate=mutate_cache, check=check_cache),
    Kind(name="archives", cases=500, quick=40, batch=50, prepare=no_bases, mutate=mutate_archive, check=check_archive),
)
