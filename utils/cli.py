"""Command lines: flags from an options dataclass, and errors as one line with an exit code."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import math
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from utils import __version__
from utils.errors import ConfigError, DetectorError, RunStopped, did_you_mean
from utils.log import LOGGER, enable_console
from utils.malloc import out_of_memory, tune_malloc

Options = TypeVar("Options")
SPELLINGS = {"imgsz": ("--img", "--img-size"), "batch_size": ("--batch",)}  # further ones, which YOLOv5 accepts


def option(
    default: Any,  # noqa: ANN401 - value without the flag; False: a switch, a tuple: several values
    text: str,  # meaning with unit, for `--help`
    *,
    kind: Callable[[str], Any] | None = None,  # converts an argument; by default the type of `default`, or of its items
    bare: Any = None,  # noqa: ANN401 - value if the flag is given without an argument, which then is optional
    choices: Sequence[str] | None = None,  # the allowed values
    aliases: Sequence[str] = (),  # former names of the flag, accepted but not listed by `--help`
    within: tuple[float, float] = (-math.inf, math.inf),  # smallest and largest value, for the options class to check
    positional: bool = False,  # given by its place, without a flag
) -> Any:  # noqa: ANN401 - a dataclass field
    """Declare a dataclass field that is also a flag, named `--` and the field's name with dashes."""
    metadata = {"text": text, "kind": kind, "bare": bare, "choices": choices, "aliases": aliases, "within": within}
    metadata["positional"] = positional
    return dataclasses.field(default=default, metadata=metadata)


class OneLineParser(argparse.ArgumentParser):
    """A parser that raises one-line errors; its `prog` is a script, or `python -m` and a module."""

    def error(self, message: str) -> NoReturn:
        """Raise a ConfigError that names the script, or the module without its package."""
        module = self.prog.startswith("python -m ")
        where = self.prog.rpartition(".")[2] if module else self.prog
        command = self.prog if module else f"python {self.prog}"
        raise ConfigError(where, message.rstrip("."), fix=f"see `{command} --help`")


def build_parser(options_class: type[Any], *, description: str) -> argparse.ArgumentParser:
    """Return the parser of an options dataclass; its result holds only the flags that were given."""
    parser = OneLineParser(
        prog=os.path.basename(sys.argv[0]) or "program",
        description=description,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--debug", action="store_true", help="show the full traceback of an error")
    parser.add_argument("--version", action="version", version=f"akyolo {__version__}")
    ancestry = options_class.__mro__
    fields = dataclasses.fields(options_class)
    # The command's own options come first in --help, then the shared ones.
    for field in sorted(fields, key=lambda field: next(i for i, c in enumerate(ancestry) if field.name in vars(c))):
        names = ("--" + field.name.replace("_", "-"), "--" + field.name, *SPELLINGS.get(field.name, ()))
        settings = _argument_settings(field)
        if field.metadata["positional"]:
            del settings["dest"]
            parser.add_argument(field.name, **{**settings, "nargs": "?"})
            continue
        parser.add_argument(*dict.fromkeys(names), **settings)
        for alias in field.metadata["aliases"]:
            parser.add_argument(alias, **{**settings, "help": argparse.SUPPRESS})
    return parser


def _argument_settings(field: dataclasses.Field[Any]) -> dict[str, Any]:
    """Return the keyword arguments of `add_argument` for a field made by `option`."""
    text = field.metadata["text"].replace("%", "%%")
    if field.default is False:
        return {"dest": field.name, "action": "store_true", "help": text}
    default: Any = field.default
    many = isinstance(default, tuple)
    shown = " ".join(map(str, default)) if many else default
    example = (default or ("",))[0] if many else default
    settings: dict[str, Any] = {
        "dest": field.name,
        "type": field.metadata["kind"] or type(example),
        "choices": field.metadata["choices"],
        "metavar": field.name.upper() if not field.metadata["choices"] else None,
        "help": f"{text} (default: {shown})" if shown != "" else text,
    }
    if many:
        settings["nargs"] = "+"
    elif field.metadata["bare"] is not None:
        settings.update(nargs="?", const=field.metadata["bare"])
    return settings


def parse_options(
    options_class: type[Options], argv: Sequence[str] | None, *, description: str
) -> tuple[Options, frozenset[str]]:
    """Parse a command line, by default `sys.argv`, into the options and the names of those that were given.

    The fields of `options_class` are declared by `option`.

    Raises:
        ConfigError: an unknown flag (names the closest one), or an invalid value.
    """
    parser = build_parser(options_class, description=description)
    values, unknown = parser.parse_known_args(argv)
    unknown = _drop_ignored(unknown, options_class)
    if unknown:
        flags = [flag for action in parser._actions for flag in action.option_strings]
        hint = did_you_mean(unknown[0], flags) or f"see `python {parser.prog} --help`"
        raise ConfigError(parser.prog, f"unknown argument {unknown[0]!r}", fix=hint)
    given = {key: tuple(v) if isinstance(v, list) else v for key, v in vars(values).items() if key != "debug"}
    return options_class(**given), frozenset(given)


def _drop_ignored(unknown: Sequence[str], options_class: type[Any]) -> list[str]:
    """Return the unknown arguments without the flags of `options_class.IGNORED`, which one warning lists.

    `IGNORED` and `REFUSED` map flags of YOLOv5, such as `--entity`, to the reason why they are ignored or an error.
    """
    ignored: Mapping[str, str] = getattr(options_class, "IGNORED", {})
    refused: Mapping[str, str] = getattr(options_class, "REFUSED", {})
    rest, named, dropping = [], [], False
    for word in unknown:
        flag = word.split("=")[0].replace("_", "-") if word.startswith("--") else ""
        if flag in refused:
            raise ConfigError(flag, f"is not supported: {refused[flag]}", fix="leave it out")
        if flag in ignored:
            named.append(f"{flag} ({ignored[flag]})")
        dropping = flag in ignored or (dropping and not re.match(r"-(?!\d)", word))
        if not dropping:
            rest.append(word)
    if named:
        LOGGER.warning(f"ignored: {', '.join(named)}")
    return rest


def run_script(main: Callable[[], object]) -> NoReturn:
    """Run a script's main function; report an error as one line on stderr and an exit code.

    Exit codes: 0 success, 1 the run failed, 2 invalid input, 130 interrupted (Ctrl-C), 143 terminated (SIGTERM).
    """
    enable_console()
    tune_malloc()
    debug = "--debug" in sys.argv
    try:
        main()
        with contextlib.suppress(BrokenPipeError):
            sys.stdout.flush()
    except DetectorError as error:
        if debug:
            traceback.print_exc()
        print(f"{'' if isinstance(error, RunStopped) else 'error: '}{error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except (RuntimeError, MemoryError) as error:
        if debug or not out_of_memory(error):
            raise
        print("error: out of memory. Fix: use a smaller --batch-size or --imgsz", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted (Ctrl-C)", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    sys.exit(0)
