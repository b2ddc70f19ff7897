"""Tables of a report in LaTeX: three lines (booktabs), as wide as one or both columns of a page."""

from __future__ import annotations

import re
from collections.abc import Sequence

from utils.document import Table, divide_columns

COLUMN_POINTS, PAGE_POINTS = 233.0, 480.0  # of a two-column A4 page with margins of 20 mm
MAX_ROWS = 40  # of a table on one page
COLUMN_SEPARATION = 3.0  # pt, \tabcolsep
LONG_NAME_POINTS, LONG_HEADER_POINTS = 140.0, 96.0  # names and headers beyond these widths break their lines
NAME_PIECES = re.compile(r"[^\s_./+:-]{1,10}[_./+:-]*|[_./+:-]+|\s+")  # between which a long name may break
MAX_WORD_LETTERS = 20  # of a caption
# Widths of characters in points at \footnotesize (8 pt) of Computer Modern, rounded up: capitals like M, other capitals
# and signs, letters, digits, and narrow characters.
WIDE_POINTS, CAPITAL_POINTS, LETTER_POINTS, DIGIT_POINTS, NARROW_POINTS = 8.8, 6.8, 4.8, 4.3, 3.0
PACKAGES = ("booktabs", "amssymb", "graphicx")
XELATEX_FONTS = [r"\IfFontExistsTF{CMU Serif}{\setmainfont{CMU Serif}}{}"]  # has Greek and Cyrillic letters
PREAMBLE = (  # floats may fill pages, and wait for them
    r"\extrafloats{200}\maxdeadcycles=1000",
    *(rf"\renewcommand{{\{name}}}{{0.9}}" for name in ("topfraction", "dbltopfraction")),
    *(rf"\renewcommand{{\{name}}}{{0.6}}" for name in ("floatpagefraction", "dblfloatpagefraction")),
    *(rf"\setcounter{{{name}}}{{9}}" for name in ("topnumber", "dbltopnumber", "totalnumber")),
)
SYMBOLS = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"<": "$<$", ">": "$>$", "|": "$|$", '"': r"\textquotedbl{}", "`": r"\textasciigrave{}"},
    **{"±": r"$\pm$", "×": r"$\times$", "²": "$^2$", "✓": r"$\checkmark$", "[": "{[}", "*": "{*}"},
    **{"\N{EN DASH}": r"\textendash{}", "\N{EM DASH}": r"\textemdash{}"},
}
LAST_LATIN = "\N{LATIN SMALL LETTER Z WITH CARON}"  # the fonts of pdflatex have no further characters
NOT_IN_T1 = "ĦħĸŦŧ"
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
LIGATURES = re.compile(r"([-,'])(?=\1)")  # two of these become another character
NUMBERS = re.compile(r"[-+0-9.,*±%()\[\]< ]*\d[-+0-9.,*±%()\[\]< ]*")


def escape_latex(text: str) -> str:
    """Return a text on one line that LaTeX prints verbatim."""
    printable = CONTROL.sub("", " ".join(text.split()))
    escaped = "".join(SYMBOLS.get(character, character) for character in printable)
    return LIGATURES.sub(r"\1{}", escaped)


def caption_to_latex(text: str) -> str:
    """Return a text like `escape_latex`, whose long words may break."""
    words = (_pieces(word) if len(word) > MAX_WORD_LETTERS else escape_latex(word) for word in text.split())
    return " ".join(words)


def needs_xelatex(text: str) -> bool:
    """Return whether a text has characters that the fonts of pdflatex lack."""
    return any((character > LAST_LATIN or character in NOT_IN_T1) and character not in SYMBOLS for character in text)


def cell_to_latex(cell: str) -> str:
    """Return a cell of a column of numbers on one line, with minus signs and raised marks of significance."""
    if not NUMBERS.fullmatch(cell):
        return "--" if cell == "-" else escape_latex(cell)
    escaped = re.sub(r"\*+", lambda marks: f"$^{{{marks[0]}}}$", cell.replace("%", r"\%"))
    escaped = re.sub(r"[-+](?=[\d.])", lambda sign: f"${sign[0]}$", escaped)
    return escaped.replace(" ± ", r"\,$\pm$\,").replace("<", "$<$").replace(" ", "~")


def table_to_latex(table: Table, *, caption: str, label: str) -> str:
    """Return a table as floats to be included by "input"; PACKAGES have what they need.

    It is as wide as one column of a page, or both, or is divided into tables that fit, which repeat the first column.
    Longer ones are continued after 40 rows.
    """
    parts = [
        Table(header=part.header, rows=part.rows[start : start + MAX_ROWS])
        for part in divide_columns(table, _widths(table), PAGE_POINTS)
        for start in range(0, max(len(part.rows), 1), MAX_ROWS)
    ]
    floats = []
    for number, part in enumerate(parts, 1):
        name = caption if len(parts) == 1 else f"{caption} ({number}/{len(parts)})"
        floats.append(_float(part, caption=name, label=label if number == 1 else f"{label}-{number}"))
    return "\n".join(floats)


