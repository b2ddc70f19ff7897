"""compare.py --paper: tables, figures and the text of a methods section for a thesis or paper, in one folder.

Each table of the report is written as LaTeX and as CSV, all together as one HTML page and one XLSX file; each figure is
an image and a vector file. `paper.tex` shows all of them on pages of two columns.
"""

from __future__ import annotations

import contextlib
import html
import importlib.util
import io
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from utils.comparison.joint_report import JointResult, joint_sections
from utils.comparison.methods import joint_results_sections, methods_sections
from utils.comparison.paper_words import CAPTIONS, JOINT_CAPTIONS, caption_of, table_in, word_in
from utils.comparison.report import report_sections
from utils.comparison.result import ComparisonResult
from utils.document import Block, Image, Section, Table, to_markdown
from utils.errors import ConfigError
from utils.files import atomic_write, dump_json, load_json
from utils.latex import caption_to_latex, document_to_latex, needs_xelatex, table_to_latex
from utils.log import LOGGER
from utils.options import CompareOptions
from utils.plots.style import DPI, MM_PER_INCH, WIDTH_MM

CONTENTS = "contents.json"
PREVIEW = "All tables and figures. Include those that you need; the tables need the packages of this file."
TABLES, FIGURES = "tables", "figures"
FIGURE_SUFFIXES = (".png", ".svg", ".pdf", ".csv")
LATEX_FIGURE = ".pdf"
BYTE_ORDER_MARK = "\ufeff"  # without it Excel reads UTF-8 as the code page of the system
NUMBER = re.compile(
    r"(?P<value>[-+]?[\d,]*\.?\d+(?:e[-+]\d+)?)(?P<percent>%?)(?P<mark>\**)(?: ± (?P<std>[\d.]+))?"
    r"(?: \[(?P<low>[-+][\d.]+), (?P<high>[-+][\d.]+)\])?"
)
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
FURTHER = {"mark": "significance", "std": "std", "low": "low", "high": "high"}  # columns beside a column of numbers
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


def printed_tables(
    sections: Sequence[Section],
    captions: Mapping[str, Sequence[str]],
    values: Mapping[str, str],
    *,
    lang: str = "en",
) -> list[PrintedTable]:
    """Return the tables of those sections of a report whose headings have captions, in their order.

    `values` fill the captions: `split`, `images`, `baseline` and `correction`; `of` is the first cell of a table.
    """
    printed = []
    for section in sections:
        templates = captions.get(section.heading, ())
        tables = [block for block in section.blocks if isinstance(block, Table)] if templates else []
        stem = section.heading.lower().replace(" ", "-")
        for index, table in enumerate(tables):
            chosen = index if len(tables) <= len(templates) else int(_has_intervals(table))
            translated = table_in(_without_baseline(table, values["baseline"]), lang)
            template = templates[min(chosen, len(templates) - 1)]
            caption = caption_of(template, lang, {**values, "of": word_in(table.header[0], lang)})
            name = stem if len(tables) == 1 else f"{stem}-{index + 1}"
            printed.append(PrintedTable(name=name, caption=caption, table=translated))
    return printed


def _has_intervals(table: Table) -> bool:
    return any("[" in cell for row in table.rows for cell in row[1:])


def _without_baseline(table: Table, baseline: str) -> Table:
    """Return a table of differences alone with the names of the models instead of `model - baseline`."""
    ending = f" - {baseline}"
    if table.rows and all(row[0].endswith(ending) for row in table.rows):
        rows = [[row[0].removesuffix(ending), *row[1:]] for row in table.rows]
        return Table(header=["Model", *table.header[1:]], rows=rows)
    if len(table.header) > 1 and all(title.endswith(ending) for title in table.header[1:]):
        return Table(header=[title.removesuffix(ending) for title in table.header], rows=table.rows)
    return table


