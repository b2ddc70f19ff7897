"""Scores of models to differences, verdicts, warnings and tables."""

import math
import re
from dataclasses import replace

import pytest

from tests.helpers.random_runs import COST, NAMES, random_scores
from utils.comparison.checks import score_warnings, support_warnings
from utils.comparison.predictions import Support
from utils.comparison.statistics import (
    ALL_TITLES,
    COST_COLUMNS,
    PRIMARY_METRIC,
    accuracy_table,
    class_tables,
    coco_table,
    compare_with_baseline,
    cost_tables,
    detail_tables,
    difference_table,
    further_difference_table,
    seed_table,
)
from utils.metrics.significance import BETTER, INCONCLUSIVE


@pytest.fixture(scope="module")
def models():
    return [
        random_scores("plain", [1, 2, 3], noise=6),
        random_scores("sharp", [4, 5, 6], noise=2),
        random_scores("equal", [7, 8, 9], noise=6),
    ]


def test_the_better_model_gets_a_verdict_and_the_equal_one_does_not(models):
    sharp, equal = compare_with_baseline(models, images=24)
    assert (sharp.model, sharp.baseline, sharp.title) == ("sharp", "plain", "sharp - plain")
    assert sharp.verdicts[PRIMARY_METRIC].decision == BETTER and equal.verdicts[PRIMARY_METRIC].decision == INCONCLUSIVE
    assert sharp.verdicts[PRIMARY_METRIC].p_value >= sharp.differences[PRIMARY_METRIC].p_value
    assert set(sharp.differences) == set(models[0].metrics) and ("size", "medium", "map50") in sharp.differences
    assert f"{sharp.differences[PRIMARY_METRIC].value:+.3f}" in sharp.sentence


def test_one_seed_each_gives_an_interval_but_no_verdict():
    models = [random_scores("a", [1], noise=9), random_scores("b", [2], noise=1)]
    (pair,) = compare_with_baseline(models, images=24)
    difference = pair.differences[PRIMARY_METRIC]
    assert difference.low > 0 and not difference.covers_seeds and all(map(math.isnan, difference.seed_variances))
    assert pair.verdicts[PRIMARY_METRIC].decision == INCONCLUSIVE
    fixed = [replace(model, fixed_weights=True) for model in models]
    (pair,) = compare_with_baseline(fixed, images=24)
    assert pair.verdicts[PRIMARY_METRIC].decision == BETTER, "of these weights, whatever other seeds would give"


PLENTY = {("class", "cat"): Support(60, 60), ("class", "dog"): Support(60, 60)}


def numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


@pytest.mark.parametrize(
    ("images", "changed", "expected"),
    [
        (60, {}, None),
        (49, {}, [49]),
        (60, {("class", "dog"): Support(40, 1)}, [40, 1]),
        (60, {("class", "dog"): Support(29, 29)}, [29, 29]),
        (60, {("size", "small"): Support(29, 20), ("size", "large"): Support(40, 10)}, [29, 20]),
    ],
)
def test_a_small_validation_set_is_warned_of_by_its_numbers(images, changed, expected):
    warnings = support_warnings(images, NAMES[:2], PLENTY | changed)
    if expected is None:
        assert warnings == []
        return
    (warning,) = warnings
    reasons = warning.split("(")[1].split(")")[0]
    assert numbers(reasons) == expected and numbers(warning)[len(expected) :] == [50, 30, 10], "the limits follow"
    assert [name in reasons for name in ("cat", "dog", "small", "large")] == [
        False,
        ("class", "dog") in changed,
        ("size", "small") in changed,
        False,
    ]


def test_classes_without_objects_are_named_but_not_all_of_many():
    (warning,) = support_warnings(60, NAMES, PLENTY)
    assert "cow" in warning and "cat" not in warning and "dog" not in warning
    (warning,) = support_warnings(60, ["cat", "dog", *"123456789"], PLENTY)
    assert numbers(warning.split(")")[0]) == [1, 2, 3, 4, 5, 4], "five by name, and four more"