def _float(table: Table, *, caption: str, label: str) -> str:
    environment = "table" if sum(_widths(table)) <= COLUMN_POINTS else "table*"
    is_long = _natural_width(table, 0) > LONG_NAME_POINTS
    first = f"p{{{LONG_NAME_POINTS:g}pt}}" if is_long else "l"
    name = _breakable if is_long else escape_latex
    header = [name(table.header[0]), *(_header(table, index) for index in range(1, len(table.header)))]
    rows = [[name(row[0]), *map(cell_to_latex, row[1:])] for row in table.rows]
    lines = [
        rf"\begin{{{environment}}}[tbp]",
        r"\centering\footnotesize",
        rf"\setlength{{\tabcolsep}}{{{COLUMN_SEPARATION:g}pt}}\setlength{{\belowcaptionskip}}{{4pt}}",
        rf"\caption{{{caption_to_latex(caption)}}}",
        rf"\label{{{label}}}",
        rf"\begin{{tabular}}{{@{{}}{first}{'r' * (len(header) - 1)}@{{}}}}",
        r"\toprule",
        " & ".join(header) + r" \\",
        r"\midrule",
        *(" & ".join(row) + r" \\" for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
        rf"\end{{{environment}}}",
    ]
    return "\n".join(lines) + "\n"


def _breakable(name: str) -> str:
    """Return a long name that may break, its lines ragged so that nothing is stretched."""
    return rf"\raggedright {_pieces(name)}"


def _pieces(name: str) -> str:
    pieces = (" " if piece.isspace() else escape_latex(piece) for piece in NAME_PIECES.findall(name))
    return r"\hspace{0pt}".join(pieces)


def _header(table: Table, index: int) -> str:
    """Return the header of a column of numbers, on several lines if it is much wider than they are."""
    header, width = table.header[index], _column_width(table, index)
    if _width(header) <= width:
        return escape_latex(header)
    return rf"\parbox[b]{{{width:.0f}pt}}{{{_breakable(header).replace('raggedright', 'raggedleft')}}}"


def _widths(table: Table) -> list[float]:
    """Return the width of each column in points, an upper estimate, with the space beside it."""
    first = min(_natural_width(table, 0), LONG_NAME_POINTS)
    others = [_column_width(table, index) for index in range(1, len(table.header))]
    return [width + 2 * COLUMN_SEPARATION for width in (first, *others)]


def _column_width(table: Table, index: int) -> float:
    return max(min(_width(table.header[index]), LONG_HEADER_POINTS), *(_width(row[index]) for row in table.rows), 0.0)


def _natural_width(table: Table, index: int) -> float:
    return max(_width(row[index]) for row in (table.header, *table.rows))


def _width(text: str) -> float:
    return sum(map(_character_width, text))


def _character_width(character: str) -> float:
    if character in "mwMW%@✓" or (not character.isascii() and character != "±"):
        return WIDE_POINTS
    if character.isdigit():
        return DIGIT_POINTS
    if character in " .,:;!|'[]ijl":
        return NARROW_POINTS
    return CAPITAL_POINTS if character.isupper() or character in "±+-<>#&" else LETTER_POINTS


def document_to_latex(body: Sequence[str], *, title: str, chinese: bool, xelatex: bool) -> str:
    """Return a two-column document; with `chinese`, "table" and "figure" are in Chinese.

    Texts with characters beyond `LAST_LATIN` need `xelatex` and the package ctex; others are for pdflatex too.
    """
    document_class = ("ctexart" if chinese else "ctexart,scheme=plain") if xelatex else "article"
    name, _, option = document_class.partition(",")
    lines = [
        f"% Compile with {'xelatex' if xelatex else 'pdflatex'}.",
        rf"\documentclass[{','.join(filter(None, ('10pt,a4paper,twocolumn', option)))}]{{{name}}}",
        r"\usepackage[margin=20mm,columnsep=6mm]{geometry}",
        *(XELATEX_FONTS if xelatex else [r"\usepackage[T1]{fontenc}"]),
        *(rf"\usepackage{{{package}}}" for package in PACKAGES),
        *([] if xelatex else [r"\IfFileExists{lmodern.sty}{\usepackage{lmodern}}{}"]),
        *PREAMBLE,
        r"\begin{document}",
        rf"\title{{{caption_to_latex(title)}}}\author{{}}\date{{}}\maketitle",
        *body,
        r"\end{document}",
    ]
    return "\n".join(lines) + "\n"
