"""What the documentation tells people to type: commands, flags, python, paths and links, found in its markdown."""

import re
import shlex
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "README.zh-CN.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
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
        language: of a block: "" if it names none, "indented" if it is indented; "span" within a sentence.
        text: as it stands there, a span's white space made single.
    """

    page: str
    language: str
    text: str


def pieces(page: Path) -> list[Piece]:
    """Return a page's code blocks, and the code spans of its sentences."""
    name = page.relative_to(ROOT).as_posix()
    text = page.read_text(encoding="utf-8")
    found: list[Piece] = []

    def fenced(match: re.Match[str]) -> str:
        found.append(Piece(name, match[1].strip(), match[2]))
        return "\n"

    def indented(match: re.Match[str]) -> str:
        found.append(Piece(name, "indented", textwrap.dedent(match[0]).strip("\n")))
        return "\n"

    text = re.sub(r"^```([^\n]*)\n(.*?)^```$", fenced, text, flags=re.M | re.S)
    text = re.sub(r"(?<=\n\n)(?:    .*\n|\n(?=    ))+", indented, text)
    for paragraph in re.split(r"\n\s*\n", text):
        found += [Piece(name, "span", " ".join(span.split())) for span in re.findall(r"`([^`]+)`", paragraph)]
    return found


ALL = [piece for page in PAGES for piece in pieces(page)]


def words_of(line: str) -> tuple[str, ...]:
    """Return a command's words, without comments and dots that stand for more."""
    return tuple(word for word in shlex.split(line, comments=True) if word not in ELLIPSES)


def commands_in(piece: Piece) -> list[tuple[str, ...]]:
    """Return the commands of a piece of code, their interpreter named `python`.

    Raises:
        ValueError: a block without a language holds a line that is no command.
    """
    commands = []
    for line in piece.text.replace("\\\n", " ").splitlines():
        first, _, rest = line.strip().partition(" ")
        if first in SCRIPTS and rest.startswith("-") and piece.language == "span":
            line = f"python {line}"
        elif first not in PROGRAMS or not rest:
            if piece.language in PLAIN_FENCES and line.strip() and not line.lstrip().startswith("#"):
                raise ValueError(f"{piece.page}: {line!r} is no command that is known; name the block's language")
            continue
        program, *words = words_of(line)
        commands.append(("python" if program in PYTHONS else program, *words))
    return commands


def all_commands() -> dict[tuple[str, ...], str]:
    """Return every command of the documentation, and a page that has it."""
    found: dict[tuple[str, ...], str] = {}
    for piece in ALL:
        if piece.language in (*PLAIN_FENCES, "indented", "span"):
            for command in commands_in(piece):
                found.setdefault(command, piece.page)
    return found


def all_flags() -> dict[str, str]:
    """Return every flag that a sentence mentions, and a page that does."""
    flags: dict[str, str] = {}
    for piece in ALL:
        if piece.language == "span" and piece.text.startswith("--"):
            for flag in re.findall(r"(?<!\S)--[A-Za-z][\w-]*", piece.text):
                flags.setdefault(flag, piece.page)
    return flags


def python_blocks() -> list[Piece]:
    """Return the blocks of python."""
    starts = ("from ", "import ", "@", "class ", "def ")
    return [p for p in ALL if p.language == "python" or (p.language == "indented" and p.text.startswith(starts))]
