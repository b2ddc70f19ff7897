"""What the program must not do with an input: an audit hook, and what it prints past its own logger."""

from __future__ import annotations

import logging
import os
import sys
import sysconfig
import typing
import unicodedata
import warnings
from pathlib import Path

from utils.files import PROJECT_ROOT
from utils.log import LOGGER, console_text

MAX_LINE = 3100  # characters of a message, 1,000 of each of its parts
_FORBIDDEN = (
    *("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "os.kill", "os.startfile"),
    *("subprocess.", "pty.", "socket.", "urllib.", "ftplib.", "http.", "smtplib.", "webbrowser.", "pickle.find_class"),
)
_WRITING = {"os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod"}
_WRITING |= {"os.chown", "os.utime", "shutil.rmtree", "shutil.copyfile", "shutil.move", "shutil.copytree"}
_WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CODE = tuple({str(PROJECT_ROOT), sys.prefix, sys.base_prefix, *sysconfig.get_paths().values()})
_LITERAL = "<unknown>"  # how ast.literal_eval names what it parses, which is compiled but not executed


class Guard(logging.Handler):
    """Collects what a case does that it must not. Its audit hook stays for the life of the process."""

    def __init__(self, folder: Path) -> None:
        """Allow writing below `folder` only."""
        super().__init__()
        self.folder = str(folder)
        self.on = False
        self.violations: list[str] = []
        LOGGER.handlers = [self]
        LOGGER.setLevel(logging.INFO)
        LOGGER.propagate = False
        warnings.simplefilter("default")
        warnings.showwarning = self._warned  # type: ignore[assignment]
        sys.addaudithook(self._audit)

    def begin(self) -> None:
        """Forget the last case."""
        self.violations, self.on = [], True

    def end(self) -> list[str]:
        """Return what the case did that it must not."""
        self.on = False
        return self.violations[:5]

    def emit(self, record: logging.LogRecord) -> None:
        """Check a line that the program logs."""
        text = console_text(record)
        faults = map(line_fault, text.split("\n") if record.levelno < logging.WARNING else [text])
        self.violations += [f"logs {fault}: {text[:200]!r}" for fault in faults if fault]

    def _warned(self, message: object, category: type[Warning], *_: object, **__: object) -> None:
        if self.on and not issubclass(category, (DeprecationWarning, PendingDeprecationWarning, ImportWarning)):
            self.violations.append(f"prints Python's {category.__name__}: {str(message)[:150]}")

    def _audit(self, event: str, args: tuple) -> None:
        if self.on and (what := self._forbidden(event, args)):
            self.violations.append(what[:300])

    def _forbidden(self, event: str, args: tuple) -> str:
        if event.startswith(_FORBIDDEN):
            return f"{event} {args!r}"
        if event == "open":
            path, mode, flags = args
            writes = any(letter in mode for letter in "wax+") if mode else (flags or 0) & _WRITE_FLAGS
            return f"writes {path!r}" if writes and not self._ours(path) else ""
        if event in _WRITING:
            paths = [path for path in args if isinstance(path, (str, bytes, os.PathLike))]
            return "" if all(map(self._ours, paths)) else f"{event} {args!r}"
        if event in ("exec", "compile"):
            name = args[0].co_filename if event == "exec" else args[1] if isinstance(args[1], str) else ""
            ours = name.startswith(("<frozen", *_CODE)) or (event == "compile" and name == _LITERAL)
            return "" if ours or _own_code() else f"{event} of code in {name!r}"
        if event == "ctypes.dlopen" and args[0] and not str(args[0]).startswith(_CODE):
            return f"loads the library {args[0]!r}"
        return ""

    def _ours(self, path: object) -> bool:
        if isinstance(path, int):  # a file that is open already
            return True
        real = os.path.realpath(os.path.dirname(os.path.abspath(os.fsdecode(path))))  # type: ignore[type-var]
        return real.startswith(self.folder) or path in (os.devnull, os.fsencode(os.devnull))


def _own_code() -> bool:
    """Whether a module is being imported, which may generate code, as dataclasses do, or annotations are evaluated."""
    frame = sys._getframe(1)
    while frame is not None and not frame.f_code.co_filename.startswith(("<frozen importlib", typing.__file__)):
        frame = frame.f_back  # type: ignore[assignment]
    return frame is not None


def line_fault(text: str) -> str:
    """Return what is wrong with a line for people, or "": several lines, control characters, or far too long."""
    odd = next((c for c in text if unicodedata.category(c) in ("Cc", "Zl", "Zp")), "")
    if odd:
        return f"a line with the character {odd!r}"
    return f"a line of {len(text)} characters" if len(text) > MAX_LINE else ""
