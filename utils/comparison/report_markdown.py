"""The markdown of compare.md: written so that no name is taken for a mark, and turned into the HTML of report.html."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

LONG_NAME = 20  # letters
FENCE = re.compile(r"`{3,}")
# What a reader of markdown would take for a mark: of code, emphasis, columns, links, tags and letters by number.
MARKS = re.compile(r"[\\`*|]|(?<![^\W_])_|_(?![^\W_])|~(?=~)|(?<=])\(|<(?=[A-Za-z/!?])|&(?=#?\w+;)")
INLINE = re.compile(r"\\([!-/:-@\[-`{-~])|`([^`]+)`|\*\*([^*]+)\*\*")


def plain(text: str) -> str:
    """Return a text as one line of markdown that shows it as it is: a class may be called `a | b` or `<b>`."""
    return MARKS.sub(r"\\\g<0>", " ".join(text.splitlines()))


def image(link: str, caption: str) -> str:
    """Return an image with its caption below, which is also what is read out instead of it.

    Args:
        link: where it is, relative and encoded as in a URL.
        caption: what it shows.
    """
    shown = plain(caption)
    return f"![{re.sub(r'[][]', lambda bracket: chr(92) + bracket[0], shown)}]({link})\n\n{shown}"


def code_block(lines: Sequence[str]) -> str:
    """Return lines, which may hold empty ones and fences of their own, between fences."""
    text = "\n".join(lines)
    fence = "`" * max([3, *(len(found) + 1 for found in FENCE.findall(text))])
    return f"{fence}\n{text}\n{fence}"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of plain texts, the first being the heading, as an aligned markdown table."""
    rows = [[plain(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(f"| {' | '.join(cells)} |")
    rule = "|" + "|".join("-" * (w + 2) if i == 0 else "-" * (w + 1) + ":" for i, w in enumerate(widths)) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def to_html(text: str) -> str:
    """Turn the markdown of compare.md into HTML: headings, tables, lists, code, paragraphs; of images their text."""
    parts = []
    for lines in _blocks(text):
        first = lines[0]
        if FENCE.match(first):
            parts.append(f"<pre><code>{html.escape(chr(10).join(lines[1:-1]))}</code></pre>")
        elif first.startswith("#"):
            level = len(first) - len(first.lstrip("#"))
            parts.append(f"<h{level}>{_inline(first.lstrip('# '))}</h{level}>")
        elif first.startswith("|"):
            parts.append(_table(lines))
        elif first.startswith("- "):
            items = "".join(f"<li>{_inline(line.removeprefix('- '))}</li>" for line in lines)
            parts.append(f"<ul>{items}</ul>")
        else:
            parts.append(f"<p>{_inline(' '.join(lines))}</p>")
    return "\n".join(parts)


def _blocks(text: str) -> list[list[str]]:
    """Return the lines of each block; empty lines part blocks, but not within fences."""
    blocks: list[list[str]] = [[]]
    fence = ""
    for line in text.strip().split("\n"):
        if fence or line:
            blocks[-1].append(line)
        elif blocks[-1]:
            blocks.append([])
        if fence:
            fence = "" if line == fence else fence
        elif len(blocks[-1]) == 1 and FENCE.fullmatch(line):
            fence = line
    return [block for block in blocks if block]


def _table(lines: Sequence[str]) -> str:
    """Return a markdown table, whose second line is its rule, as HTML that scrolls by itself on narrow screens."""
    # A bar that belongs to a name follows a backslash, never a space.
    cells = [line.removeprefix("|").removesuffix("|").split(" | ") for line in lines]
    rows = [[_inline(cell.strip()) for cell in row] for row in cells]
    head = "".join(f"<th>{_whole_figures(cell)}</th>" for cell in rows[0])
    body = "".join(
        f"<tr>{_first_cell(row[0])}{''.join(f'<td>{cell}</td>' for cell in row[1:])}</tr>" for row in rows[2:]
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="scroll">{table}</div>'


def _first_cell(cell: str) -> str:
    """Return the cell that names a row; a long name may take several lines, but not one for each syllable."""
    kind = ' class="long"' if len(cell) > LONG_NAME else ""
    return f"<td{kind}>{cell}</td>"


def _whole_figures(cell: str) -> str:
    """Keep a browser from breaking a heading within the name of a figure."""
    return cell.replace("mAP50-95", '<span class="whole">mAP50-95</span>')


def _inline(text: str) -> str:
    """Return text as HTML: what `plain` marked as it was, and **bold** and `code`."""
    return INLINE.sub(_tagged, html.escape(text))


def _tagged(found: re.Match[str]) -> str:
    letter, code, bold = found.groups()
    if letter is not None:
        return letter
    return f"<code>{code}</code>" if code is not None else f"<strong>{bold}</strong>"