def test_few_seeds_and_models_that_learned_nothing_are_warned_of(models):
    one, two = random_scores("one", [1], noise=6), random_scores("two", [1, 2], noise=6)
    assert score_warnings(models) == [] and len(score_warnings([one, one])) == 1
    (warning,) = score_warnings([one, two, models[0]])
    assert "one, two" in warning and "plain" not in warning
    assert any(
        "noise" in warning and "0.02" in warning for warning in score_warnings([random_scores("noise", [1], noise=400)])
    )


def test_different_seeds_are_warned_of_where_they_are_known(models):
    first, second = replace(models[0], seeds=(0, 1, 2)), replace(models[1], seeds=(1, 2, 7))
    (warning,) = score_warnings([first, second])
    assert "plain 0, 1, 2" in warning and "sharp 1, 2, 7" in warning
    assert score_warnings([first, models[1]]) == [] and score_warnings([first, replace(second, seeds=(0, 1, 2))]) == []


# Tables


@pytest.fixture(scope="module")
def two(models):
    return models[:2]


def interval(difference, mark="") -> str:
    return f"{difference.value:+.3f}{mark} [{difference.low:+.3f}, {difference.high:+.3f}]"


def test_accuracy_is_the_mean_and_standard_deviation_over_seeds(two):
    single = random_scores("single", [7], noise=6)
    table = accuracy_table([*two, single])
    assert [row[:2] for row in table.rows] == [["plain", "3"], ["sharp", "3"], ["single", "1"]]
    points = two[0].metrics[PRIMARY_METRIC].points
    assert table.rows[0][7] == f"{points.mean():.3f} ± {points.std(ddof=1):.3f}"
    assert table.rows[2][7] == f"{single.metrics[PRIMARY_METRIC].points[0]:.3f}"
    assert {len(row) for row in table.rows} == {len(table.header)} == {8}
    f1 = single.metrics["all", "", "f1"].points[0]
    assert table.header[2:5] == ["P", "R", "F1"] and table.rows[2][4] == f"{f1:.3f}"


def test_coco_and_class_tables_have_every_metric(two):
    table = coco_table(two)
    assert table.header == ["Model", "AP", "AP50", "AP75", "AP small", "AP medium", "AP large"]
    points = two[1].metrics["coco", "", "AP_medium"].points
    assert table.rows[1][0] == "sharp" and table.rows[1][5] == f"{points.mean():.3f} ± {points.std(ddof=1):.3f}"
    tables = class_tables(two)
    assert [one.header for one in tables] == [[label, *ALL_TITLES.values()] for label in ("plain", "sharp")]
    points = two[1].metrics["class", "dog", "recall"].points
    assert tables[1].rows[1][:1] + tables[1].rows[1][2:3] == [
        "dog",
        f"{points.mean():.3f} ± {points.std(ddof=1):.3f}",
    ]


def test_differences_have_their_interval_p_value_and_verdict(two):
    several = compare_with_baseline([*two, random_scores("equal", [7, 8, 9], noise=6)], images=24)
    table = difference_table(several)
    for row, pair in zip(table.rows, several, strict=True):
        p_value = pair.verdicts[PRIMARY_METRIC].p_value
        mark = pair.marks[PRIMARY_METRIC]
        assert row[0] == f"{pair.model} - plain" and row[2] == interval(pair.differences[PRIMARY_METRIC], mark)
        assert len(mark) == sum(p_value < level for level in (0.05, 0.01, 0.001))
        assert row[3:] == ["< 0.001" if p_value < 0.001 else f"{p_value:.3f}", pair.verdicts[PRIMARY_METRIC].decision]
    assert "Holm" in table.header[3] and "Holm" not in difference_table(several[:1]).header[3]


def test_metrics_without_a_verdict_have_differences_with_uncorrected_marks(two):
    several = compare_with_baseline([*two, random_scores("equal", [7, 8, 9], noise=6)], images=24)
    assert further_difference_table(several, "all").header == ["Difference", "mAP75", "P", "R", "F1"]
    table = further_difference_table(several, "coco")
    assert table.header[1:4] == ["AP", "AP50", "AP75"]
    key = ("coco", "", "AP")
    difference = several[0].differences[key]
    assert several[0].p_value(key) == difference.p_value < 0.05
    assert table.rows[0][:2] == ["sharp - plain", interval(difference, several[0].marks[key])]
    assert several[0].marks[key].strip("*") == "" != several[0].marks[key]


