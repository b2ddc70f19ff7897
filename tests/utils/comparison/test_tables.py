"""The cells of the tables are the numbers of scores, differences and costs."""

import math
from dataclasses import replace

import pytest

from tests.helpers.random_runs import COST, random_scores
from utils.comparison.predictions import Support
from utils.comparison.statistics import METRIC_TITLES, PRIMARY_METRIC, compare_with_baseline
from utils.comparison.tables import (
    COST_COLUMNS,
    accuracy_table,
    cost_table,
    detail_tables,
    difference_table,
    seed_table,
)


@pytest.fixture(scope="module")
def models():
    return [random_scores("plain", [1, 2, 3], noise=6), random_scores("sharp", [4, 5, 6], noise=2)]


def interval(difference) -> str:
    return f"{difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"


def test_accuracy_is_the_mean_and_standard_deviation_over_seeds(models):
    single = random_scores("single", [7], noise=6)
    table = accuracy_table([*models, single])
    assert [row[:2] for row in table.rows] == [["plain", "3"], ["sharp", "3"], ["single", "1"]]
    points = models[0].metrics[PRIMARY_METRIC].points
    assert table.rows[0][3] == f"{points.mean():.3f} ± {points.std(ddof=1):.3f}"
    assert table.rows[2][3] == f"{single.metrics[PRIMARY_METRIC].points[0]:.3f}"
    assert {len(row) for row in table.rows} == {len(table.header)} == {4}


def test_differences_have_their_interval_p_value_and_verdict(models):
    several = compare_with_baseline([*models, random_scores("equal", [7, 8, 9], noise=6)], images=24)
    table = difference_table(several)
    for row, pair in zip(table.rows, several, strict=True):
        p_value = pair.verdicts[PRIMARY_METRIC].p_value
        assert row[0] == f"{pair.model} - plain" and row[2] == interval(pair.differences[PRIMARY_METRIC])
        assert row[3:] == ["< 0.001" if p_value < 0.001 else f"{p_value:.3f}", pair.verdicts[PRIMARY_METRIC].decision]
    assert "Holm" in table.header[3] and "Holm" not in difference_table(several[:1]).header[3]


def test_a_difference_without_interval_is_a_number(models):
    (pair,) = compare_with_baseline([random_scores("a", [1], noise=6), random_scores("b", [2], noise=6)], images=1)
    assert math.isnan(pair.differences[PRIMARY_METRIC].low)
    assert difference_table([pair]).rows[0][2] == f"{pair.differences[PRIMARY_METRIC].value:+.3f}"


@pytest.mark.parametrize(("group", "name"), [("class", "dog"), ("size", "medium")])
def test_details_are_one_table_per_metric_and_a_row_per_class_or_size(models, group, name):
    pairs = compare_with_baseline(models, images=24)
    tables = detail_tables(models, pairs, group, {(group, name): Support(41, 17)})
    assert [table.header[0] for table in tables] == list(METRIC_TITLES.values())
    for table, metric in zip(tables, METRIC_TITLES, strict=True):
        row = next(row for row in table.rows if row[0] == name)
        points = models[0].metrics[group, name, metric].points
        assert row[1].split(" in ") == ["41", "17"]
        assert row[2] == f"{points.mean():.3f} ± {points.std(ddof=1):.3f}"
        assert row[3] == interval(pairs[0].differences[group, name, metric])
        assert [other[1] for other in table.rows if other[0] != name] == ["-"] * (len(table.rows) - 1)
    assert detail_tables(models, pairs, "nothing", {}) == []


def test_runs_of_one_seed_are_in_one_row(models):
    first, second, third = (
        replace(model, seeds=seeds)
        for model, seeds in zip([*models, models[0]], [(0, 1, 2), (1, 2, 7), (None, 1, 9)], strict=True)
    )
    (one, two), (other_one, other_two) = (
        model.metrics[PRIMARY_METRIC].points[start : start + 2] for model, start in ((first, 1), (second, 0))
    )
    third_one = third.metrics[PRIMARY_METRIC].points[1]
    assert seed_table([first, second, third]).rows == [
        [
            "seed 1",
            f"{one:.3f}",
            f"{other_one:.3f} ({other_one - one:+.3f})",
            f"{third_one:.3f} ({third_one - one:+.3f})",
        ],
        ["seed 2", f"{two:.3f}", f"{other_two:.3f} ({other_two - two:+.3f})", "-"],
    ]
    assert seed_table([first, third]) is None, "one shared seed is not enough"
    assert seed_table(models) is None, "seeds are unknown"


def test_costs_have_a_column_if_any_model_has_them_and_their_relative_difference(models):
    costs = [COST, {**COST, "gflops": 1.8, "training_seconds": 12.0}]
    table = cost_table(models, costs)
    keys = ["parameters", "gflops", "sampling_gflops", "training_seconds", "inference_ms", "inference_ms_p95"]
    assert list(table.header[1:]) == [COST_COLUMNS[key][0] for key in keys]
    assert table.rows == [
        ["plain", "1,000", "1.5", "0", "-", "3.0", "4.0"],
        ["sharp", "1,000", "1.8", "0", "12", "3.0", "4.0"],
        ["sharp - plain", "+0.0%", "+20.0%", "-", "-", "+0.0%", "+0.0%"],
    ]
