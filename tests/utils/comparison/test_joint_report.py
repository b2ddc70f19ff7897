"""The joint comparison of several data sets, its tables, numbers and warnings, from random scores."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest

from tests.helpers.comparison import index_of, trained_model
from tests.helpers.random_runs import COST, NAMES, random_scores
from utils.comparison.jobs import FailedRun
from utils.comparison.joint_report import compare_jointly, forest_rows, joint_sections, write_joint_results
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
    sharp, equal = compare_jointly(results)
    assert (sharp.model, sharp.baseline, list(sharp.of_sets)) == ("sharp", "plain", ["a", "b", "c"])
    assert list(equal.of_sets) == ["a", "b"]
    expected = joint_difference([result.pairs[0].differences[PRIMARY_METRIC] for result in results.values()])
    assert sharp.differences[PRIMARY_METRIC] == expected
    assert sharp.verdicts[PRIMARY_METRIC].decision == BETTER and "3 data sets" in sharp.sentence
    assert sharp.verdicts[PRIMARY_METRIC].p_value == pytest.approx(2 * expected.p_value), "Holm over two models"
    assert {key[0] for key in sharp.differences} == {"all", "size", "coco", "error"}


def test_without_a_baseline_on_two_sets_there_is_no_joint_verdict(results):
    headless = {"a": results["a"], "b": result_of(20, ["sharp", "equal"])}
    assert compare_jointly(headless) == [] and compare_jointly({"a": results["a"]}) == []
    headings = {s.heading: s for s in joint_sections(headless, [], labels=LABELS, warnings=[], failed=[])}
    assert "Differences" not in headings and "Data set b" in headings


def test_everything_is_written_and_numbers_are_those_of_the_sets(results, tmp_path, caplog):
    failed = [FailedRun(run=SimpleNamespace(title="b/a-seed1"), exit_code=3, reason="out of memory")]
    options = CompareOptions(cfg=("a", "b"), data=("a.yaml", "b.yaml", "c.yaml"))
    write_joint_results(results, options, labels=LABELS, warnings=["shared"], failed=failed, folder=tmp_path)
    content = json.loads((tmp_path / "results.json").read_text())
    assert [one["label"] for one in content["data_sets"]] == ["a", "b", "c"] and content["correction"] == "Holm"
    row = next(r for r in content["comparisons"][0]["differences"] if (r["group"], r["metric"]) == ("all", "map50_95"))
    values = [of.pairs[0].differences[PRIMARY_METRIC].value for of in results.values()]
    assert [one["value"] for one in row["data_sets"]] == values and row["value"] == pytest.approx(sum(values) / 3)
    assert row["low"] < row["value"] < row["high"] and row["random_effects"]["low"] < row["random_effects"]["high"]
    assert content["warnings"][0] == "shared" and any(" c" in text and "equal" in text for text in content["warnings"])
    assert content["failed"] == [{"run": "b/a-seed1", "exit_code": 3, "reason": "out of memory"}]
    text, page = (tmp_path / "compare.md").read_text(), (tmp_path / "report.html").read_text(encoding="utf-8")
    assert all(f"{row['value']:+.3f}" in one and "Data set c" in one for one in (text, page)) and "a: w" in text
    assert (tmp_path / "figures/data_sets.csv").read_text().count("\n") == 1 + 2 * (4 + 3)


def test_forest_rows_are_the_sets_and_their_mean(results):
    joint = compare_jointly(results)
    _, *rows = forest_rows(joint)
    of_sharp = [row for row in rows if row[:2] == ("mAP50-95", "sharp")]
    assert [row[2] for row in of_sharp] == ["a", "b", "c", "mean"]
    mean = joint[0].differences[PRIMARY_METRIC]
    assert of_sharp[-1][3:] == (mean.value, mean.low, mean.high, 1) and of_sharp[0][-1] == pytest.approx(1 / 3)


def test_missing_values_leave_gaps_in_tables_and_files(results, tmp_path):
    (one,) = results["a"].pairs[:1]
    undefined = replace(one.differences[PRIMARY_METRIC], components=((math.nan, 23.0),), standard_error=math.nan)
    broken = replace(one, differences={**one.differences, PRIMARY_METRIC: undefined})
    changed = {**results, "a": replace(results["a"], pairs=[broken])}
    joint = compare_jointly(changed)
    sections = {s.heading: s for s in joint_sections(changed, joint, labels=LABELS, warnings=[], failed=[])}
    accuracy, other = sections["Accuracy"].blocks[-1], sections["Other data sets"].blocks[-1]
    assert isinstance(accuracy, Table) and accuracy.rows[2][3:] == ["-", "-"] and accuracy.rows[0][4] != "-"
    assert other.rows[0][1:] == ["-", "-", "-"] and isinstance(sections["Joint verdict"].blocks[0], BulletList)
    write_joint_results(changed, CompareOptions(cfg=("a", "b")), labels=LABELS, warnings=[], failed=[], folder=tmp_path)
    assert "NaN" not in (tmp_path / "results.json").read_text()
