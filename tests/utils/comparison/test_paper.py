"""compare.py --paper: every printed number is one of results.json, in each format and both languages."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import openpyxl
import pandas as pd
import pytest

from tests.helpers.comparison_results import synthetic_result
from tests.utils.test_latex import compile_latex
from utils.comparison.checks import require_writable_paper
from utils.comparison.paper import printed_tables, write_comparison
from utils.comparison.paper_figures import draw_paper_figures
from utils.comparison.paper_words import CAPTIONS
from utils.comparison.report import FIGURES, report_sections
from utils.comparison.result import ComparisonResult, results_content
from utils.comparison.table_files import numeric_table
from utils.document import Table
from utils.errors import ConfigError
from utils.files import file_hash
from utils.options import CompareOptions

LABELS = ("YOLOv5n", "AK_Conv & 5 %", "N=9")
OPTIONS = CompareOptions(cfg=("a.yaml", "b.yaml"))


@pytest.fixture(scope="module")
def result(tmp_path_factory) -> ComparisonResult:
    return synthetic_result(LABELS, tmp_path_factory.mktemp("runs"))[0]


@pytest.fixture(scope="module")
def paper(result, tmp_path_factory) -> Path:
    return write_comparison(result, OPTIONS, tmp_path_factory.mktemp("paper"), figures=())


def test_tables_hold_the_numbers_of_results_json(result, paper):
    content = json.loads(json.dumps(results_content(result, OPTIONS)))
    accuracy = pd.read_csv(paper / "tables/accuracy.csv", index_col="Model")
    assert list(accuracy.index) == list(LABELS)
    titles = {"precision": "P", "recall": "R", "f1": "F1", "map50": "mAP50", "map75": "mAP75", "map50_95": "mAP50-95"}
    for row in content["results"]:
        values = {(m["group"], m["name"], m["metric"]): m for m in row["metrics"]}
        for metric, title in titles.items():
            known = values["all", "", metric]
            assert accuracy.loc[row["model"], title] == pytest.approx(known["mean"], abs=5.1e-4)
            assert accuracy.loc[row["model"], f"{title} std"] == pytest.approx(known["std"], abs=5.1e-4)
    differences = pd.read_csv(paper / "tables/differences.csv", index_col="Model")
    for pair in content["comparisons"]:
        row = differences.loc[pair["model"]]
        assert row["Verdict on mAP50-95"] == pair["verdict"]
        for metric in ("map50", "map50_95"):
            known = next(d for d in pair["differences"] if d["metric"] == metric and d["group"] == "all")
            title = titles[metric]
            shown = [row[title], row[f"{title} low"], row[f"{title} high"]]
            assert shown == pytest.approx([known["value"], known["low"], known["high"]], abs=5.1e-4)
    costs = pd.read_csv(paper / "tables/cost-1.csv", index_col="Model")
    assert [costs.loc[row["model"], "Parameters"] for row in content["results"]] == [
        row["parameters"] for row in content["results"]
    ]


def test_all_formats_hold_the_same_cells(paper):
    sheets = pd.read_excel(paper / "tables.xlsx", sheet_name=None)
    page = TableReader((paper / "tables.html").read_text(encoding="utf-8"))
    assert len(page.tables) == len(sheets)
    for (name, sheet), cells in zip(sheets.items(), page.tables, strict=True):
        pd.testing.assert_frame_equal(pd.read_csv(paper / f"tables/{name}.csv"), sheet, check_dtype=False)
        latex = (paper / f"tables/{name}.tex").read_text(encoding="utf-8")
        bodies = re.findall(r"\\midrule(.*?)\\bottomrule", latex, re.DOTALL)
        if len(bodies) == 1:  # not divided
            rows = [line.removesuffix(r" \\").split(" & ")[1:] for line in bodies[0].strip().splitlines()]
            assert [[signed_numbers(cell) for cell in row] for row in rows] == [
                [signed_numbers(cell.replace("\N{MINUS SIGN}", "-")) for cell in row[1:]] for row in cells[1:]
            ], name
    assert any("\N{MINUS SIGN}" in cell for cells in page.tables for row in cells for cell in row)


def signed_numbers(cell: str) -> list[str]:
    """Return the numbers of a cell of LaTeX or HTML with their signs."""
    plain = cell.replace("$-$", "-").replace("$+$", "+")
    return re.findall(r"[-+]?\d[\d,.]*", plain)


class TableReader(HTMLParser):
    """The tables of a page, as rows of cells."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self.tables[-1][-1].append("")
            self.in_cell = True

    def handle_endtag(self, tag):
        self.in_cell = tag not in ("th", "td", "table", "tr") and getattr(self, "in_cell", False)

    def handle_data(self, data):
        if getattr(self, "in_cell", False):
            self.tables[-1][-1][-1] += data


