"""Command lines: flags from an options dataclass, and errors as one line with an exit code."""

from __future__ import annotations

import argparse
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
from utils.log import LOGGER, enable_console, print_line, report_error
from utils.malloc import out_of_memory, tune_malloc

Options = TypeVar("Options")
SPELLINGS = {  # further ones, which YOLOv5 accepts
    "imgsz": ("--img", "--img-size"),
    "batch_size": ("--batch",),
    "conf_thres": ("--conf",),
    "iou_thres": ("--iou",),
}
DEBUG = {"--debug"[:length] for length in (5, 6, 7)}  # shorter ones could be --device


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

    def _print_message(self, message: str, file: object = None) -> None:
        print_line(message.rstrip("\n"))  # help and version

    def error(self, message: str) -> NoReturn:
        """Refuse the command line."""
        self.refuse(message.rstrip("."))

    def refuse(self, what: str, *, fix: str = "") -> NoReturn:
        """Raise a ConfigError that names the script, or the module without its package. The default fix is --help."""
        module = self.prog.startswith("python -m ")
        where = self.prog.rpartition(".")[2] if module else self.prog
        command = self.prog if module else f"python {self.prog}"
        raise ConfigError(where, what, fix=fix or f"see `{command} --help`")


def _program() -> str:
    """Return how this program was started: its file, or `python -m` and the module."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is not None and spec.name.endswith(".__main__"):
        return f"python -m {spec.parent}"
    return os.path.basename(sys.argv[0]) or "program"


def build_parser(options_class: type[Any], *, description: str) -> OneLineParser:
    """Return the parser of an options dataclass; its result holds only the flags that were given."""
    parser = OneLineParser(
        prog=_program(),
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

    The fields of `options_class` are declared by `option`. A flag may be shortened to a unique prefix.

    Raises:
        ConfigError: an unknown flag (names the closest one), an ambiguous one, or an invalid value.
    """
    parser = build_parser(options_class, description=description)
    words = _complete_flags(sys.argv[1:] if argv is None else argv, parser, options_class)
    values, unknown = parser.parse_known_args(words)
    unknown = _drop_ignored(unknown, options_class)
    if unknown:
        if all(action.option_strings for action in parser._actions):  # otherwise a word may belong to no flag
            _check_number_of_values(words, parser)
        flags = [action.option_strings[0] for action in parser._actions if action.option_strings]
        parser.refuse(f"unknown argument {unknown[0]!r}", fix=did_you_mean(unknown[0], flags))
    given = {key: tuple(v) if isinstance(v, list) else v for key, v in vars(values).items() if key != "debug"}
    return options_class(**given), frozenset(given)


def _complete_flags(words: Sequence[str], parser: argparse.ArgumentParser, options_class: type[Any]) -> list[str]:
    """Return a command line with each unique prefix of a flag written out; ConfigError if a prefix is ambiguous.

    argparse would call a prefix of two spellings of one flag ambiguous, and does not know the ignored flags of YOLOv5.
    """
    actions = parser._actions
    flags = {spelling: f"--{action.dest}".replace("_", "-") for action in actions for spelling in action.option_strings}
    flags |= {flag: flag for name in ("IGNORED", "REFUSED") for flag in getattr(options_class, name, {})}
    completed = []
    for word in words:
        name, equals, value = word.partition("=")
        dashed = name.replace("_", "-")
        if dashed.startswith("--") and dashed != "--" and name not in flags:
            meant = {flag for spelling, flag in flags.items() if spelling.replace("_", "-").startswith(dashed)}
            meant = {flags[dashed]} if dashed in flags else meant
            if len(meant) > 1:
                raise ConfigError(name, f"is ambiguous: {', '.join(sorted(meant))}", fix="write one of them")
            name = next(iter(meant), name)
        completed.append(name + equals + value)
    return completed


def _check_number_of_values(words: Sequence[str], parser: argparse.ArgumentParser) -> None:
    """Raise a ConfigError if a flag that takes at most one value is followed by more of them."""
    actions = {spelling: action for action in parser._actions for spelling in action.option_strings}
    flag, count = "", 0
    for word in words:
        name, equals, _ = word.partition("=")
        if name in actions:
            flag, count = name, int(bool(equals))
            continue
        action, count = actions.get(flag), count + 1
        most = 0 if action is not None and action.nargs == 0 else 1
        if action is not None and action.nargs != "+" and count > most:
            raise ConfigError(flag, f"takes {('no', 'one')[most]} value (got also {word!r})", fix="remove the others")


def _drop_ignored(unknown: Sequence[str], options_class: type[Any]) -> list[str]:
    """Return the unknown arguments without the flags of `options_class.IGNORED`, which one warning lists.

    `IGNORED` maps flags of YOLOv5, such as `--entity`, to the reason why they are ignored; `REFUSED` maps those that
    are an error to the reason and what to do.
    """
    ignored: Mapping[str, str] = getattr(options_class, "IGNORED", {})
    refused: Mapping[str, tuple[str, str]] = getattr(options_class, "REFUSED", {})
    rest, named, dropping = [], [], False
    for word in unknown:
        flag = word.split("=")[0].replace("_", "-") if word.startswith("--") else ""
        if flag in refused:
            reason, fix = refused[flag]
            raise ConfigError(flag, f"is not supported: {reason}", fix=fix)
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
    if "WORLD_SIZE" in os.environ:  # else torch prints the calls that led to each lost connection, besides our line
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    debug = not DEBUG.isdisjoint(sys.argv)
    try:
        main()
    except DetectorError as error:
        if debug:
            traceback.print_exc()
        report_error(f"{'' if isinstance(error, RunStopped) else 'error: '}{error}")
        sys.exit(error.exit_code)
    except (RuntimeError, MemoryError) as error:
        if debug or not out_of_memory(error):
            raise
        print_line("error: out of memory. Fix: use a smaller --batch-size or --imgsz", to_stderr=True)
        sys.exit(1)
    except KeyboardInterrupt:
        print_line("interrupted (Ctrl-C)", to_stderr=True)
        sys.exit(130)
    sys.exit(0)