def write_comparison(
    result: ComparisonResult, options: CompareOptions, folder: Path, *, figures: Sequence[Block]
) -> Path:
    """Write a comparison on one data set for print.

    The images of `figures` are PNG files with the other formats beside them.
    """
    values = {
        "split": options.task,
        "images": str(len(result.val)),
        "baseline": result.models[0].label,
        "correction": "Holm" if len(result.pairs) > 1 else "",
    }
    return write_paper(
        folder,
        title=word_in("Comparison: {}", options.lang).format(", ".join(model.label for model in result.models)),
        tables=printed_tables(report_sections(result, {}), CAPTIONS, values, lang=options.lang),
        figures=[block for block in figures if isinstance(block, Image)],
        methods=methods_sections(result, options, options.lang),
        lang=options.lang,
    )


def write_joint_comparison(joint: JointResult, options: CompareOptions, *, figures: Sequence[Block]) -> Path:
    """Write the joint results of several data sets for print; `figures` as of `write_comparison`."""
    values = {
        "baseline": joint.labels[0],
        "correction": "Holm" if max(len(joint.comparisons), len(joint.effects)) > 1 else "",
    }
    return write_paper(
        Path(options.paper),
        title=word_in("Comparison: {}", options.lang).format(", ".join(joint.labels)),
        tables=printed_tables(joint_sections(joint, ()), JOINT_CAPTIONS, values, lang=options.lang),
        figures=[block for block in figures if isinstance(block, Image)],
        methods=joint_results_sections(joint, options.lang),
        lang=options.lang,
    )


def write_paper(
    folder: Path,
    *,
    title: str,
    tables: Sequence[PrintedTable],
    figures: Sequence[Image],
    methods: Sequence[Section],
    lang: str = "en",
) -> Path:
    """Write tables, figures with the files beside them, and `methods.md`, and return the folder.

    Files of an earlier call, which are listed in the folder's contents.json, are replaced or removed; others stay.

    Raises:
        RunError: the folder cannot be written.
    """
    earlier = _earlier_files(folder)
    written = [path for table in tables for path in _write_table(table, folder / TABLES)]
    page = WORD_PAGE.format(lang=lang, title=html.escape(title), body="\n".join(map(_table_to_word, tables)))
    written.append(atomic_write(folder / "tables.html", page))
    written += _write_workbook(tables, folder / "tables.xlsx")
    written += _copy_figures(figures, folder / FIGURES)
    written.append(atomic_write(folder / "methods.md", to_markdown(methods, folder)))
    body = [caption_to_latex(word_in(PREVIEW, lang)), *(rf"\input{{{TABLES}/{table.name}}}" for table in tables)]
    body += [line for image in figures for line in _figure_to_latex(image)]
    texts = [title, *(image.caption for image in figures)]
    texts += [text for one in tables for row in (one.table.header, *one.table.rows, [one.caption]) for text in row]
    document = document_to_latex(body, title=title, chinese=lang == "zh", xelatex=any(map(needs_xelatex, texts)))
    written.append(atomic_write(folder / "paper.tex", document))
    dump_json(folder / CONTENTS, [path.relative_to(folder).as_posix() for path in written])
    for path in set(earlier) - set(written):
        with contextlib.suppress(OSError):
            path.unlink()
    LOGGER.info(f"Tables, figures and methods for print: {folder}")
    return folder


def _earlier_files(folder: Path) -> list[Path]:
    """Return the files that the folder's contents.json lists, none outside the folder."""
    names: object = []
    if (folder / CONTENTS).is_file():
        with contextlib.suppress(ConfigError):
            names = load_json(folder / CONTENTS)
    paths = [Path(name) for name in names if isinstance(name, str)] if isinstance(names, list) else []
    return [folder / path for path in paths if not path.is_absolute() and ".." not in path.parts]


