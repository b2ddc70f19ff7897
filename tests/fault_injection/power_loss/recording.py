"""The operations of a process that change files below a folder, in order, as strace reports them.

strace sees system calls, so that nothing is missed that libraries in C do; that all is there shows in that the replayed
operations make the final tree, byte for byte.
"""

import ctypes
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

CALLS = (
    "open openat creat write pwrite64 writev pwritev pwritev2 truncate ftruncate fallocate copy_file_range sendfile "
    "splice lseek dup dup2 dup3 fsync fdatasync sync syncfs rename renameat renameat2 link linkat symlink symlinkat "
    "unlink unlinkat mkdir mkdirat rmdir mknod mknodat chdir fchdir"
).split()
LINE = re.compile(r"(\d+) +(?:<\.\.\. (\w+) resumed>|(\w+)\()(.*)$")
RESULT = re.compile(r"\) += (-?\d+)(?:<.*>)?.*$")
HANDLE = re.compile(r"(-?\d+|AT_FDCWD)<([^<>]*)>(\(deleted\))?$")
ANY_TRACER = -1  # PR_SET_PTRACER_ANY
SET_TRACER = 0x59616D61  # PR_SET_PTRACER, both of linux/prctl.h


class RecordingError(Exception):
    """A call that this module cannot replay."""


@dataclass(frozen=True)
class Operation:
    """One operation; paths are relative to the recorded folder, `..` in front of those outside."""

    kind: str  # create truncate write sync syncfs rename exchange link symlink unlink mkdir say
    path: str = ""
    other: str = ""  # the second path of rename, exchange and link; a symbolic link's target
    data: bytes = b""
    offset: int = 0  # of the data; for truncate the size
    begun: int = -1  # sync: the number of operations before the call began


def is_available() -> bool:
    """Whether strace is installed and may trace a process."""
    program = shutil.which("strace")
    return (
        program is not None and not subprocess.run([program, "-o", os.devnull, "true"], capture_output=True).returncode
    )


def record(action: Callable[[], int], folder: Path, log: Path) -> int:
    """Run an action in a traced child whose working directory is the folder; return its exit code."""
    child = os.fork()
    if child == 0:
        os.chdir(folder)
        ctypes.CDLL(None).prctl(SET_TRACER, ctypes.c_long(ANY_TRACER), 0, 0, 0)
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(action())
    os.waitpid(child, os.WUNTRACED)
    calls = ",".join(CALLS)
    command = ["strace", "-f", "-y", "-xx", "-s", "100000000", "-e", f"trace={calls}", "-e", "signal=none"]
    tracer = subprocess.Popen([*command, "-o", log, "-p", str(child)], stderr=subprocess.PIPE)
    while b"attached" not in tracer.stderr.readline():  # type: ignore[union-attr]
        if tracer.poll() is not None:
            os.kill(child, signal.SIGKILL)
            raise RecordingError("strace cannot attach")
    os.kill(child, signal.SIGCONT)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    tracer.wait()
    return status


def parse(text: str, folder: Path, said: Path) -> list[Operation]:
    """Return the operations of a log of strace -f -y -xx; its strings and paths are hexadecimal, free of commas.

    `said` is the file that standard output and error go to; writes to it become `say` operations.
    """
    parser = _Parser(folder, said)
    waiting: dict[str, tuple[str, int]] = {}
    for line in text.splitlines():
        match = LINE.match(line)
        if match is None:  # a signal or the end of a process
            continue
        pid, resumed, name, rest = match.groups()
        begun = len(parser.operations)
        if rest.endswith("<unfinished ...>"):
            waiting[pid] = rest.removesuffix("<unfinished ...>"), begun
            continue
        if resumed:
            start, begun = waiting.pop(pid)
            name, rest = resumed, start + rest.lstrip()
        result = RESULT.search(rest)
        if result is not None and int(result[1]) >= 0:
            parser.call(name, rest[: result.start()].split(", "), int(result[1]), rest[result.start() :], begun)
    return parser.operations


def _plain(text: str) -> bytes:
    """Return the bytes of a string as strace -xx prints it."""
    return bytes.fromhex(text.strip().strip('"').replace("\\x", ""))


