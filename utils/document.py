"""A report as data: sections of text, lists, tables, code and images, written as Markdown and as one HTML page."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from utils.text_table import display_width, left, right

STYLE = Path(__file__).with_suffix(".css")
MIN_CONTENTS = 5  # sections of a page with a table of contents
LONG_NAME = 20  # characters
MEDIA_TYPES = {".png": "image/png", ".jpg": "image/jpeg"}
# Markdown syntax: code, emphasis, formulas, table columns, strikethrough, links, tags and character references.
MARKDOWN_SYNTAX = re.compile(r"[\\`*|$]|(?<![^\W_])_|_(?![^\W_])|~(?=~)|(?<=])\(|<(?=[A-Za-z/!?])|&(?=#?\w+;)")


@dataclass(frozen=True)
class BulletList:
    """A list of lines of text."""

    items: Sequence[str]


@dataclass(frozen=True)
class Table:
    """A table of text; its first column names the rows."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class CodeBlock:
    """Lines shown as they are; a line may be empty or hold line breaks."""

    lines: Sequence[str]


@dataclass(frozen=True)
class Image:
    """A .png or .jpg file below the report's folder."""

    path: Path
    caption: str


@dataclass(frozen=True)
class Gallery:
    """Images beside each other, as many in a row as the page has room for."""

    images: Sequence[Image]


Block = str | BulletList | Table | CodeBlock | Image | Gallery  # a str is a paragraph


@dataclass(frozen=True)
class Section:
    """A heading and what is below it."""

    heading: str
    blocks: Sequence[Block]
    level: int = 2


def first_of(items: Sequence[str], limit: int) -> list[str]:
    """Return the first items, and how many more there are."""
    return [*items[:limit], *([f"and {len(items) - limit} more"] if len(items) > limit else [])]


def to_markdown(sections: Sequence[Section], folder: Path) -> str:
    """Return a Markdown file that is to lie in `folder`, from which image links are relative."""
    parts: list[str] = []
    for section in sections:
        parts.append(f"{'#' * section.level} {escape_markdown(section.heading)}")
        parts += [_block_to_markdown(block, folder) for block in section.blocks]
    return "\n\n".join(parts) + "\n"


def escape_markdown(text: str) -> str:
    """Return a text as one line that Markdown renders verbatim: a class may be called `a | b` or `<b>`."""
    return MARKDOWN_SYNTAX.sub(r"\\\g<0>", " ".join(text.splitlines()))


def table_to_markdown(table: Table) -> str:
    """Return aligned rows of Markdown."""
    return _aligned([[escape_markdown(cell) for cell in row] for row in (table.header, *table.rows)])


def table_to_text(table: Table) -> str:
    """Return the table for a terminal, as in Markdown but without escapes."""
    return _aligned([[" ".join(cell.splitlines()) for cell in row] for row in (table.header, *table.rows)])


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Align all columns but the first to the right; the first row is the header."""
    widths = [max(map(display_width, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [left(first, widths[0]), *map(right, others, widths[1:])]
        lines.append(f"| {' | '.join(cells)} |")
    rule = "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])])
    return "\n".join([lines[0], f"|{rule}|", *lines[1:]])


def split_columns(table: Table, width: int) -> list[Table]:
    """Return the table as tables with the same first column that fit a terminal of `width` columns if possible."""
    first, *others = (max(map(display_width, column)) + 3 for column in zip(table.header, *table.rows, strict=True))
    return divide_columns(table, [first + 1, *others], width)


def divide_columns(table: Table, widths: Sequence[float], limit: float) -> list[Table]:
    """Return the table as tables with the same first column, none wider than the limit if columns allow it."""
    groups, used = [[0]], widths[0]
    for index in range(1, len(widths)):
        if used + widths[index] > limit and len(groups[-1]) > 1:
            groups.append([0])
            used = widths[0]
        groups[-1].append(index)
        used += widths[index]
    return [
        Table(header=[table.header[i] for i in group], rows=[[row[i] for i in group] for row in table.rows])
        for group in groups
    ]


def _block_to_markdown(block: Block, folder: Path) -> str:
    match block:
        case BulletList(items):
            return "\n".join(f"- {escape_markdown(item)}" for item in items)
        case Table():
            return table_to_markdown(block)
        case CodeBlock(lines):
            text = "\n".join(lines)
            fence = "`" * max([3, *(len(run) + 1 for run in re.findall(r"`+", text))])
            return f"{fence}\n{text}\n{fence}"
        case Image(path, caption):
            text = escape_markdown(caption)
            alternative = re.sub(r"[][]", r"\\\g<0>", text)
            return f"![{alternative}]({quote(path.relative_to(folder).as_posix())})\n\n{text}"
        case Gallery(images):
            return "\n\n".join(_block_to_markdown(image, folder) for image in images)
        case text:
            return escape_markdown(text)


def to_html(sections: Sequence[Section], *, title: str, extra_style: str = "") -> str:
    """Return a page that needs no other file: images are embedded. An OSError is raised if one cannot be read.

    A page of several sections begins, after its first one, with a table of contents.
    `extra_style` is CSS for what this page has beyond others, such as a gallery.
    """
    parts: list[str] = []
    for number, section in enumerate(sections):
        parts.append(f'<h{section.level} id="s{number}">{html.escape(section.heading)}</h{section.level}>')
        parts += map(_block_to_html, section.blocks)
        parts += _contents(sections) if number == 0 else []
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>\n{STYLE.read_text(encoding='utf-8')}{extra_style}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _contents(sections: Sequence[Section]) -> list[str]:
    """Return the list of links to all sections but the first, if there are enough to look for one."""
    if len(sections) < MIN_CONTENTS:
        return []
    links = (f'<li><a href="#s{i}">{html.escape(s.heading)}</a></li>' for i, s in enumerate(sections) if i)
    return [f"<nav><ol>{''.join(links)}</ol></nav>"]


def _block_to_html(block: Block) -> str:
    match block:
        case BulletList(items):
            return f"<ul>{''.join(f'<li>{html.escape(item)}</li>' for item in items)}</ul>"
        case Table(header, rows):
            # A browser must not break a heading within the name of a metric.
            cells = (html.escape(cell).replace("mAP50-95", '<span class="whole">mAP50-95</span>') for cell in header)
            head = "".join(f"<th>{cell}</th>" for cell in cells)
            body = "".join(map(_row_to_html, rows))
            table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
            return f'<div class="scroll">{table}</div>'
        case CodeBlock(lines):
            return f"<pre><code>{html.escape(chr(10).join(lines))}</code></pre>"
        case Image(path, caption):
            data, text = base64.b64encode(path.read_bytes()).decode("ascii"), html.escape(caption)
            image = f'<img src="data:{MEDIA_TYPES[path.suffix]};base64,{data}" alt="{text}">'
            return f'<figure><div class="scroll">{image}</div><figcaption>{text}</figcaption></figure>'
        case Gallery(images):
            return f'<div class="gallery">{"".join(map(_block_to_html, images))}</div>'
        case text:
            return f"<p>{html.escape(text)}</p>"


def _row_to_html(row: Sequence[str]) -> str:
    # A long name may wrap, but not at every syllable.
    kind = ' class="long"' if len(row[0]) > LONG_NAME else ""
    first, *others = map(html.escape, row)
    return f"<tr><td{kind}>{first}</td>{''.join(f'<td>{cell}</td>' for cell in others)}</tr>"
