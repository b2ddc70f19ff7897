"""The whole of prepare.py: recognise, read, check the classes, split, write; or check a prepared data set."""

from __future__ import annotations

from collections.abc import Collection

from utils.errors import ConfigError
from utils.options.preparation import PrepareOptions


def run_preparation(options: PrepareOptions, given: Collection[str]) -> int:
    """Prepare the data set, or check it with `--check`, and return the exit code.

    Args:
        options: the command line.
        given: names of the options that were given; a given `--split` replaces the splits of the source.

    Raises:
        ConfigError: an option is invalid.
        DataError: the source is in no format that is known, or in several, or is damaged.
        RunError: the target cannot be written.
    """
    if options.check:
        from utils.preparation.doctor import run_check

        return run_check(options)
    raise ConfigError(options.source, "cannot be converted yet", fix="use `python -m utils.datasets.convert`")
