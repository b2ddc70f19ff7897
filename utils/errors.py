"""Typed errors. A script turns each into one line on stderr and an exit code."""

from __future__ import annotations

import copyreg
import difflib
from collections.abc import Iterable
from typing import Any


class DetectorError(Exception):
    """An error that the user can act on: `where: what is wrong (value). Fix: what to do`."""

    exit_code = 2

    def __init__(self, where: object, what: str, *, fix: str = "") -> None:
        """Compose the line: `where` is a file, `file:line` or flag; `fix` is in the imperative without a full stop."""
        what = what if what.endswith("..") else what.removesuffix(".")  # libraries end their reasons with a full stop
        self.where, self.what, self.fix = str(where), what, fix
        stop = "" if fix.endswith("?") else "."
        super().__init__(f"{self.where}: {what}." + (f" Fix: {fix}{stop}" if fix else ""))

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


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "did you mean A or B?" with up to three known names similar to `name` in any case, or ""."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    near = [by_lower[match] for match in difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.5)]
    return f"did you mean {' or '.join(near)}?" if near else ""
