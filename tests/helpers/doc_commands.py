"""The code in the documentation: commands, flags and Python, extracted from its Markdown."""

import re
import shlex
import textwrap
from dataclasses import dataclass
from pathlib import Path

from torch.distributed.run import get_args_parser as torchrun_parser

Command = tuple[str, ...]
ROOT = Path(__file__).resolve().parents[2]
ENGLISH = sorted((ROOT / "docs").glob("*.md"))
CHINESE = sorted((ROOT / "docs/zh").glob("*.md"))  # with the code of the English pages (test_docs.py)
DEV = sorted((ROOT / "docs").glob("dev/*.md"))  # English only
PAGES = [*(ROOT / name for name in ("README.md", "README.zh-CN.md", "CONTRIBUTING.md")), *ENGLISH, *CHINESE, *DEV]
SCRIPTS = sorted(path.name for path in ROOT.glob("*.py"))
PYTHONS = ("python", "python3", ".venv/bin/python")
PROGRAMS = (*PYTHONS, "torchrun", "pip", "make", "trtexec")
ELLIPSES = ("…", "...")
PLAIN_FENCES = ("", "bash", "sh", "shell", "console")


@dataclass(frozen=True)
class Piece:
    """A piece of code in a page.

    Attributes:
        page: path from the repository's root.
        language: of a fenced block, "" if it has none; "indented" for an indented block; "span" within a sentence.
        text: the code; white space within a span is normalized.
    """

    page: str
    language: str
    text: str


def pieces(page: Path) -> list[Piece]:
    """Return a page's code blocks and code spans."""
    name = page.relative_to(ROOT).as_posix()
    text = page.read_text(encoding="utf-8")
    result: list[Piece] = []

    def fenced(match: re.Match[str]) -> str:
        result.append(Piece(name, match[1].strip(), match[2]))
        return "\n"

    def indented(match: re.Match[str]) -> str:
        result.append(Piece(name, "indented", textwrap.dedent(match[0]).strip("\n")))
        return "\n"

    text = re.sub(r"^```([^\n]*)\n(.*?)^```$", fenced, text, flags=re.M | re.S)
    text = re.sub(r"(?<=\n\n)(?:    .*\n|\n(?=    ))+", indented, text)
    for paragraph in re.split(r"\n\s*\n", text):
        result += [Piece(name, "span", " ".join(span.split())) for span in re.findall(r"`([^`]+)`", paragraph)]
    return result


ALL = [piece for page in PAGES for piece in pieces(page)]


def split_command(line: str) -> Command:
    """Return a command's words without comments and ellipses."""
    return tuple(word for word in shlex.split(line, comments=True) if word not in ELLIPSES)


def commands_in(piece: Piece) -> list[Command]:
    """Return the commands of a piece of code; the Python interpreter is always named `python`.

    Raises:
        ValueError: a line of a block without a language is not a known command.
    """
    commands = []
    for line in piece.text.replace("\\\n", " ").splitlines():
        first, _, rest = line.strip().partition(" ")
        if first in SCRIPTS and rest.startswith("-") and piece.language == "span":
            line = f"python {line}"
        elif first not in PROGRAMS or not rest:
            if piece.language in PLAIN_FENCES and line.strip() and not line.lstrip().startswith("#"):
                raise ValueError(f"{piece.page}: {line!r} is not a known command; give the block a language")
            continue
        program, *words = split_command(line)
        commands.append(("python" if program in PYTHONS else program, *words))
    return commands


def all_commands() -> dict[Command, str]:
    """Return every command of the documentation with a page that contains it."""
    pages: dict[Command, str] = {}
    for piece in ALL:
        if piece.language in (*PLAIN_FENCES, "indented", "span"):
            for command in commands_in(piece):
                pages.setdefault(command, piece.page)
    return pages


def all_flags() -> dict[str, str]:
    """Return every flag that a sentence mentions with a page that contains it."""
    flags: dict[str, str] = {}
    for piece in ALL:
        if piece.language == "span" and piece.text.startswith("--"):
            for flag in re.findall(r"(?<!\S)--[A-Za-z][\w-]*", piece.text):
                flags.setdefault(flag, piece.page)
    return flags


def python_blocks() -> list[Piece]:
    """Return the blocks of Python of the English pages; the Chinese ones have the same."""
    starts = ("from ", "import ", "@", "class ", "def ")
    pieces_of_english = [piece for piece in ALL if not piece.page.startswith("docs/zh/")]
    return [
        piece
        for piece in pieces_of_english
        if piece.language == "python" or (piece.language == "indented" and piece.text.startswith(starts))
    ]


def python_block(page: str, start: str) -> str:
    """Return the only block of Python in a page that starts with a text."""
    (block,) = [piece.text for piece in python_blocks() if piece.page == page and piece.text.startswith(start)]
    return block


def program_of(command: Command) -> str:
    """Return the script or module that a command runs."""
    if command[0] == "torchrun":
        return str(torchrun_parser().parse_args(command[1:]).training_script)
    return command[2] if command[1] == "-m" else command[1]
