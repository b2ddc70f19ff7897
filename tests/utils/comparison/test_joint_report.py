"""The joint comparison of several data sets, its tables, numbers and warnings, from random scores."""

import json
import math
import re
from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest
from matplotlib.figure import Figure

from tests.helpers.comparison import index_of, trained_model
from tests.helpers.random_runs import COST, NAMES, random_scores
from utils.comparison.ablation import ablation_effects
from utils.comparison.ablation_design import Ablation
from utils.comparison.jobs import FailedRun
from utils.comparison.joint_report import (
    compare_jointly,
    draw_forest_plot,
    forest_rows,
    joint_sections,
    write_joint_results,
)
from utils.comparison.paper import write_joint_comparison
from utils.comparison.result import ComparisonResult
from utils.comparison.statistics import PRIMARY_METRIC, compare_with_baseline
from utils.document import BulletList, Table
from utils.metrics.joint_difference import joint_difference
from utils.metrics.significance import BETTER
from utils.options import CompareOptions

LABELS = ["plain", "sharp", "equal"]


def result_of(seed: int, labels: list[str]) -> ComparisonResult:
    noises = {"plain": 6, "sharp": 2, "equal": 6}
    scores = [
        random_scores(label, [seed + 3 * k, seed + 3 * k + 1, seed + 3 * k + 2], noise=noises[label])
        for k, label in enumerate(labels)
    ]
    return ComparisonResult(
        header="h",
        val=index_of(["a.png"] * 24, [0] * 50, [2] * 23 + [4]),
        names=NAMES,
        models=[trained_model(label, is_finished_weights=False) for label in labels],
        scores=scores,
        pairs=compare_with_baseline(scores, images=24) if labels[0] == "plain" else [],
        costs=[COST] * len(labels),
        warnings=["w"],
        commands=["python compare.py"],
    )


@pytest.fixture(scope="module")
def results() -> dict[str, ComparisonResult]:
    return {"a": result_of(1, LABELS), "b": result_of(20, LABELS), "c": result_of(40, ["plain", "sharp"])}


def test_models_are_compared_over_the_sets_that_they_have(results):
    joint = compare_jointly(results, LABELS)
    assert {model: list(one.of_sets) for model, one in joint.comparisons.items()} == {
        "sharp": ["a", "b", "c"],
        "equal": ["a", "b"],
    }
    sharp = joint.comparisons["sharp"]
    expected = joint_difference([result.pairs[0].differences[PRIMARY_METRIC] for result in results.values()])
    assert sharp.differences[PRIMARY_METRIC] == expected and sharp.title == "sharp - plain"
    assert sharp.verdicts[PRIMARY_METRIC].decision == BETTER and "3 data sets" in joint.sentences[0]
    assert sharp.verdicts[PRIMARY_METRIC].p_value == pytest.approx(2 * expected.p_value), "Holm over two models"
    assert {key[0] for key in sharp.differences} == {"all", "size", "coco", "error"} and sharp.marks[PRIMARY_METRIC]
    assert joint.effects == []


def test_without_a_baseline_on_two_sets_there_is_no_joint_verdict(results):
    headless = {"a": results["a"], "b": result_of(20, ["sharp", "equal"])}
    joint = compare_jointly(headless, LABELS)
    assert joint.comparisons == {} == compare_jointly({"a": results["a"]}, LABELS).comparisons
    headings = {section.heading for section in joint_sections(joint, [])}
    assert "Differences" not in headings and "Data set b" in headings


def with_ablation(result: ComparisonResult, *labels: str) -> ComparisonResult:
    """The result as if sharp and equal were switches that are on in the models of these names."""
    on = {label: frozenset(() if label == "plain" else (label,)) for label in ("plain", *labels)}
    ablation = Ablation(switches=("sharp", "equal"), on=on)
    return replace(result, ablation=ablation_effects(ablation, result.scores, images=24))


