"""The sections of a report and the files that are written from them."""

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.helpers.comparison import index_of, trained_model
from tests.helpers.random_runs import COST, NAMES, random_scores
from utils.comparison.jobs import FailedRun
from utils.comparison.predictions import Support
from utils.comparison.report import (
    COST_NOTE,
    EXAMPLES,
    OVERVIEW,
    SAMPLING,
    interpretation,
    report_sections,
    write_reports,
    write_results,
)
from utils.comparison.result import ComparisonResult
from utils.comparison.statistics import COST_COLUMNS, PRIMARY_METRIC, compare_with_baseline
from utils.document import BulletList, CodeBlock, Image, Section, Table
from utils.log import LOGGER
from utils.metrics.object_size import COCO_SCALE, TINY_SCALE
from utils.options import CompareOptions


@pytest.fixture(scope="module")
def result():
    scores = [random_scores("plain", [1, 2, 3], noise=6), random_scores("sharp", [4, 5, 6], noise=2)]
    return ComparisonResult(
        header="h",
        val=index_of(["a.png"] * 24, [0] * 50, [2] * 23 + [4]),
        names=NAMES,
        models=[trained_model(score.label, is_finished_weights=False) for score in scores],
        scores=scores,
        pairs=compare_with_baseline(scores, images=24),
        costs=[COST] * 2,
        commands=["python compare.py"],
    )


def sections(result: ComparisonResult, **figures: list[Image]) -> dict[str, Section]:
    return {section.heading: section for section in report_sections(result, figures)}


def test_a_report_has_sections_for_what_there_is(result):
    found = sections(result)
    first, *others = found.values()
    assert (first.level, first.blocks) == (1, ["h"]) and {section.level for section in others} == {2}
    assert found["Verdict"].blocks == [BulletList([result.pairs[0].sentence])]
    assert found["Commands"].blocks == [CodeBlock(["python compare.py"])]
    per_class = found["Per class"].blocks
    assert [type(block) for block in per_class] == [Table] * 2 + [str] + [Table] * 6
    assert [table.header[0] for table in per_class[:2]] == ["plain", "sharp"]
    names = ("Accuracy", "Differences", "Further differences", "COCO metrics", "Cost")
    assert [type(found[name].blocks[1]) for name in names] == [Table] * 5
    assert [type(block) for block in found["COCO metrics"].blocks] == [str, Table, str, Table]
    assert not {"Failed runs", "Warnings", "Per seed", "Weights", OVERVIEW, EXAMPLES, SAMPLING} & set(found)


def test_what_went_wrong_comes_with_the_verdict(result):
    run = SimpleNamespace(folder=Path("compare/a-seed1"), log=Path("compare/a-seed1.log"))
    failed = FailedRun(run=run, exit_code=3, reason="out of memory")
    found = sections(replace(result, failed=[failed], warnings=["w1", "w2"]))
    assert list(found)[1:4] == ["Failed runs", "Verdict", "Warnings"]
    (failures,), (warnings,) = found["Failed runs"].blocks, found["Warnings"].blocks
    assert all(word in failures.items[0] for word in ("a-seed1", "3", "out of memory", "a-seed1.log"))
    assert warnings == BulletList(["w1", "w2"])


def test_without_a_baseline_or_with_one_model_there_are_no_differences(result):
    alone = replace(result, models=result.models[:1], scores=result.scores[:1], costs=[COST], pairs=[])
    missing = replace(result, pairs=[])
    verdicts = [sections(one)["Verdict"].blocks[0].items for one in (alone, missing)]
    assert "Differences" not in sections(alone) and "Differences" not in sections(missing)
    assert [len(items) for items in verdicts] == [1, 1] and verdicts[0] != verdicts[1] and "plain" in verdicts[0][0]


def test_notes_have_the_numbers_that_tables_need(result):
    found = sections(replace(result, excluded=["cow of large (1 in 1)"], timing_noise=(0.02, 0.145)))
    note = found["Per object size"].blocks[0]
    assert "cow of large (1 in 1)" in note and "5 objects" in note and "3 images" in note
    assert "cow of large" not in found["Per class"].blocks[2]
    cost = found["Cost"].blocks[0]
    assert cost == COST_NOTE.format(0.02, 0.145) and "2.0%" in cost and "14.5%" in cost
    support = {("class", "dog"): Support(41, 17)}
    rows = sections(replace(result, support=support))["Per class"].blocks[3].rows
    assert [row[1] for row in rows if row[0] == "dog"] == ["41 in 17"]


def test_the_interpretation_depends_on_seeds_and_number_of_comparisons(result):
    fixed = compare_with_baseline([random_scores("a", [1], noise=6), random_scores("b", [2], noise=6)], images=24)
    texts = [interpretation(pairs) for pairs in (result.pairs, fixed, [*result.pairs] * 2)]
    assert len(set(texts)) == 3 and ["Holm" in text for text in texts] == [False, False, True]


