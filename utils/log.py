"""The program's one logger: messages for people on stdout, warnings on stderr."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator

from utils.errors import DataError, RunError

LOGGER = logging.getLogger("akyolo")


class _Console(logging.Handler):
    """Write information to stdout and warnings to stderr, prefixed; streams are looked up late so tests can capture."""

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if record.levelno >= logging.WARNING:
            print(f"{record.levelname.lower()}: {message}", file=sys.stderr, flush=True)
        else:
            print(message, flush=True)


def enable_console(level: int = logging.INFO) -> None:
    """Let the logger print. Called by scripts only, so that importing the package stays silent."""
    if not any(isinstance(handler, _Console) for handler in LOGGER.handlers):
        LOGGER.addHandler(_Console())
    LOGGER.setLevel(level)
    LOGGER.propagate = False


@contextlib.contextmanager
def optional() -> Iterator[None]:
    """Let an image or a table that cannot be made be a warning.

    A full disk, or an image that has gone from the data set since, is no reason to lose a training or its figures.
    """
    try:
        yield
    except (DataError, RunError) as error:
        LOGGER.warning(f"left out: {error}")