def test_effects_are_joined_over_the_sets_that_weigh_the_same_models(results):
    ablated = {name: with_ablation(result, "sharp", "equal") for name, result in results.items()}
    joint = compare_jointly(ablated, LABELS)
    assert {switches: list(one.of_sets) for switches, one in joint.effects} == {
        ("sharp",): ["a", "b", "c"],
        ("equal",): ["a", "b"],
    }
    effect, comparison = (of.differences[PRIMARY_METRIC] for of in (joint.effects[0][1], joint.comparisons["sharp"]))
    same = ("value", "low", "high", "random_effects")
    assert [getattr(effect, name) for name in same] == [getattr(comparison, name) for name in same], (
        "of the same models"
    )
    (tables,) = [section.blocks[1:] for section in joint_sections(joint, []) if section.heading == "Ablation"]
    assert [len(table.rows[0]) - len(table.rows[1]) for table in tables] == [0, 0] and tables[1].rows[0][3] == BETTER
    assert tables[0].header[3:] == ["a", "b", "c"] and tables[0].rows[1][-1] == "-"


def test_everything_is_written_and_numbers_are_those_of_the_sets(results, tmp_path):
    failed = [FailedRun(run=SimpleNamespace(title="b/a-seed1"), exit_code=3, reason="out of memory")]
    options = CompareOptions(cfg=("a", "b"), data=("a.yaml", "b.yaml", "c.yaml"), figures=("svg", "pdf"), lang="zh")
    ablated = {name: with_ablation(result, "sharp", "equal") for name, result in results.items()}
    write_joint_results(compare_jointly(ablated, LABELS, warnings=["shared"], failed=failed), options, folder=tmp_path)
    content = json.loads((tmp_path / "results.json").read_text())
    assert [one["label"] for one in content["data_sets"]] == ["a", "b", "c"] and content["correction"] == "Holm"
    row = next(r for r in content["comparisons"][0]["differences"] if (r["group"], r["metric"]) == ("all", "map50_95"))
    values = [of.pairs[0].differences[PRIMARY_METRIC].value for of in results.values()]
    assert [one["value"] for one in row["data_sets"]] == values and row["value"] == pytest.approx(sum(values) / 3)
    assert row["low"] < row["value"] < row["high"] and row["random_effects"]["low"] < row["random_effects"]["high"]
    assert row["significance"] in ("*", "**", "***") and [e["switches"] for e in content["effects"]] == [
        ["sharp"],
        ["equal"],
    ]
    assert content["warnings"][0] == "shared" and any(" c" in text and "equal" in text for text in content["warnings"])
    assert content["failed"] == [{"run": "b/a-seed1", "exit_code": 3, "reason": "out of memory"}]
    text, page = (tmp_path / "compare.md").read_text(), (tmp_path / "report.html").read_text(encoding="utf-8")
    assert all(f"{row['value']:+.3f}" in one and "Data set c" in one for one in (text, page)) and "a: w" in text
    assert "](figures/data_sets.png)" in text and page.count("<img") == 1
    assert {path.suffix for path in (tmp_path / "figures").iterdir()} == {".png", ".svg", ".pdf", ".csv"}
    assert (tmp_path / "figures/data_sets.csv").read_text().count("\n") == 1 + 2 * (4 + 3)


def test_forest_rows_are_the_sets_and_their_mean(results):
    one = compare_jointly(results, LABELS).comparisons["sharp"]
    rows = forest_rows(one, PRIMARY_METRIC, series=1)
    assert [row.joint for row in rows] == [False, False, False, True] and [row.label for row in rows[:3]] == list("abc")
    mean = one.differences[PRIMARY_METRIC]
    assert (rows[-1].value, rows[-1].low, rows[-1].high) == (mean.value, mean.low, mean.high)


