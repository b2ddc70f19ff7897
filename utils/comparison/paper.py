"""compare.py --paper: tables, figures and the text of a methods section for a thesis or paper, in one folder.

Each table of the report is written as LaTeX and as CSV, all together as one HTML page and one XLSX file; each figure is
an image and a vector file. `paper.tex` shows all of them on pages of two columns.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from utils.comparison.joint_report import JointResult, joint_sections
from utils.comparison.methods import joint_results_sections, methods_sections
from utils.comparison.paper_words import CAPTIONS, JOINT_CAPTIONS, SPLITS, caption_of, table_in, word_in
from utils.comparison.report import report_sections
from utils.comparison.result import ComparisonResult
from utils.comparison.table_files import PrintedTable, table_to_csv, tables_to_html, tables_to_xlsx
from utils.document import Block, Image, Section, Table, to_markdown
from utils.errors import ConfigError
from utils.files import atomic_write, dump_json, file_hash, keep_backup, load_json
from utils.latex import caption_to_latex, document_to_latex, needs_xelatex, table_to_latex
from utils.log import LOGGER
from utils.options import CompareOptions
from utils.plots.style import DPI, MM_PER_INCH, WIDTH_MM

CONTENTS = "contents.json"
PREVIEW = "All tables and figures. Include those that you need; the tables need the packages of this file."
TABLES, FIGURES = "tables", "figures"
WORD_ROWS = ("Per object size", "Errors", "Per seed")
FIGURE_SUFFIXES = (".png", ".svg", ".pdf", ".csv")
LATEX_FIGURE = ".pdf"


def printed_tables(
    sections: Sequence[Section],
    captions: Mapping[str, Sequence[str]],
    values: Mapping[str, str],
    *,
    lang: str = "en",
    names: Collection[str] = (),
) -> list[PrintedTable]:
    """Return the tables of those sections of a report whose headings have captions, in their order.

    `values` fill the captions: `baseline` and, for one data set, `split`, `images` and `correction`; `of` is the first
    cell of a table.
    `names` of models and classes are not translated.
    """
    printed = []
    for section in sections:
        templates = captions.get(section.heading, ())
        tables = [block for block in section.blocks if isinstance(block, Table)] if templates else []
        stem = section.heading.lower().replace(" ", "-")
        for index, table in enumerate(tables):
            chosen = index if len(tables) <= len(templates) else int(_has_intervals(table))
            own = section.heading in WORD_ROWS  # rows are words, not names
            translated = table_in(_without_baseline(table, values["baseline"]), lang, names=names, words_first=own)
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
    names = {*(model.label for model in result.models), *result.names}
    values = {
        "split": word_in(SPLITS[options.task], options.lang),
        "images": str(len(result.val)),
        "baseline": result.models[0].label,
        "correction": "Holm" if len(result.pairs) > 1 else "",
    }
    return write_paper(
        folder,
        title=word_in("Comparison: {}", options.lang).format(", ".join(model.label for model in result.models)),
        tables=printed_tables(report_sections(result, {}), CAPTIONS, values, lang=options.lang, names=names),
        figures=[block for block in figures if isinstance(block, Image)],
        methods=methods_sections(result, options, options.lang),
        lang=options.lang,
    )


def write_joint_comparison(joint: JointResult, options: CompareOptions, *, figures: Sequence[Block]) -> Path:
    """Write the joint results of several data sets for print; `figures` as of `write_comparison`."""
    return write_paper(
        Path(options.paper),
        title=word_in("Comparison: {}", options.lang).format(", ".join(joint.labels)),
        tables=printed_tables(
            joint_sections(joint, ()),
            JOINT_CAPTIONS,
            {"baseline": joint.labels[0]},
            lang=options.lang,
            names={*joint.labels, *joint.sets},
        ),
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

    contents.json lists the files with hashes. A file that is not listed there, or was edited since, is kept as
    `<name>.bak.<suffix>` before it is overwritten; files that an earlier call wrote and this one does not are removed.

    Raises:
        RunError: the folder cannot be written.
    """
    files: dict[str, str | bytes] = {}
    for table in tables:
        label = f"tab:{table.name}"
        files[f"{TABLES}/{table.name}.tex"] = table_to_latex(table.table, caption=table.caption, label=label)
        files[f"{TABLES}/{table.name}.csv"] = table_to_csv(table.table)
    files["tables.html"] = tables_to_html(tables, title=title, lang=lang)
    workbook = tables_to_xlsx(tables)
    if workbook is None:
        LOGGER.info("tables.xlsx is left out, as openpyxl is not installed; the CSV files open in Excel too")
    else:
        files["tables.xlsx"] = workbook
    files |= {f"{FIGURES}/{path.name}": path.read_bytes() for path in _figure_files(figures)}
    files["methods.md"] = to_markdown(methods, folder)
    files["paper.tex"] = _document(title, tables, figures, lang=lang)
    _replace_files(folder, files)
    LOGGER.info(f"Tables, figures and methods for print: {folder}")
    return folder


def _document(title: str, tables: Sequence[PrintedTable], figures: Sequence[Image], *, lang: str) -> str:
    """Return the document that shows all tables and figures."""
    body = [caption_to_latex(word_in(PREVIEW, lang)), *(rf"\input{{{TABLES}/{table.name}}}" for table in tables)]
    body += [line for image in figures for line in _figure_to_latex(image)]
    texts = [title, *(image.caption for image in figures)]
    texts += [text for one in tables for row in (one.table.header, *one.table.rows, [one.caption]) for text in row]
    return document_to_latex(body, title=title, chinese=lang == "zh", xelatex=any(map(needs_xelatex, texts)))


def _replace_files(folder: Path, files: Mapping[str, str | bytes]) -> None:
    """Write files in place of those of an earlier call; what others wrote or edited stays, or is kept as a backup."""
    earlier, hashes = _earlier_hashes(folder), {}
    for name, content in files.items():
        path = folder / name
        data = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
        if path.is_file() and path.read_bytes() != data and file_hash(path) != earlier.get(name):
            keep_backup(path)
            LOGGER.warning(f"{path} is kept as {path.stem}.bak{path.suffix}: another program wrote or changed it")
        hashes[name] = file_hash(atomic_write(path, data))
    dump_json(folder / CONTENTS, hashes)
    for name in earlier.keys() - files.keys():
        with contextlib.suppress(OSError):
            if file_hash(folder / name) == earlier[name]:
                (folder / name).unlink()


def _earlier_hashes(folder: Path) -> dict[str, str]:
    """Return the files that the folder's contents.json lists, none outside the folder, with their hashes."""
    content: object = {}
    if (folder / CONTENTS).is_file():
        with contextlib.suppress(ConfigError):
            content = load_json(folder / CONTENTS)
    names = content.items() if isinstance(content, dict) else ()
    return {name: known for name, known in names if not Path(name).is_absolute() and ".." not in Path(name).parts}


def _figure_files(images: Sequence[Image]) -> list[Path]:
    """Return all figures that lie beside the images, in every format and with their numbers."""
    return sorted({path for one in images for path in one.path.parent.iterdir() if path.suffix in FIGURE_SUFFIXES})


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