def _write_table(table: PrintedTable, folder: Path) -> list[Path]:
    latex = table_to_latex(table.table, caption=table.caption, label=f"tab:{table.name}")
    numbers = numeric_table(table.table).to_csv(index=False, lineterminator="\n")
    return [
        atomic_write(folder / f"{table.name}.tex", latex),
        atomic_write(folder / f"{table.name}.csv", BYTE_ORDER_MARK + numbers),
    ]


def numeric_table(table: Table) -> pd.DataFrame:
    """Return a table with a column for each number: `0.453 ± 0.009` and `-0.012* [-0.020, -0.003]` are divided.

    Columns of numbers have a cell without one empty; the others hold text. 12 % is 0.12.
    """
    columns: dict[str, list[object]] = {}
    for title, *cells in zip(table.header, *table.rows, strict=True):
        found = [NUMBER.fullmatch(cell) for cell in cells]
        if not columns or not any(found):
            columns[_unused(title, columns)] = list(cells)
            continue
        columns[_unused(title, columns)] = [_number(match) for match in found]
        for group, ending in FURTHER.items():
            texts = [match[group] if match else None for match in found]
            if any(texts):
                values: list[object] = [
                    None if text is None else text if group == "mark" else float(text) for text in texts
                ]
                columns[_unused(f"{title} {ending}", columns)] = values
    return pd.DataFrame(columns, dtype=object)  # keeps integers as they are


def _unused(title: str, taken: Mapping[str, object]) -> str:
    return title if title not in taken else _unused(f"{title} ", taken)


def _number(match: re.Match[str] | None) -> float | int | None:
    if match is None:
        return None
    text = match["value"].replace(",", "")
    number = int(text) if text.lstrip("+-").isdigit() else float(text)
    return round(number / 100, 6) if match["percent"] else number


def _write_workbook(tables: Sequence[PrintedTable], path: Path) -> list[Path]:
    """Write one sheet per table, if the package that pandas needs for it is installed."""
    if importlib.util.find_spec("openpyxl") is None:
        LOGGER.info(f"{path.name} is left out, as openpyxl is not installed; the CSV files open in Excel too")
        return []
    buffer = io.BytesIO()
    with pd.ExcelWriter(buffer, engine="openpyxl") as writer:
        for table in tables:
            frame = numeric_table(table.table).rename(columns=_workbook_text).map(_workbook_text)
            frame.to_excel(writer, sheet_name=table.name[:31], index=False)
        for cell in (cell for sheet in writer.book for row in sheet.iter_rows() for cell in row):
            cell.data_type = "s" if cell.data_type == "f" else cell.data_type  # a name that begins with = is no formula
    return [atomic_write(path, buffer.getvalue())]


def _workbook_text(value: object) -> object:
    """Return a cell without the characters that XML does not have; numbers stay."""
    return CONTROL.sub("", value.encode("utf-8", "replace").decode()) if isinstance(value, str) else value


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


def _copy_figures(images: Sequence[Image], folder: Path) -> list[Path]:
    """Copy all figures that lie beside the images, in every format and with their numbers."""
    sources = {path for image in images for path in image.path.parent.iterdir() if path.suffix in FIGURE_SUFFIXES}
    return [atomic_write(folder / source.name, source.read_bytes()) for source in sorted(sources)]


def _figure_to_latex(image: Image) -> list[str]:
    """Return a figure that is as wide as it was drawn: one column of the page, or both."""
    (width,) = struct.unpack(">I", image.path.read_bytes()[16:20])  # in the header of a PNG file
    environment = "figure*" if width / DPI * MM_PER_INCH > 1.1 * WIDTH_MM[1] else "figure"
    return [
        rf"\begin{{{environment}}}[tbp]",
        rf"\includegraphics[width=\linewidth]{{{FIGURES}/{image.path.with_suffix(LATEX_FIGURE).name}}}",
        rf"\caption{{{caption_to_latex(image.caption)}}}\label{{fig:{image.path.stem}}}",
        rf"\end{{{environment}}}",
    ]