class _Parser:
    """Turns calls into operations below a folder."""

    def __init__(self, folder: Path, said: Path) -> None:
        self.folder, self.said = os.fsencode(folder), os.fsencode(said)
        self.operations: list[Operation] = []
        # By handle and path, in a list that duplicates of a handle share; -1 while appending.
        self._offsets: dict[tuple[int, bytes], list[int]] = {}

    def add(self, kind: str, path: str, **more: object) -> None:
        self.operations.append(Operation(kind, path, **more))  # type: ignore[arg-type]

    def relative(self, path: bytes) -> str | None:
        """Return a path relative to the folder, or None if it is outside."""
        path = os.path.normpath(path if path.startswith(b"/") else self.folder + b"/" + path)
        if path == self.folder:
            return "."
        return os.fsdecode(path[len(self.folder) + 1 :]) if path.startswith(self.folder + b"/") else None

    def handle(self, text: str) -> tuple[int, bytes] | None:
        """Return number and path of an open file; None if it is deleted or no file."""
        match = HANDLE.match(text.strip())  # the last argument of a call that strace splits ends with a space
        path = _plain(match[2]) if match and not match[3] else b""
        return (int(match[1]), path) if match and path.startswith(b"/") else None  # or a pipe

    def call(self, name: str, arguments: list[str], result: int, tail: str, begun: int) -> None:
        """Add the operations of one call that succeeded."""
        if name in ("rename", "link", "symlink", "unlink", "mkdir", "rmdir", "creat", "truncate"):
            self.path_call(name, arguments)
        elif name in ("renameat", "renameat2"):
            exchange = len(arguments) > 4 and "RENAME_EXCHANGE" in arguments[4]
            self.path_call("exchange" if exchange else "rename", [self.at(arguments), self.at(arguments[2:])])
        elif name == "linkat":
            self.path_call("link", [self.at(arguments), self.at(arguments[2:])])
        elif name == "symlinkat":
            self.path_call("symlink", [arguments[0], self.at(arguments[1:])])
        elif name == "unlinkat":
            self.path_call("unlink", [self.at(arguments)])
        elif name == "mkdirat":
            self.path_call("mkdir", [self.at(arguments)])
        elif name in ("open", "openat"):
            self.opened(arguments, tail)
        elif name in ("dup", "dup2", "dup3"):
            self.duplicated(arguments, result)
        elif name in ("sync", "syncfs"):
            self.operations.append(Operation("syncfs", begun=begun))
        elif name not in ("chdir", "fchdir"):
            self.file_call(name, arguments, result, begun)

    def at(self, arguments: list[str]) -> str:
        """Return the absolute path of a folder's handle and a name, in hexadecimal."""
        path = _plain(arguments[1])
        if not path.startswith(b"/"):
            path = _plain(arguments[0].partition("<")[2].rstrip(">")) + b"/" + path
        return "".join(f"\\x{byte:02x}" for byte in path)

    def path_call(self, name: str, arguments: list[str]) -> None:
        paths = [self.relative(_plain(text)) for text in arguments[:2] if text.startswith(('"', "\\"))]
        if name == "symlink":
            if paths[1] is not None:
                self.add("symlink", paths[1], other=os.fsdecode(_plain(arguments[0])))
        elif name in ("rename", "exchange", "link"):
            source, target = paths
            if name == "link" and target is not None and source is None:
                source = "../" + os.fsdecode(_plain(arguments[0]))
            if (source is None) != (target is None):
                raise RecordingError(f"{name} from or to another folder: {arguments}")
            if source is not None and target is not None:
                self.add(name, source, other=target)
        elif paths[0] is not None:
            self.add(
                "unlink" if name == "rmdir" else name, paths[0], offset=int(arguments[1]) if name == "truncate" else 0
            )

    def opened(self, arguments: list[str], tail: str) -> None:
        """A file that is opened; the path is that of the resulting handle, which is absolute."""
        opened = self.handle(tail.partition("= ")[2].strip())
        flags = next((text for text in arguments if text.startswith("O_")), "")
        if opened is None or (path := self.relative(opened[1])) is None:
            return
        if "O_SYNC" in flags or "O_DSYNC" in flags:
            raise RecordingError(f"{path} is opened with {flags}")
        self._offsets[opened] = [-1 if "O_APPEND" in flags else 0]
        if "O_CREAT" in flags or "O_TRUNC" in flags:
            self.add("create", path)
        if "O_TRUNC" in flags:
            self.add("truncate", path)

    def duplicated(self, arguments: list[str], result: int) -> None:
        """A second handle of an open file, which has the same offset."""
        opened = self.handle(arguments[0])
        if opened is not None:
            self._offsets[result, opened[1]] = self._offsets.setdefault(opened, [0])

    def file_call(self, name: str, arguments: list[str], result: int, begun: int) -> None:
        """A call on an open file."""
        opened = self.handle(arguments[0])
        if opened is None:
            return
        if opened[1] == self.said and name == "write":
            self.add("say", "", data=_plain(arguments[1]))
        path = self.relative(opened[1])
        if path is None:
            return
        place = self._offsets.setdefault(opened, [0])
        offset = place[0]
        if name in ("fsync", "fdatasync"):
            self.add("sync", path, begun=begun)
        elif name == "lseek":
            place[0] = result
        elif name == "write":
            self.add("write", path, data=_plain(arguments[1])[:result], offset=offset)
            place[0] = offset if offset < 0 else offset + result
        elif name == "pwrite64":
            self.add("write", path, data=_plain(arguments[1])[:result], offset=int(arguments[3]))
        elif name == "ftruncate":
            self.add("truncate", path, offset=int(arguments[1]))
        elif name == "sendfile" and arguments[2].startswith("[0]") and offset == 0:
            source = self.handle(arguments[1])
            self.add("write", path, data=Path(os.fsdecode(source[1])).read_bytes()[:result])  # type: ignore[index]
        elif not (name == "sendfile" and result == 0):
            raise RecordingError(f"{name} on {path}: {arguments}")