def test_configurations_and_weights_are_listed(result):
    rows = [f"row {number}" for number in range(14)]
    model = trained_model("sharp", Path("a/best.pt"), Path("b/best.pt"))
    runs = (replace(model.runs[0], args={"seed": 4}), model.runs[1])
    models = [result.models[0], replace(model, runs=runs)]
    found = sections(replace(result, models=models, config_diffs={"sharp": rows, "equal": []}))
    text, code, same = found["Configuration differences"].blocks
    assert "sharp" in text and "equal" in same and code.lines[:12] == rows[:12] and len(code.lines) == 13
    assert "2" in code.lines[12]
    assert found["Weights"].blocks[0].rows == [["sharp", "4", "a/best.pt"], ["sharp", "unknown", "b/best.pt"]]


def test_results_are_written_before_any_image_and_hold_all_numbers(result, tmp_path):
    warned = replace(result, warnings=["w"])
    write_results(warned, CompareOptions(cfg=("a.yaml", "b.yaml")), folder=tmp_path)
    content = json.loads((tmp_path / "results.json").read_text())
    assert [(row["model"], row["seeds"], row["gflops"]) for row in content["results"]] == [
        ("plain", 3, 1.5),
        ("sharp", 3, 1.5),
    ]
    assert content["validation"] == {"split": "val", "images": 24, "objects": 50} and content["warnings"] == ["w"]
    assert content["results"][1]["map50"] == result.scores[1].metrics["all", "", "map50"].points.mean()
    (pair,) = content["comparisons"]
    primary = next(d for d in pair["differences"] if (d["group"], d["metric"]) == ("all", "map50_95"))
    assert pair["verdict"] == result.pairs[0].verdicts[PRIMARY_METRIC].decision and content["correction"] is None
    assert primary["low"] < primary["value"] < primary["high"]
    assert primary["p_value_corrected"] >= primary["p_value"] and primary["covers_seeds"]
    assert primary["significance"] == result.pairs[0].marks[PRIMARY_METRIC]
    groups = {(row["group"], row["metric"]) for row in pair["differences"]}
    assert groups >= {("all", "f1"), ("class", "recall"), ("all", "map75"), ("coco", "AP"), ("coco", "AP_medium")}
    assert set(content["results"][0]) >= {"precision", "recall", "f1", "map50", "map75", "map50_95"}
    metric = content["results"][0]["metrics"][0]
    assert len(metric["runs"]) == 3 and metric["std"] == np.std(metric["runs"], ddof=1)
    assert "![" not in (tmp_path / "compare.md").read_text(encoding="utf-8")


def test_the_tables_in_the_terminal_fit_80_columns(result, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(LOGGER, "propagate", True)
    caplog.set_level("INFO")
    costs = [dict.fromkeys(COST_COLUMNS, 1234567.0)] * 2
    write_results(replace(result, costs=costs), CompareOptions(cfg=("a.yaml", "b.yaml")), folder=tmp_path)
    lines = [line for line in caplog.text.splitlines() if line.startswith("|")]
    assert max(map(len, lines)) <= 80
    headings = [cell.strip() for line in lines for cell in line.split("|")[1:-1]]
    assert set(headings) >= {"P", "F1", "mAP75", "AP medium", *(title for title, _ in COST_COLUMNS.values())}


def test_the_sizes_of_a_comparison_are_named(result):
    notes = [
        sections(replace(result, size_scale=scale))["COCO metrics"].blocks[0] for scale in (COCO_SCALE, TINY_SCALE)
    ]
    assert all("medium 32² to 96²" in note and "large from 96²" in note for note in notes)
    assert "small to 32²" in notes[0] and "tiny to 16²" in notes[1] and "small 16² to 32²" in notes[1]


def test_json_has_null_for_what_is_not_finite(result, tmp_path):
    scores = [random_scores("a", [1], noise=9), random_scores("b", [2], noise=1)]
    single = replace(result, scores=scores, pairs=compare_with_baseline(scores, images=24))
    write_results(single, CompareOptions(cfg=("a.yaml", "b.yaml")), folder=tmp_path)
    text = (tmp_path / "results.json").read_text()
    content = json.loads(text)
    assert "NaN" not in text and content["results"][0]["metrics"][0]["std"] is None
    assert content["comparisons"][0]["differences"][0]["seed_variance"] is None


def test_both_reports_show_the_same_sections_and_images(result, tmp_path):
    figures = {}
    for heading, name in (
        (OVERVIEW, "compare.png"),
        (EXAMPLES, "examples/sharp-1.jpg"),
        (SAMPLING, "sampling/sharp.jpg"),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
        figures[heading] = [Image(tmp_path / name, f"of {name}")]
    write_reports(result, figures, folder=tmp_path)
    text, page = ((tmp_path / name).read_text(encoding="utf-8") for name in ("compare.md", "report.html"))
    headings = [section.heading for section in report_sections(result, figures)]
    assert [line.lstrip("# ") for line in text.splitlines() if line.startswith("#")] == headings
    assert re.findall(r"<h[12][^>]*>(.*?)</h[12]>", page) == headings
    links = [line.split("](")[1].rstrip(")") for line in text.splitlines() if line.startswith("![")]
    assert links == ["compare.png", "examples/sharp-1.jpg", "sampling/sharp.jpg"] and page.count("<img ") == 3
