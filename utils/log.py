"""The program's logger: information on stdout, warnings on stderr."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator

from utils.errors import DataError, RunError

LOGGER = logging.getLogger("akyolo")


class _Console(logging.Handler):
    """Write information to stdout, and warnings with a prefix to stderr; looked up late, so that tests can capture."""

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if record.levelno >= logging.WARNING:
            print(f"{record.levelname.lower()}: {message}", file=sys.stderr, flush=True)
        else:
            print(message, flush=True)


def enable_console() -> None:
    """Let the logger print. Only scripts call this, so that importing the package stays silent."""
    if not any(isinstance(handler, _Console) for handler in LOGGER.handlers):
        LOGGER.addHandler(_Console())
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False


@contextlib.contextmanager
def optional() -> Iterator[None]:
    """Turn the failure to write an optional file, such as a plot, into a warning.

    A full disk or an image deleted from the data set must not cost a training or its results.
    """
    try:
        yield
    except (DataError, RunError) as error:
        LOGGER.warning(f"skipped: {error}")
