"""Archives that do what no honest data set does, one idea each: HOSTILE maps names to functions that build them."""

import bz2
import gzip
import io
import stat
import struct
import tarfile
import zipfile
import zlib

GOOD = b"0 .5 .5 .2 .2\n"
LIMIT = 2000  # members; the tests lower MAX_MEMBERS to it


def zipped(*members, compression=zipfile.ZIP_DEFLATED):
    """Members are (name, content) or (ZipInfo, content)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


def special(name, mode):
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, (mode | 0o777) << 16
    return info


def tarred(*members):
    """Members are (name, content) or TarInfo."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    return buffer.getvalue()


def typed(name, kind, target="", size=0):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, size
    return info


def patched(data, name, offset, value):
    """Overwrite bytes of a zip's local header and central entry; `offset` is that of the central entry."""
    data = bytearray(data)
    for signature, shift in ((b"PK\1\2", 0), (b"PK\3\4", -2)):
        place = data.find(signature)
        while place >= 0:
            data[place + offset + shift : place + offset + shift + len(value)] = value
            place = data.find(signature, place + 1)
    return bytes(data)


def claiming(size):
    """A zip of one small file whose entry claims `size` bytes, compressed and not."""
    data = zipped(("labels/a.txt", GOOD))
    data = patched(data, "labels/a.txt", 24, struct.pack("<I", size))
    return patched(data, "labels/a.txt", 20, struct.pack("<I", size))


def header_bomb():
    """A tar with a very long extended header: zeros, compressed a thousandfold."""
    length = 80_000_000
    header = typed("x", tarfile.XHDTYPE, size=length).tobuf()
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    chunk = bytes(1_000_000)
    return (
        packer.compress(header) + b"".join(packer.compress(chunk) for _ in range(length // len(chunk))) + packer.flush()
    )


def overlapping():
    """A zip whose central directory lists one compressed file 400 times."""
    single = zipped(("labels/000.txt", bytes(20_000)))
    start, end = single.index(b"PK\1\2"), single.index(b"PK\5\6")
    entry, count = single[start:end], 400
    central = b"".join(entry.replace(b"labels/000", b"labels/%03d" % number) for number in range(count))
    tail = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, count, count, len(central), start, 0)
    return single[:start] + central + tail


HOSTILE = {
    "zip absolute": lambda: zipped(("/tmp/evil.txt", GOOD)),
    "zip parent": lambda: zipped(("../evil.txt", GOOD)),
    "zip parent inside": lambda: zipped(("labels/../../evil.txt", GOOD)),
    "zip backslashes": lambda: zipped(("labels\\..\\..\\evil.txt", GOOD)),
    "zip drive": lambda: zipped(("C:/evil.txt", GOOD)),
    "zip network path": lambda: zipped(("\\\\host\\share\\evil.txt", GOOD)),
    "zip control letters": lambda: zipped(("labels/a\x1b[2Jb.txt", GOOD)),
    "zip null byte": lambda: patched(zipped(("labels/a.txt.py", GOOD)), "", 46 + 12, b"\0"),
    "zip of 2000 folders": lambda: zipped(("a/" * 2000 + "x.jpg", GOOD), ("b.txt", GOOD)),
    "tar of 2000 folders": lambda: tarred(("a/" * 2000 + "x.jpg", GOOD), ("b.txt", GOOD)),
    "zip of a long name": lambda: zipped(("a" * 300 + ".txt", GOOD)),
    "zip of a long name in another script": lambda: zipped(("\u732b" * 90 + ".txt", GOOD)),
    "zip symbolic link": lambda: zipped((special("labels/a.txt", stat.S_IFLNK), b"/etc/passwd")),
    "zip link to a folder, then through it": lambda: zipped(
        (special("labels", stat.S_IFLNK), b"/tmp"), ("labels/evil.txt", GOOD)
    ),
    "zip device": lambda: zipped((special("labels/a.txt", stat.S_IFCHR), b"")),
    "zip pipe": lambda: zipped((special("labels/a.txt", stat.S_IFIFO), b"")),
    "zip encrypted": lambda: patched(zipped(("labels/a.txt", GOOD)), "", 8, b"\1"),
    "zip bomb": lambda: zipped(("labels/a.txt", bytes(30_000_000))),
    "zip bomb of many": lambda: zipped(*((f"labels/{i}.txt", bytes(900_000)) for i in range(40))),
    "zip overlapping": overlapping,
    "zip claims 4 GB": lambda: claiming(0xFFFFFFF0),
    "zip claims a little more": lambda: claiming(5000),
    "zip twice": lambda: zipped(("labels/a.txt", GOOD), ("labels/./a.txt", b"other")),
    "zip below a file": lambda: zipped(("labels/a.txt", GOOD), ("labels/a.txt/b.txt", GOOD)),
    "zip of too many": lambda: zipped(*((f"labels/{i}.txt", b"") for i in range(LIMIT + 1))),
    "zip cut off": lambda: zipped(("labels/a.txt", GOOD), ("labels/b.txt", GOOD))[:-30],
    "zip damaged": lambda: zipped(("labels/a.txt", GOOD * 50)).replace(zlib.compress(GOOD * 50)[2:8], b"\xff" * 6),
    "tar absolute": lambda: tarred(("/tmp/evil.txt", GOOD)),
    "tar parent": lambda: tarred(("labels/../../evil.txt", GOOD)),
    "tar symbolic link": lambda: tarred(typed("labels/a.txt", tarfile.SYMTYPE, "/etc/passwd")),
    "tar link, then through it": lambda: tarred(typed("labels", tarfile.SYMTYPE, "/tmp"), ("labels/evil.txt", GOOD)),
    "tar hard link": lambda: tarred(typed("labels/a.txt", tarfile.LNKTYPE, "/etc/passwd")),
    "tar character device": lambda: tarred(typed("labels/a.txt", tarfile.CHRTYPE)),
    "tar block device": lambda: tarred(typed("labels/a.txt", tarfile.BLKTYPE)),
    "tar pipe": lambda: tarred(typed("labels/a.txt", tarfile.FIFOTYPE)),
    "tar claims 300 GB": lambda: tarred(typed("labels/a.txt", tarfile.REGTYPE, size=300_000_000_000)),
    "tar bomb": lambda: gzip.compress(tarred(("labels/a.txt", bytes(30_000_000)))),
    "tar bomb, bz2": lambda: bz2.compress(tarred(("labels/a.txt", bytes(30_000_000)))),
    "tar bomb in a header": header_bomb,
    "tar of too many": lambda: tarred(*((f"labels/{i}.txt", b"") for i in range(LIMIT + 1))),
    "tar cut off": lambda: gzip.compress(tarred(("labels/a.txt", GOOD), ("labels/b.txt", GOOD)))[:-40],
    "no archive": lambda: b"<html>Sign in</html>" * 100,
    "empty": lambda: b"",
}
