"""Scores of models to differences, verdicts and warnings."""

import json
import math
import re
from dataclasses import replace

import pytest

from tests.helpers.random_runs import NAMES, random_scores
from utils.comparison.predictions import Support
from utils.comparison.statistics import (
    PRIMARY_METRIC,
    compare_with_baseline,
    comparison_json,
    score_warnings,
    scores_json,
    support_warnings,
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


def test_json_holds_scores_differences_and_null_for_what_is_not_finite(models):
    pairs = compare_with_baseline(models, images=24)
    content = json.loads(json.dumps([comparison_json(pairs[0]), scores_json(models[0])], allow_nan=False))
    primary = next(d for d in content[0]["differences"] if (d["group"], d["metric"]) == ("all", "map50_95"))
    assert primary["low"] < primary["value"] < primary["high"]
    assert primary["p_value_corrected"] >= primary["p_value"] and content[0]["verdict"] == BETTER
    assert len(content[1][0]["runs"]) == 3 and content[1][0]["std"] > 0
    single = [random_scores("a", [1], noise=9), random_scores("b", [2], noise=1)]
    (pair,) = compare_with_baseline(single, images=24)
    assert comparison_json(pair)["differences"][0]["seed_variance"] is None
    assert scores_json(single[0])[0]["std"] is None


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