def test_numbers_of_a_cell_get_columns_of_their_own():
    rows = [
        ["a", "1,234", "0.453 ± 0.009", "-0.012** [-0.020, -0.003]", "better", "-", "< 0.001", "0.350 (+0.050)", "x"],
        ["b", "5", "0.5 ± 0.1", "+0.100 [-0.100, +0.300]", "-", "+4.0%", "0.570", "0.4", "12"],
    ]
    frame = numeric_table(Table(header=["Model", "n", "m", "d", "Verdict", "c", "p", "seed", "mixed"], rows=rows))
    assert frame.to_dict("list") == {
        "Model": ["a", "b"],
        "n": [1234, 5],
        "m": [0.453, 0.5],
        "m std": [0.009, 0.1],
        "d": [-0.012, 0.1],
        "d significance": ["**", ""],
        "d low": [-0.02, -0.1],
        "d high": [-0.003, 0.3],
        "Verdict": ["better", "-"],
        "c": [None, 0.04],
        "p": [0.001, 0.57],
        "p bound": ["< ", None],
        "seed": [0.35, 0.4],
        "seed difference": [0.05, None],
        "mixed": ["x", 12],
    }


def test_chinese_tables_have_no_english_words(result):
    values = {"split": "val", "images": "24", "baseline": "YOLOv5n", "correction": "Holm"}
    english = printed_tables(report_sections(result, {}), CAPTIONS, values)
    chinese = printed_tables(report_sections(result, {}), CAPTIONS, values, lang="zh")
    assert [table.name for table in chinese] == [table.name for table in english]
    kept = {*LABELS, *result.names, "val"}
    for table in chinese:
        texts = [table.caption, *table.table.header, *(cell for row in table.table.rows for cell in row)]
        for name in sorted(kept, key=len, reverse=True):
            texts = [text.replace(name, "") for text in texts]
        words = set(re.findall(r"[a-z]{4,}", " ".join(texts))) - {"mean"}
        assert words == set(), table.name


def test_captions_are_filled_and_state_the_correction_only_if_there_is_one(result, tmp_path):
    for count in (1, 2, 3):
        part = replace(
            result,
            models=result.models[:count],
            scores=result.scores[:count],
            costs=result.costs[:count],
            pairs=result.pairs[: count - 1],
        )
        write_comparison(part, OPTIONS, tmp_path, figures=())
        text = "".join(path.read_text(encoding="utf-8") for path in sorted((tmp_path / "tables").glob("*.tex")))
        captions = re.findall(r"\\caption\{(.*)\}\n", text)
        assert captions and not any(re.search(r"\{[a-z]+\}", caption) for caption in captions)
        assert any("Holm" in caption for caption in captions) == (count > 2)
        # Tables of the earlier comparison with fewer models do not stay, files of the user's do.
        assert (tmp_path / "tables/differences.tex").exists() == (count > 1)
        (tmp_path / "tables/own.tex").write_text("mine")
    write_comparison(
        replace(result, models=result.models[:1], scores=result.scores[:1], costs=result.costs[:1], pairs=[]),
        OPTIONS,
        tmp_path,
        figures=(),
    )
    assert not (tmp_path / "tables/differences.tex").exists() and (tmp_path / "tables/own.tex").read_text() == "mine"


