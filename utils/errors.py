"""Typed errors. A script turns each into one line on stderr and an exit code."""

from __future__ import annotations

import copyreg
import difflib
import unicodedata
from collections.abc import Iterable
from typing import Any

MAX_TEXT = 1000  # characters of each part of a message, which quotes what stands in a file
_BREAKING = ("Cc", "Zl", "Zp")  # Unicode's control characters, and line and paragraph separators


class DetectorError(Exception):
    """An error that the user can act on: `where: what is wrong (value). Fix: what to do`.

    It is one line, whatever is quoted in it: see `one_line`.
    """

    exit_code = 2

    def __init__(self, where: object, what: str, *, fix: str = "") -> None:
        """Compose the line: `where` is a file, `file:line` or flag; `fix` is in the imperative without a full stop."""
        what = what if what.endswith("..") else what.removesuffix(".")  # libraries end their reasons with a full stop
        self.where, self.what, self.fix = one_line(str(where)), one_line(what), one_line(fix)
        stop = "" if self.fix.endswith("?") else "."
        super().__init__(f"{self.where}: {self.what}." + (f" Fix: {self.fix}{stop}" if fix else ""))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the composed line and all fields, so that the error can leave a worker process."""
        return copyreg.__newobj__, (type(self), *self.args), vars(self)  # type: ignore[attr-defined]


class ConfigError(DetectorError):
    """A model, data or hyperparameter YAML file or a flag is wrong."""


class DataError(DetectorError):
    """An image, a label file or a data set is wrong or missing."""


class CheckpointError(DetectorError):
    """A weights file is missing, damaged or incompatible."""


class RunError(DetectorError):
    """The run failed although its input was valid, such as by a non-finite loss or a full disk."""

    exit_code = 1


class RunStopped(DetectorError):  # noqa: N818 - not an error
    """The run was interrupted and has been saved; `exit_code` is the shell's code for the signal received."""

    def __init__(self, where: object, what: str, *, fix: str, exit_code: int) -> None:
        """Compose the line; `fix` says how to resume, and its command can be copied to the end of the line."""
        super().__init__(where, what, fix=fix)
        self.args = (f"{self.where}: {what}. {fix[:1].upper()}{fix[1:]}",)  # no stop after a command to be copied
        self.exit_code = exit_code


def one_line(text: str, *, limit: int = MAX_TEXT) -> str:
    """Return a text as part of one line: control characters and line breaks escaped, a long one without its middle."""
    if len(text) > limit:
        text = f"{text[: limit // 2]}...{text[-limit // 2 :]}"
    if text.isprintable():
        return text
    return "".join(c.encode("unicode_escape").decode() if unicodedata.category(c) in _BREAKING else c for c in text)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "did you mean A or B?" with up to three known names similar to `name` in any case, or ""."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    near = [by_lower[match] for match in difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.5)]
    return f"did you mean {' or '.join(near)}?" if near else ""