def test_marks_need_a_known_seed_variance_and_ten_images():
    models = [random_scores("a", [1], noise=9), random_scores("b", [2], noise=1)]
    (pair,) = compare_with_baseline(models, images=24)
    assert pair.differences[PRIMARY_METRIC].p_value < 0.001 and set(pair.marks.values()) == {""}
    fixed = [replace(model, fixed_weights=True) for model in models]
    assert compare_with_baseline(fixed, images=24)[0].marks[PRIMARY_METRIC] == "***"
    assert compare_with_baseline(fixed, images=9)[0].marks[PRIMARY_METRIC] == ""


def test_a_difference_without_interval_is_a_number(two):
    (pair,) = compare_with_baseline([random_scores("a", [1], noise=6), random_scores("b", [2], noise=6)], images=1)
    assert math.isnan(pair.differences[PRIMARY_METRIC].low)
    assert difference_table([pair]).rows[0][2] == f"{pair.differences[PRIMARY_METRIC].value:+.3f}"


@pytest.mark.parametrize(("group", "name"), [("class", "dog"), ("size", "medium")])
def test_details_are_one_table_per_metric_and_a_row_per_class_or_size(two, group, name):
    pairs = compare_with_baseline(two, images=24)
    tables = detail_tables(two, pairs, group, {(group, name): Support(41, 17)})
    titles = {key: title for key, title in ALL_TITLES.items() if group == "class" or key.startswith("map")}
    assert [table.header[0] for table in tables] == list(titles.values())
    for table, metric in zip(tables, titles, strict=True):
        row = next(row for row in table.rows if row[0] == name)
        points = two[0].metrics[group, name, metric].points
        assert row[1].split(" in ") == ["41", "17"]
        assert row[2] == f"{points.mean():.3f} ± {points.std(ddof=1):.3f}"
        key = (group, name, metric)
        assert row[3] == interval(pairs[0].differences[key], pairs[0].marks[key])
        assert [other[1] for other in table.rows if other[0] != name] == ["-"] * (len(table.rows) - 1)
    assert detail_tables(two, pairs, "nothing", {}) == []


def test_runs_of_one_seed_are_in_one_row(two):
    first, second, third = (
        replace(model, seeds=seeds)
        for model, seeds in zip([*two, two[0]], [(0, 1, 2), (1, 2, 7), (None, 1, 9)], strict=True)
    )
    (first_one, first_two), (other_one, other_two) = (
        model.metrics[PRIMARY_METRIC].points[start : start + 2] for model, start in ((first, 1), (second, 0))
    )
    third_one = third.metrics[PRIMARY_METRIC].points[1]
    assert seed_table([first, second, third]).rows == [
        [
            "seed 1",
            f"{first_one:.3f}",
            f"{other_one:.3f} ({other_one - first_one:+.3f})",
            f"{third_one:.3f} ({third_one - first_one:+.3f})",
        ],
        ["seed 2", f"{first_two:.3f}", f"{other_two:.3f} ({other_two - first_two:+.3f})", "-"],
    ]
    assert seed_table([first, third]) is None, "one shared seed is not enough"
    assert seed_table(two) is None, "seeds are unknown"


def test_costs_have_a_column_if_any_model_has_them_and_their_relative_difference(two):
    costs = [COST, {**COST, "gflops": 1.8, "training_seconds": 12.0}]
    size, speed = cost_tables(two, costs)
    keys = ["parameters", "gflops", "sampling_gflops", "training_seconds"]
    assert list(size.header[1:]) == [COST_COLUMNS[key][0] for key in keys]
    assert size.rows == [
        ["plain", "1,000", "1.5", "0", "-"],
        ["sharp", "1,000", "1.8", "0", "12"],
        ["sharp - plain", "+0.0%", "+20.0%", "-", "-"],
    ]
    assert list(speed.header[1:]) == [COST_COLUMNS[key][0] for key in ("inference_ms", "inference_ms_p95")]
    assert speed.rows[-1] == ["sharp - plain", "+0.0%", "+0.0%"]
