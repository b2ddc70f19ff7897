"""Files that no command reads after a crash: states that differ in their contents only have one outcome."""

import os
import re
import sys
from pathlib import PurePath
from typing import Any

from utils.files import LEFTOVER

FOLDER_LEFTOVER = re.compile(r"\..*\.\w{8}\.tmp")
SHOWN = (".png", ".svg", ".pdf", ".html", ".md")
UNREAD = 97  # exit code


def is_leftover(path: PurePath) -> bool:
    """Whether a path is, or lies in, what an interrupted write leaves."""
    return any(LEFTOVER.fullmatch(part) or FOLDER_LEFTOVER.fullmatch(part) for part in path.parts)


def is_unread(path: PurePath) -> bool:
    """Whether no command reads a file that an earlier one has left, other than to show it to a person."""
    return is_leftover(path) or ("compare" in path.parts and (path.suffix in SHOWN or "figures" in path.parts))


def forbid_reading(files: set[str]) -> None:
    """End this process if Python opens one of the files, unless it has written it: they decide nothing."""

    def check(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str) and os.path.abspath(arguments[0]) in files:
            os._exit(UNREAD)
        elif event == "os.rename":
            files.discard(os.path.abspath(arguments[1]))

    if files:
        sys.addaudithook(check)