def test_contents_json_cannot_remove_files_outside(result, tmp_path):
    outside = tmp_path / "outside.txt"
    outside.write_text("x")
    folder = tmp_path / "paper"
    folder.mkdir()
    known = file_hash(outside)
    (folder / "contents.json").write_text(json.dumps({"../outside.txt": known, str(outside): known, "3": None}))
    write_comparison(result, OPTIONS, folder, figures=())
    assert outside.exists()


def test_names_are_no_formulas_and_need_not_be_valid_xml(tmp_path):
    names = ["=1+1", "a\x01b", "\udcff", "<b>", "+AKConv"]
    result, _ = synthetic_result(names[:3], tmp_path / "runs", classes=["=2", *names[3:]], seeds=2)
    folder = write_comparison(result, OPTIONS, tmp_path / "paper", figures=())
    sheets = openpyxl.load_workbook(folder / "tables.xlsx")
    cells = [cell for sheet in sheets for row in sheet.iter_rows() for cell in row]
    assert all(cell.data_type != "f" for cell in cells)
    assert {"=1+1", "ab", "?", "=2", "<b>", "+AKConv"} <= {cell.value for cell in cells}


def test_files_of_others_and_edited_ones_are_kept(result, tmp_path):
    (tmp_path / "paper.tex").write_text("my thesis")
    write_comparison(result, OPTIONS, tmp_path, figures=())
    assert (tmp_path / "paper.bak.tex").read_text() == "my thesis" and "tabular" not in (
        tmp_path / "paper.tex"
    ).read_text()
    assert not list(tmp_path.rglob("methods.bak.*"))
    (tmp_path / "methods.md").write_text("edited")
    write_comparison(result, OPTIONS, tmp_path, figures=())
    assert (tmp_path / "methods.bak.md").read_text() == "edited" and len(list(tmp_path.rglob("*.bak.*"))) == 2


def test_a_folder_that_cannot_be_made_is_refused_before_any_training(tmp_path):
    (tmp_path / "file").write_text("x")
    for name in ("file", "file/below"):
        with pytest.raises(ConfigError) as error:
            require_writable_paper(replace(OPTIONS, paper=str(tmp_path / name)))
        assert name in str(error.value)
    require_writable_paper(replace(OPTIONS, paper=str(tmp_path / "new" / "folder")))
    assert (tmp_path / "new/folder").is_dir()


def test_names_that_are_words_stay_as_they_are(tmp_path):
    result, _ = synthetic_result(["Mean", "large"], tmp_path, classes=("Missed", "small", "cow"), seeds=2)
    values = {"split": "验证集", "images": "24", "baseline": "Mean", "correction": ""}
    names = {"Mean", "large", *result.names}
    tables = printed_tables(report_sections(result, {}), CAPTIONS, values, lang="zh", names=names)
    by_name = {table.name: table.table for table in tables}
    assert [row[0] for row in by_name["accuracy"].rows] == ["Mean", "large"]
    assert {row[0] for row in by_name["per-class-1"].rows} == {"Missed", "small", "cow"}
    assert {row[0] for row in by_name["per-object-size-1"].rows} <= {"小目标", "中目标", "大目标"}
    assert "漏检" in [row[0] for row in by_name["errors-1"].rows]


@pytest.mark.long
@pytest.mark.parametrize("lang", ["en", "zh"])
def test_tex_prints_the_whole_paper_without_overfull_boxes(lang, tmp_path):
    labels = [*LABELS, "yolov5n-AKConv-paper9+zeros+depthwise+slow"]
    names = ["cat", "red blood cell", "红细胞" if lang == "zh" else "person_with_a_long_name"]
    result, evaluated = synthetic_result(labels, tmp_path / "runs", classes=names)
    drawn = draw_paper_figures(result, evaluated, folder=tmp_path, formats=("pdf",), lang=lang)[FIGURES]
    folder = write_comparison(result, replace(OPTIONS, lang=lang), tmp_path / "paper", figures=drawn)
    log = compile_latex(folder / "paper.tex", engine="xelatex" if lang == "zh" else "pdflatex")
    assert "Overfull" not in log and "Missing character" not in log and "undefined" not in log
    assert {path.suffix for path in (folder / "figures").iterdir()} == {".png", ".pdf", ".csv"}
