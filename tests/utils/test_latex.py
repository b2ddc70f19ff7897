"""Tables in LaTeX: every text verbatim, numbers unchanged, no table wider than a page; compiled by a real TeX."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from utils.document import Table
from utils.latex import (
    COLUMN_POINTS,
    MAX_ROWS,
    PAGE_POINTS,
    cell_to_latex,
    document_to_latex,
    escape_latex,
    needs_xelatex,
    table_to_latex,
)

SPECIAL = """a & b % $x^2$ #7 {c} _d_ ~e \\f [g] <h> "i" `j` 'k' |l| m--n ± × ² ✓ \N{EN DASH} — !? @ * / é ß"""
WIDE_NAMES = [
    "WWWWWWWWWWWWWWWWWWWW",
    "MMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMM mmmmmm",
    "a_very-long.name/of+a:model" * 3,
]


def floats(latex: str) -> list[tuple[str, str]]:
    return re.findall(r"\\begin\{(table\*?)\}(.*?)\\end\{table\*?\}", latex, re.DOTALL)


def compile_latex(document: Path, *, engine: str) -> str:
    """Compile a document and return TeX's log."""
    if shutil.which(engine) is None:
        pytest.skip(f"{engine} is not installed")
    command = [engine, "-interaction=nonstopmode", "-halt-on-error", document.name]
    result = subprocess.run(command, cwd=document.parent, capture_output=True, timeout=300)
    log = document.with_suffix(".log").read_text(encoding="utf-8", errors="replace")
    assert result.returncode == 0, log[-2000:]
    return log


@pytest.mark.parametrize(
    ("cell", "latex"),
    [
        ("0.453 ± 0.009", r"0.453\,$\pm$\,0.009"),
        ("-0.012** [-0.020, -0.003]", r"$-$0.012$^{**}$~[$-$0.020,~$-$0.003]"),
        ("+4.1%", r"$+$4.1\%"),
        ("< 0.001", r"$<$~0.001"),
        ("1,767,976", "1,767,976"),
        ("-", "--"),
        ("12 in 5", "12 in 5"),
        ("cannot_tell", r"cannot\_tell"),
    ],
)
def test_cells(cell, latex):
    assert cell_to_latex(cell) == latex


def test_tables_have_three_lines_and_all_cells():
    table = Table(header=["Model", "P", "R"], rows=[["a_b", "0.1", "0.2"], ["c", "0.3", "-0.4"]])
    ((environment, text),) = floats(table_to_latex(table, caption="50 % of it", label="tab:a"))
    assert environment == "table"
    rules = re.findall(r"\\(toprule|midrule|bottomrule)", text)
    assert rules == ["toprule", "midrule", "bottomrule"]
    rows = [line.removesuffix(r" \\").split(" & ") for line in text.splitlines() if line.endswith(r"\\")]
    assert rows == [["Model", "P", "R"], [r"a\_b", "0.1", "0.2"], ["c", "0.3", "$-$0.4"]]
    assert r"\caption{50 \% of it}" in text and r"\label{tab:a}" in text


def test_a_table_is_as_wide_as_it_needs_to_be():
    cell = "0.453 ± 0.009"
    environments = [
        [kind for kind, _ in floats(table_to_latex(table, caption="c", label="l"))]
        for table in (
            Table(header=["Model", *map(str, range(columns))], rows=[["a", *[cell] * columns]])
            for columns in (1, 3, 7, 9, 30)
        )
    ]
    assert environments[:3] == [["table"], ["table"], ["table*"]]
    assert len(environments[-1]) > 3 and COLUMN_POINTS < PAGE_POINTS


def test_divided_tables_hold_every_cell_once():
    rows = [[f"class {i}", *(f"0.{i:03d}{j:03d} ± 0.001" for j in range(20))] for i in range(2 * MAX_ROWS + 3)]
    table = Table(header=["Class", *(f"m{j}" for j in range(20))], rows=rows)
    parts = floats(table_to_latex(table, caption="c", label="l"))
    values = [value for _, text in parts for value in re.findall(r"0\.\d{6}(?=\\,)", text)]
    assert sorted(values) == sorted(cell[:8] for row in rows for cell in row[1:])
    assert all("Class & " in text for _, text in parts)
    labels = re.findall(r"\\label\{(.*?)\}", "".join(text for _, text in parts))
    assert len(set(labels)) == len(parts)


def test_nothing_becomes_another_character():
    assert escape_latex("a---b ''c'' ,,d") == "a-{}-{}-b '{}'c'{}' ,{},d" and escape_latex("\x01a\x7fb") == "ab"
    table = Table(header=["M", "x"], rows=[["*star", "1"], ["[x]", "2"]])
    rows = [line for line in table_to_latex(table, caption="c", label="l").splitlines() if line.endswith(r"\\")]
    assert rows[1].startswith("{*}star") and rows[2].startswith("{[}x]")


def test_characters_that_need_another_engine():
    assert not needs_xelatex(SPECIAL) and needs_xelatex("红细胞") and needs_xelatex("Ω") and needs_xelatex("ħ")


@pytest.mark.long
@pytest.mark.parametrize("chinese", [False, True])
def test_tex_sets_every_table_within_its_column(chinese, tmp_path):
    names = ["Model", SPECIAL, *WIDE_NAMES, *(["红细胞检测模型" * 6] if chinese else [])]
    cells = ["0.453 ± 0.009", "+0.012*** [-0.020, +0.003]", "1,767,976", "-", "< 0.001", "inconclusive", "✓"]
    tables = [
        Table(header=[name, *(names * 5)[:columns]], rows=[[other, *(cells * 4)[:columns]] for other in names])
        for name in names
        for columns in (1, 2, 5, 9, 20)
    ]
    body = [
        table_to_latex(table, caption=f"{SPECIAL} {' '.join(names)}", label=f"tab:{i}")
        for i, table in enumerate(tables)
    ]
    text = document_to_latex(body, title=SPECIAL, chinese=chinese, xelatex=chinese)
    (tmp_path / "paper.tex").write_text(text, encoding="utf-8")
    log = compile_latex(tmp_path / "paper.tex", engine="xelatex" if chinese else "pdflatex")
    assert "Overfull" not in log and "Missing character" not in log
    assert escape_latex(SPECIAL).count("\\") > 10
