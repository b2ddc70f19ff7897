"""Runs the program's commands as new processes would, but without their import of torch, which takes seconds.

A server imports everything once, with the flags and environment of its interpreter, and forks for each command. The
child gets its own folder, environment, rights and namespaces, and runs the same main function as the script.
"""

import atexit
import contextlib
import ctypes
import fcntl
import gc
import importlib
import json
import os
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from utils.cli import run_script
from utils.files import PROJECT_ROOT

MODULES = {"utils.datasets.convert": ("utils.datasets.convert.__main__", "convert")}
MODULES |= {name: (f"{name}.__main__", "main") for name in ("models", "utils.explain")}
MODULES |= {name: (name, "main") for name in ("utils.datasets.download", "utils.compiled")}
PRELOADED = (
    "matplotlib.pyplot pandas cv2 onnxruntime onnx torchvision utils.training.run utils.detection.run "
    "utils.validation.run utils.comparison.run utils.export.run utils.explain.run utils.preparation.run "
    "utils.datasets.download utils.datasets.convert.__main__ utils.benchmarks.akconv utils.inference.exported_model "
    "utils.training.evolve utils.inference.engine"
).split()
ISOLATED = ("unshare", "--net")  # root only; `can_isolate` tells
LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Outcome:
    """What a command did; `events` are the dangerous ones of the audit hook, each a name and its arguments."""

    code: int | None
    out: str
    err: str
    events: list[list[str]] = field(default_factory=list)

    @property
    def errors(self) -> list[str]:
        """The lines on stderr that are no warnings."""
        return [line for line in self.err.splitlines() if not line.startswith("warning: ")]


class ForkedScripts:
    """The client of a server."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process

    def run(self, command: list[str], *, cwd: Path, timeout: float = 120, **request: object) -> Outcome:
        """Run `["train.py", ...]` or `["-m", "models", ...]`.

        `env` (name to value, None: unset) changes the environment; `rights` False enforces permissions on root;
        `read_only` are folders mounted read-only; `audit` are folders that may be written, while all else is recorded;
        `file_size` limits files, in bytes.
        """
        request |= {"command": command, "cwd": str(cwd), "timeout": timeout}
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return Outcome(**json.loads(self.process.stdout.readline()))


@contextlib.contextmanager
def forked_scripts(
    *flags: str, prefix: tuple[str, ...] = (), env: dict[str, str] | None = None
) -> Iterator[ForkedScripts]:
    """Yield a server whose interpreter has the given flags and changed environment."""
    environment = {**os.environ, "PYTHONPATH": str(PROJECT_ROOT), "OMP_NUM_THREADS": "1", **(env or {})}
    command = [*prefix, sys.executable, *flags, "-m", "tests.helpers.forked_scripts"]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        yield ForkedScripts(server)
        assert server.stdin is not None
        server.stdin.close()
        server.wait(60)


def can_isolate() -> bool:
    """Whether this user may create network and mount namespaces."""
    if sys.platform != "linux" or shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True).returncode == 0


def loopback_up() -> None:
    """Switch on the loopback device of this process's network namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device:
        fcntl.ioctl(device, 0x8914, struct.pack("16sh", b"lo", 0x1 | 0x40))  # SIOCSIFFLAGS: up, running


def drop_rights() -> None:
    """Enforce the permissions of files on root too: give up CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH and CAP_FOWNER."""
    header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    LIBC.capget(header, data)
    for index in (0, 1):  # effective, permitted
        data[index] &= ~0b1110
    if os.geteuid() == 0 and LIBC.capset(header, data):
        raise OSError(ctypes.get_errno(), "capset")


def mount_read_only(folders: list[str]) -> None:
    """Mount folders read-only, for this process only."""
    flag_private, flag_bind, flag_read_only, flag_remount, new_mounts = 0x40000 | 0x4000, 0x1000, 1, 0x20, 0x20000
    calls = [("unshare", (new_mounts,)), ("mount", (b"none", b"/", None, flag_private, None))]
    for folder in map(os.fsencode, folders):
        calls += [("mount", (folder, folder, None, flag_bind, None))]
        calls += [("mount", (folder, folder, None, flag_bind | flag_remount | flag_read_only, None))]
    for name, arguments in calls if folders else ():
        if getattr(LIBC, name)(*arguments):
            raise OSError(ctypes.get_errno(), name)


