"""report.html: a comparison in one file that needs nothing else, with the text of compare.md and pictures in it."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.files import atomic_write

STYLE = """
:root { color-scheme: light dark; --ink: #1c2330; --paper: #ffffff; --line: #d8dce3; --soft: #f3f5f8;
  --shade: #1c233040; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ef; --paper: #14181f; --line: #39414d; --soft: #1e242d; --shade: #000000a0; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 1.5rem 1rem 4rem; color: var(--ink); background: var(--paper);
  font: 16px/1.55 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.7rem; margin: 0 0 .5rem; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; border-bottom: 1px solid var(--line); padding-bottom: .2rem; }
.scroll { overflow-x: auto; background: linear-gradient(90deg, var(--paper) 40%, transparent) 0 / 2.5rem 100% local,
  linear-gradient(270deg, var(--paper) 40%, transparent) 100% 0 / 2.5rem 100% local,
  linear-gradient(90deg, var(--shade), transparent) 0 / .7rem 100% scroll,
  linear-gradient(270deg, var(--shade), transparent) 100% 0 / .7rem 100% scroll; background-repeat: no-repeat; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th { white-space: normal; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; }
td.long { min-width: 10.5rem; white-space: normal; }
.whole { white-space: nowrap; }
thead th { background: var(--soft); }
pre { background: var(--soft); padding: .8rem; overflow-x: auto; font-size: .82rem; }
code { font-size: .88em; background: var(--soft); padding: 0 .2em; }
pre code { padding: 0; }
img { max-width: 100%; height: auto; background: #ffffff; }
figure { margin: 1rem 0; }
figcaption { font-size: .88rem; margin-top: .3rem; }
ul { padding-left: 1.4rem; }
@media (max-width: 45rem) {
  table { font-size: .82rem; }
  th, td { padding: .3rem .4rem; }
  figure img { max-width: 46rem; }
}
"""

LONG_NAME = 20  # letters
SAMPLING_HEADING = "Where AKConv samples"


@dataclass(frozen=True, kw_only=True)
class ReportPicture:
    """A picture of the report: an encoded image, its kind (png or jpeg), and what it shows."""

    content: bytes
    kind: str
    caption: str


def write_report(
    text: str,
    *,
    title: str,
    overview: ReportPicture | None,
    examples: Sequence[ReportPicture],
    sampling: Sequence[ReportPicture] = (),
    path: Path,
) -> Path:
    """Write report.html.

    Args:
        text: of compare.md.
        title: of the browser's tab.
        overview: curves, differences and costs, put before the accuracy; None if there is no such picture.
        examples: pictures where the models differ most, put before the commands.
        sampling: pictures of where AKConv samples, put after these.
        path: where to write.
    """
    body = to_html(text)
    gallery = "".join(
        f"<h2>{heading}</h2>\n{''.join(map(_figure, pictures))}"
        for heading, pictures in (("Where they differ most", examples), (SAMPLING_HEADING, sampling))
        if pictures
    )
    if overview is not None:
        body = _before_heading(body, "Accuracy", f"<h2>At a glance</h2>\n{_figure(overview)}")
    body = _before_heading(body, "Commands", gallery)
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )
    return atomic_write(path, page)


def _before_heading(body: str, heading: str, added: str) -> str:
    """Put something before a heading, or at the end if there is none."""
    mark = f"<h2>{heading}</h2>"
    return body.replace(mark, f"{added}\n{mark}", 1) if mark in body else f"{body}\n{added}"


def _figure(picture: ReportPicture) -> str:
    data = base64.b64encode(picture.content).decode("ascii")
    caption = html.escape(picture.caption)
    return (
        f'<figure><div class="scroll"><img src="data:image/{picture.kind};base64,{data}" alt="{caption}"></div>'
        f"<figcaption>{caption}</figcaption></figure>\n"
    )


def to_html(text: str) -> str:
    """Turn the markdown that `comparison_tables` writes into HTML: headings, tables, lists, code, paragraphs."""
    parts = []
    for block in re.split(r"\n{2,}", text.strip()):
        lines = block.split("\n")
        if block.startswith("```"):
            parts.append(f"<pre><code>{html.escape(chr(10).join(lines[1:-1]))}</code></pre>")
        elif block.startswith("#"):
            level = len(block) - len(block.lstrip("#"))
            parts.append(f"<h{level}>{_inline(block.lstrip('# '))}</h{level}>")
        elif block.startswith("|"):
            parts.append(_table(lines))
        elif block.startswith("- "):
            items = "".join(f"<li>{_inline(line.removeprefix('- '))}</li>" for line in lines)
            parts.append(f"<ul>{items}</ul>")
        else:
            parts.append(f"<p>{_inline(' '.join(lines))}</p>")
    return "\n".join(parts)


def _table(lines: Sequence[str]) -> str:
    """Return a markdown table, whose second line is its rule, as HTML that scrolls by itself on narrow screens."""
    rows = [[_inline(cell.strip()) for cell in line.strip().strip("|").split(" | ")] for line in lines]
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
    """Escape text and turn **bold** and `code` into HTML."""
    escaped = html.escape(text)
    escaped = re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped)
    return re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", escaped)
