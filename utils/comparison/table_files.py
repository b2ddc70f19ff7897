"""Printed tables as files: CSV with a column for each number, one XLSX file, and HTML for Word."""

from __future__ import annotations

import html
import importlib.util
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from utils.comparison.statistics import MISSING
from utils.document import Table

BYTE_ORDER_MARK = "\ufeff"  # without it Excel reads UTF-8 as the code page of the system
NUMBER = re.compile(
    r"(?P<bound>< )?(?P<value>[-+]?[\d,]*\.?\d+(?:e[-+]\d+)?)(?P<percent>%?)(?P<mark>\**)(?: ± (?P<std>[\d.]+))?"
    r"(?: \[(?P<low>[-+][\d.]+), (?P<high>[-+][\d.]+)\])?"
    r"(?: \((?P<change>[-+][\d.]+)\))?"
)
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
# Columns beside a column of numbers; the first two hold text.
FURTHER = {"mark": "significance", "bound": "bound", "std": "std", "low": "low", "high": "high", "change": "difference"}
TEXTS = ("mark", "bound")
WORD_STYLE = {  # inline, as Word keeps it when a table is pasted
    "table": "border-collapse:collapse;border-top:1.5pt solid black;border-bottom:1.5pt solid black",
    "th": "border-bottom:.75pt solid black;padding:2pt 5pt;font-weight:normal",
    "td": "padding:1pt 5pt",
}
WORD_PAGE = """<!doctype html>
<html lang="{lang}">
<head><meta charset="utf-8"><title>{title}</title></head>
<body style="font-family:'Times New Roman',serif;font-size:10.5pt">
{body}
</body>
</html>
"""


@dataclass(frozen=True, kw_only=True)
class PrintedTable:
    """A table with the name of its files and its caption."""

    name: str
    caption: str
    table: Table


def table_to_csv(table: Table) -> str:
    """Return a table with a column for each number, which Excel reads as UTF-8."""
    return BYTE_ORDER_MARK + numeric_table(table).to_csv(index=False, lineterminator="\n")


def numeric_table(table: Table) -> pd.DataFrame:
    """Return a table with a column for each number: `0.453 ± 0.009` and `-0.012* [-0.020, -0.003]` are divided.

    12 % is 0.12, and `< 0.001` has its sign in a column `bound`. A missing number is empty; other text stays.
    """
    columns: dict[str, list[object]] = {}
    for title, *cells in zip(table.header, *table.rows, strict=True):
        found = [NUMBER.fullmatch(cell) for cell in cells]
        if not columns or not any(found):
            columns[_unused(title, columns)] = list(cells)
            continue
        columns[_unused(title, columns)] = [
            _number(match) if match else (None if cell in ("", MISSING) else cell)
            for match, cell in zip(found, cells, strict=True)
        ]
        for group, ending in FURTHER.items():
            texts = [match[group] if match else None for match in found]
            if any(texts):
                columns[_unused(f"{title} {ending}", columns)] = [
                    text if text is None or group in TEXTS else float(text) for text in texts
                ]
    return pd.DataFrame(columns, dtype=object)  # keeps integers as they are


def _unused(title: str, taken: Mapping[str, object]) -> str:
    return title if title not in taken else _unused(f"{title} ", taken)


def _number(match: re.Match[str]) -> float | int:
    text = match["value"].replace(",", "")
    number = int(text) if text.lstrip("+-").isdigit() else float(text)
    return round(number / 100, 6) if match["percent"] else number


def tables_to_xlsx(tables: Sequence[PrintedTable]) -> bytes | None:
    """Return a workbook with one sheet per table; None without the package that pandas needs for it."""
    if importlib.util.find_spec("openpyxl") is None:
        return None
    buffer = io.BytesIO()
    with pd.ExcelWriter(buffer, engine="openpyxl") as writer:
        for table in tables:
            frame = numeric_table(table.table).rename(columns=_workbook_text).map(_workbook_text)
            frame.to_excel(writer, sheet_name=table.name[:31], index=False)
        for cell in (cell for sheet in writer.book for row in sheet.iter_rows() for cell in row):
            cell.data_type = "s" if cell.data_type == "f" else cell.data_type  # a name that begins with = is no formula
    return buffer.getvalue()


def _workbook_text(value: object) -> object:
    """Return a cell without the characters that XML does not have; numbers stay."""
    return CONTROL.sub("", value.encode("utf-8", "replace").decode()) if isinstance(value, str) else value


def tables_to_html(tables: Sequence[PrintedTable], *, title: str, lang: str) -> str:
    """Return a page of all tables, with three lines each, to paste into Word."""
    body = "\n".join(map(_table_to_word, tables))
    return WORD_PAGE.format(lang={"zh": "zh-CN"}.get(lang, lang), title=html.escape(title), body=body)


def _table_to_word(table: PrintedTable) -> str:
    """Return a table with three lines and a caption that keep their look when pasted into Word."""
    rows = [("th", table.table.header), *(("td", row) for row in table.table.rows)]
    lines = [
        f"<tr>{''.join(_word_cell(tag, cell, first=index == 0) for index, cell in enumerate(row))}</tr>"
        for tag, row in rows
    ]
    return f'<p>{html.escape(table.caption)}</p>\n<table style="{WORD_STYLE["table"]}">\n{"".join(lines)}\n</table>'


def _word_cell(tag: str, text: str, *, first: bool) -> str:
    if not first:
        text = "\N{EN DASH}" if text == "-" else re.sub(r"(?<![\w.])-(?=[\d.])", "\N{MINUS SIGN}", text)
    style = f"{WORD_STYLE[tag]};text-align:{'left' if first else 'right;white-space:nowrap'}"
    return f'<{tag} style="{style}">{html.escape(text)}</{tag}>'