class Audit:
    """An audit hook that records what a command must not do: run code, start programs, connect, write elsewhere."""

    NEVER = {"os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen", "pickle.find_class"}
    NEVER |= {"socket.connect", "socket.getaddrinfo", "socket.sendto", "socket.bind"}
    CODE = {"exec": "co_filename", "compile": "", "import": ""}
    CHANGES = {"os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod"}
    CHANGES |= {"os.chown", "os.utime", "shutil.rmtree", "os.setxattr", "os.mkfifo", "os.mknod", "sqlite3.connect"}
    # Where an event has the open folder (`dir_fd`) of its first path, as when a tree is removed.
    OPEN_FOLDER = {"os.remove": 1, "os.rmdir": 1, "shutil.rmtree": 1, "os.mkdir": 2, "os.chmod": 2, "os.rename": 2}

    def __init__(self, writable: list[str]) -> None:
        self.writable = tuple(os.path.realpath(path) for path in (*writable, os.devnull))
        self.libraries = (sys.prefix, sys.base_prefix, str(PROJECT_ROOT), "<frozen", os.path.realpath(sys.prefix))
        self.events: list[list[str]] = []

    def __call__(self, event: str, args: tuple) -> None:
        if event in self.NEVER:
            self.record(event, args)
        elif event == "ctypes.dlopen" and args[0] and not str(args[0]).startswith(self.libraries):
            self.record(event, args)
        elif event in self.CODE:
            name = getattr(args[0], "co_filename", None) if event == "exec" else args[1]
            # Importing a module: its name is recorded only if the file is not one of ours or the libraries'.
            # "<unknown>" is text that is parsed as a literal: to be run, it would have to appear as `exec` too.
            parsed = event == "compile" and name == "<unknown>"
            if event != "import" and not parsed and not str(name).startswith(self.libraries):
                self.record(event, (name, str(args[0])[:80] if event == "compile" else ""))
            elif event == "import" and args[1] and not str(args[1]).startswith(self.libraries):
                self.record(event, args[:2])
        elif event == "open" and isinstance(args[0], (str, bytes)):
            writes = isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            if writes and not self.may_write(args[0]):
                self.record(event, args)
        elif event in self.CHANGES:
            folder = args[self.OPEN_FOLDER[event]] if len(args) > self.OPEN_FOLDER.get(event, len(args)) else None
            base = os.readlink(f"/proc/self/fd/{folder}") if isinstance(folder, int) and folder >= 0 else ""
            paths = [os.path.join(base, os.fsdecode(a)) for a in args[:2] if isinstance(a, (str, bytes))]
            if not all(map(self.may_write, paths)):
                self.record(event, args)

    def may_write(self, path: str | bytes) -> bool:
        folder, name = os.path.split(os.path.abspath(os.fsdecode(path)))  # a link is replaced, not what it leads to
        text = os.path.join(os.path.realpath(folder), name)
        return text.startswith(self.writable) or text.startswith("/proc/self")

    def record(self, event: str, args: tuple) -> None:
        self.events.append([event, repr(args)[:300]])


def run_child(request: dict, pipe: int) -> None:
    """Become the command; never returns."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.setpgid(0, 0)
    for name, value in request.get("env", {}).items():
        os.environ.pop(name, None) if value is None else os.environ.update({name: value})
    os.chdir(request["cwd"])
    mount_read_only(request.get("read_only", []))
    if request.get("rights") is False:
        drop_rights()
    if "file_size" in request:
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["file_size"],) * 2)
    program, *words = request["command"]
    if program == "-m":
        program, *words = words
        module, function = MODULES[program]
        sys.modules["__main__"].__spec__ = importlib.util.find_spec(module)
        sys.argv = [str(importlib.import_module(module).__file__), *words]
    else:
        module, function = program.removesuffix(".py"), "main"
        sys.argv = [str(PROJECT_ROOT / program), *words]
    main = getattr(importlib.import_module(module), function)
    audit = Audit(request["audit"]) if "audit" in request else None
    if audit is not None:
        sys.addaudithook(audit)
    code: int | None = 1
    try:
        run_script(main)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc()
    events = list(audit.events) if audit is not None else []
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.getrlimit(resource.RLIMIT_FSIZE)[1],) * 2)
    os.write(pipe, json.dumps({"code": code, "events": events[:50]}).encode())
    os._exit(0)


def serve() -> None:
    """Answer requests from stdin until it ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    outputs = [os.memfd_create(name) for name in ("stdout", "stderr")]
    requests = os.fdopen(os.dup(0), "rb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, file in enumerate(outputs, 1):
        os.dup2(file, number)
    for name in PRELOADED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    if os.environ.get("LOOPBACK"):
        loopback_up()
    gc.collect()
    gc.freeze()
    for line in requests:
        request = json.loads(line)
        for file in outputs:
            os.ftruncate(file, 0)
            os.lseek(file, 0, os.SEEK_SET)
        reading, writing = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(reading)
            run_child(request, writing)
        os.close(writing)
        answers.write(json.dumps(_outcome(pid, reading, request["timeout"], outputs)) + "\n")
        answers.flush()


def _outcome(pid: int, reading: int, timeout: float, outputs: list[int]) -> dict[str, object]:
    """Wait for a child and return what it did; one that takes too long is killed, and has no exit code."""
    deadline = time.monotonic() + timeout
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            break
        time.sleep(0.005)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # workers that are left
    with os.fdopen(reading, "rb") as pipe:
        result = json.loads(pipe.read() or '{"code": null}')
    texts = [os.pread(file, 1 << 20, 0).decode("utf-8", "backslashreplace") for file in outputs]
    return {**result, "out": texts[0], "err": texts[1]}


if __name__ == "__main__":
    serve()
