"""The error analysis of a comparison: its numbers are those of the runs, and its differences are paired."""

from dataclasses import replace

import numpy as np
import pytest

from tests.helpers.random_runs import COUNT, random_run, random_scores
from utils.comparison.error_analysis import KEYS, MAX_RATIO, error_metrics, error_sections
from utils.comparison.statistics import collect_scores, compare_with_baseline
from utils.metrics.bootstrap import draw_resamples
from utils.metrics.coco_resampling import as_exported
from utils.metrics.tide import error_scores

LOCALIZATION = ("error", "localization", "dap50")


@pytest.fixture(scope="module")
def scores():
    return [random_scores("blurred", [1, 2, 3], noise=25), random_scores("sharp", [4, 5, 6], noise=2)]


def test_the_first_value_is_that_of_the_set_itself():
    evaluated = random_run(1, noise=25)
    metrics = error_metrics(evaluated, draw_resamples(COUNT, 7, seed=0))
    expected = error_scores(as_exported(evaluated))
    assert len(metrics) == len(expected) and {values.shape for values in metrics.values()} == {(8,)}
    for (group, name, _), values in metrics.items():
        assert group == "error" and values[0] == pytest.approx(expected[name][0])
    assert metrics[LOCALIZATION][0] > 0 and metrics[LOCALIZATION].std() > 0


def test_resampled_values_are_spread_at_least_as_far_as_the_bootstrap_has_them():
    evaluated, weights = random_run(1, noise=25), draw_resamples(COUNT, 300, seed=0)
    ratios = []
    for calibrated, plain in zip(
        error_metrics(evaluated, weights).values(), error_scores(as_exported(evaluated), weights).values(), strict=True
    ):
        assert calibrated[1:].mean() == pytest.approx(plain.mean())
        ratios.append(calibrated[1:].std() / plain.std() if plain.std() else 1.0)
        assert calibrated[1:] - calibrated[1:].mean() == pytest.approx(ratios[-1] * (plain - plain.mean()), abs=1e-12)
    assert all(1 - 1e-9 <= ratio <= MAX_RATIO for ratio in ratios) and max(ratios) > 1.01


def test_a_single_image_has_no_spread():
    weights = np.ones((5, 1), np.int32)
    evaluated = random_run(1, noise=25).select(slice(0, 1), slice(0, 1))
    metrics = error_metrics(replace(evaluated, num_images=1), weights)
    assert all(np.ptp(values) == 0 for values in metrics.values())


def test_a_difference_is_that_of_the_means_and_its_interval_excludes_what_is_clear(scores):
    (pair,) = compare_with_baseline(scores, images=COUNT)
    for key in KEYS:
        of = [model.metrics[key].points.mean() for model in scores]
        assert pair.differences[key].value == pytest.approx(of[1] - of[0])
    assert pair.differences[LOCALIZATION].high < 0 < pair.differences["error", "AP", "ap50"].low


def test_a_model_does_not_differ_from_itself():
    weights = draw_resamples(COUNT, 50, seed=0)
    runs = [error_metrics(random_run(seed), weights) for seed in (1, 2)]
    models = [collect_scores(label, runs, seeds=[1, 2], fixed_weights=False) for label in "ab"]
    models = [type(m)(**{**vars(m), "metrics": {**m.metrics, **_overall(runs)}}) for m in models]
    (pair,) = compare_with_baseline(models, images=COUNT)
    assert all(pair.differences[key].value == 0 and pair.differences[key].low <= 0 for key in KEYS)
    assert all(pair.differences[key].image_variance == pytest.approx(0, abs=1e-12) for key in KEYS)


def _overall(runs):
    """Stand-ins for the metrics with a verdict."""
    ap = collect_scores("", runs, seeds=[1, 2], fixed_weights=False).metrics["error", "AP", "ap50"]
    return {("all", "", metric): ap for metric in ("map50", "map50_95")}


def test_the_tables_have_a_row_for_each_error_and_a_column_for_each_model(scores):
    pairs = compare_with_baseline(scores, images=COUNT)
    (section,) = error_sections(scores, pairs)
    _, of_models, _, of_pairs = section.blocks
    assert of_models.header[1:] == ["blurred", "sharp"] and of_pairs.header[1:] == ["sharp - blurred"]
    for table in (of_models, of_pairs):
        assert [row[0] for row in table.rows] == list(KEYS.values())
    row = list(KEYS).index(LOCALIZATION)
    points = scores[0].metrics[LOCALIZATION].points
    assert of_models.rows[row][1] == f"{points.mean():.3f} ± {np.std(points, ddof=1):.3f}"
    assert f"{pairs[0].differences[LOCALIZATION].value:+.3f}" in of_pairs.rows[row][1]
    assert len(error_sections(scores[:1], [])[0].blocks) == 2
