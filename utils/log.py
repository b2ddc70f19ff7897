"""The program's logger: information on stdout, warnings on stderr, on any terminal, in any encoding."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
from collections.abc import Iterator

from utils.errors import DataError, RunError, one_line

LOGGER = logging.getLogger("akyolo")


class _Console(logging.Handler):
    """Write information to stdout, and warnings with a prefix to stderr; found late, so that tests can capture."""

    def emit(self, record: logging.LogRecord) -> None:
        print_line(console_text(record), to_stderr=record.levelno >= logging.WARNING)


def console_text(record: logging.LogRecord) -> str:
    """Return what the console shows: a warning as one line, information (also tables) without control characters."""
    message = record.getMessage()
    if record.levelno >= logging.WARNING:
        return f"{record.levelname.lower()}: {one_line(message)}"
    return (
        message if message.isprintable() else "\n".join(one_line(line, limit=len(line)) for line in message.split("\n"))
    )


def print_line(text: str, *, to_stderr: bool = False) -> None:
    """Print a line, above progress bars.

    A stream that fails, such as a pipe whose reader has gone, is silenced, and the run goes on.
    """
    stream = sys.stderr if to_stderr else sys.stdout
    bars = sys.modules.get("tqdm")  # a program that shows none has not imported it
    try:
        with bars.tqdm.external_write_mode(file=stream) if bars else contextlib.nullcontext():
            print(text, file=stream, flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        if not to_stderr:
            print_line(f"warning: standard output failed ({error.strerror}); continuing without it", to_stderr=True)


def report_error(line: str) -> None:
    """Print the line of an error, unless another process of torchrun on this machine has printed one.

    If one process fails, the others lose it, and each line after the first would hide the cause.
    """
    record = os.environ.get("TORCHELASTIC_ERROR_FILE", "")  # in <one start of the processes>/<local rank>/
    try:
        if record:
            os.close(
                os.open(os.path.join(os.path.dirname(os.path.dirname(record)), "reported"), os.O_CREAT | os.O_EXCL)
            )
    except FileExistsError:
        return
    except OSError:
        pass  # torchrun has no folder
    print_line(line, to_stderr=True)


def is_printable(text: str) -> bool:
    """Return whether the encoding of stdout has all characters of a text; GBK has no check mark."""
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "ascii")
        return True
    except (LookupError, UnicodeEncodeError):
        return False


def enable_console() -> None:
    """Let the logger print. Only scripts call this, so that importing the package stays silent."""
    _prepare_streams()
    if not any(isinstance(handler, _Console) for handler in LOGGER.handlers):
        LOGGER.addHandler(_Console())
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False


def _prepare_streams() -> None:
    """Open standard streams that the caller has closed, and let characters that an encoding lacks be escaped."""
    for handle, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            # Otherwise the next file opened gets this handle, and with it what libraries print.
            null = os.open(os.devnull, os.O_RDWR)
            if null > handle:
                os.close(null)
            flags, mode = (os.O_WRONLY, "w") if handle else (os.O_RDONLY, "r")
            setattr(sys, name, os.fdopen(os.open(os.devnull, flags), mode, encoding="utf-8"))
        stream = getattr(sys, name)
        if handle and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def optional() -> Iterator[None]:
    """Turn the failure to write an optional file, such as a plot, into a warning.

    A full disk or an image deleted from the data set must not cost a training or its results.
    """
    try:
        yield
    except (DataError, RunError) as error:
        LOGGER.warning(f"skipped: {error}")