def test_a_page_of_many_models_has_the_most_significant(results, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("utils.comparison.joint_report.forest", lambda panels, **_: drawn.append(panels) or Figure())
    monkeypatch.setattr("utils.comparison.joint_report.max_panels", lambda rows: 2 if rows == 4 else 0)
    joint = compare_jointly(results, LABELS)
    options = CompareOptions(cfg=("a", "b"), figures=())
    (image,) = draw_forest_plot(joint, options, folder=tmp_path)
    assert " 1 of 2 models" in image.caption
    assert [list(panels) for panels in drawn] == [["sharp: mAP50", "sharp: mAP50-95"]]
    assert "equal" in (tmp_path / "figures/data_sets.csv").read_text()
    monkeypatch.setattr("utils.comparison.joint_report.max_panels", lambda _: 9)
    long, other = ("a" * 20 + middle + "b" * 20 for middle in "12")
    two = {long: joint.comparisons["sharp"], other: joint.comparisons["equal"]}
    renamed = replace(joint, comparisons=two, labels=["plain", long, other])
    draw_forest_plot(renamed, options, folder=tmp_path)
    assert len(drawn[1]) == 4, "although their short names are equal"


def test_missing_values_leave_gaps_in_tables_and_files(results, tmp_path):
    (one,) = results["a"].pairs[:1]
    undefined = replace(
        one.differences[PRIMARY_METRIC], components=((math.nan, 23.0),), standard_error=math.nan, low=math.nan
    )
    broken = replace(one, differences={**one.differences, PRIMARY_METRIC: undefined})
    joint = compare_jointly({**results, "a": replace(results["a"], pairs=[broken])}, LABELS)
    sections = {section.heading: section for section in joint_sections(joint, [])}
    accuracy, other = sections["Accuracy"].blocks[-1], sections["Other data sets"].blocks[-1]
    assert isinstance(accuracy, Table) and accuracy.rows[2][3:] == ["-", "-"] and accuracy.rows[0][4] != "-"
    assert other.rows[0][1:] == ["-", "-", "-"] and isinstance(sections["Joint verdict"].blocks[0], BulletList)
    write_joint_results(joint, CompareOptions(cfg=("a", "b")), folder=tmp_path)
    assert "NaN" not in (tmp_path / "results.json").read_text() and (tmp_path / "figures/data_sets.png").is_file()


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_paper_holds_the_joint_numbers_in_tables_and_text(results, tmp_path, lang):
    joint = compare_jointly(results, LABELS)
    options = CompareOptions(cfg=("a.yaml", "b.yaml"), data=("a", "b", "c"), paper=str(tmp_path / "paper"), lang=lang)
    drawn = write_joint_results(joint, options, folder=tmp_path)
    folder = write_joint_comparison(joint, options, figures=drawn)
    content = json.loads((tmp_path / "results.json").read_text())
    table = pd.read_csv(folder / "tables/differences-2.csv", index_col=0)
    text = (folder / "methods.md").read_text(encoding="utf-8")
    mean = "Mean" if lang == "en" else "均值"
    for one in content["comparisons"]:
        known = next(d for d in one["differences"] if (d["group"], d["metric"]) == ("all", "map50_95"))
        row, values = table.loc[one["model"]], [known[name] for name in ("value", "low", "high")]
        assert [row[mean], row[f"{mean} low"], row[f"{mean} high"]] == pytest.approx(values, abs=5.1e-4)
        assert row["a"] == pytest.approx(known["data_sets"][0]["value"], abs=5.1e-4)
        assert all(f"{value:+.3f}" in text for value in values)
    captions = re.findall(r"\\caption\{(.*)\}", (folder / "tables/differences-2.tex").read_text(encoding="utf-8"))
    assert "mAP50-95" in captions[0] and "plain" in captions[0]
    assert (folder / "figures/data_sets.pdf").is_file() and (folder / "tables/other-data-sets.tex").is_file()
    assert bool(re.search(r"[a-z]{5,}", re.sub("plain|sharp|equal", "", text))) == (lang == "en")
