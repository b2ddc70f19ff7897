"""The interval on normal data whose true difference is known, and its parts one by one."""

import math

import numpy as np
import pytest

from utils.metrics.paired_difference import Scores, contrast, paired_difference
from utils.metrics.student_t import two_sided_quantile


def scores(points, resampled):
    return Scores(points=np.asarray(points, float), resampled=np.asarray(resampled, float))


def test_without_image_variance_it_is_welchs_t_interval():
    model, baseline = scores([0.5, 0.54, 0.52], np.zeros((3, 9))), scores([0.4, 0.41], np.zeros((2, 9)))
    difference = paired_difference(model, baseline, num_images=50)
    first, second = np.var([0.5, 0.54, 0.52], ddof=1) / 3, np.var([0.4, 0.41], ddof=1) / 2
    degrees = (first + second) ** 2 / (first**2 / 2 + second**2 / 1)
    assert difference.value == pytest.approx(0.115) and difference.degrees_of_freedom == pytest.approx(degrees)
    assert difference.standard_error == pytest.approx(math.sqrt(first + second))
    half_width = two_sided_quantile(0.95, degrees) * math.sqrt(first + second)
    assert (difference.low, difference.high) == pytest.approx((0.115 - half_width, 0.115 + half_width))
    assert difference.covers_seeds and difference.image_variance == 0 and difference.p_value < 0.05


def test_image_variance_common_to_both_models_cancels():
    common = np.random.default_rng(0).normal(0, 0.1, 400)
    model, baseline = (scores([mean] * 3, np.tile(common, (3, 1))) for mean in (0.5, 0.4))
    difference = paired_difference(model, baseline, num_images=100)
    assert difference.image_variance == pytest.approx(0, abs=1e-30)


def test_image_variance_is_that_common_to_all_seeds_and_excludes_the_interaction():
    rng = np.random.default_rng(1)
    resamples, seeds = 40_000, 4
    first, second = 0.02 * rng.normal(size=resamples), 0.01 * rng.normal(size=resamples)
    interaction = 0.05 * rng.normal(size=(2, seeds, resamples))
    model, baseline = (
        scores(np.zeros(seeds), own + both) for own, both in zip((first, second), interaction, strict=True)
    )
    difference = paired_difference(model, baseline, num_images=1_000_000)
    assert difference.image_variance == pytest.approx(0.02**2 + 0.01**2, rel=0.15)
    assert difference.seed_by_image_variances == pytest.approx((0.05**2, 0.05**2), rel=0.05)


def test_one_run_of_each_model_covers_images_only():
    rng = np.random.default_rng(2)
    model, baseline = scores([0.5], 0.03 * rng.normal(size=(1, 5000))), scores([0.4], np.zeros((1, 5000)))
    difference = paired_difference(model, baseline, num_images=41)
    assert not difference.covers_seeds and all(map(math.isnan, difference.seed_variances))
    assert difference.standard_error == pytest.approx(0.03 * math.sqrt(41 / 40), rel=0.03)
    assert difference.degrees_of_freedom == pytest.approx(40)


def test_a_model_with_one_run_borrows_the_mean_seed_variance():
    single, two, three = (scores(points, np.zeros((len(points), 9))) for points in ([0.7], [0.5, 0.6], [0.1, 0.2, 0.3]))
    pooled = (0.005 + 2 * 0.01) / 3
    difference = paired_difference(single, two, num_images=30, variance_donors=[two, single, three])
    assert difference.covers_seeds and difference.borrows_seed_variance
    assert difference.seed_variances == pytest.approx((pooled, 0.005))
    assert difference.standard_error**2 == pytest.approx(pooled + 0.005 / 2)
    # The baseline's variance serves both models, so its two terms are one estimate with one degree of freedom.
    of_two, of_three = 0.005 / 3 + 0.005 / 2, 2 * 0.01 / 3
    degrees = (of_two + of_three) ** 2 / (of_two**2 / 1 + of_three**2 / 2)
    assert difference.degrees_of_freedom == pytest.approx(degrees)
    assert not paired_difference(single, single, num_images=30, variance_donors=[single]).covers_seeds


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [(3, 1), (2, 1)])
def test_a_variance_that_serves_both_models_counts_as_one_estimate(seeds):
    rng = np.random.default_rng(8)
    trials, covered = 2000, 0
    for _ in range(trials):
        models = [scores(rng.normal(0, 1, count), np.zeros((count, 2))) for count in seeds]
        difference = paired_difference(models[1], models[0], num_images=200, variance_donors=models)
        covered += difference.low <= 0 <= difference.high
    assert covered / trials == pytest.approx(0.95, abs=0.015)


def test_resamples_with_an_undefined_metric_are_excluded():
    resampled = np.array([[np.nan, 0.1, 0.2, 0.3]])
    whole = paired_difference(scores([0.2], resampled), scores([0.0], np.zeros((1, 4))), num_images=10)
    part = paired_difference(scores([0.2], resampled[:, 1:]), scores([0.0], np.zeros((1, 3))), num_images=10)
    assert whole.standard_error == part.standard_error > 0
    undefined = paired_difference(scores([0.2], resampled[:, :1]), scores([0.0], np.zeros((1, 1))), num_images=10)
    assert math.isnan(undefined.low) and undefined.p_value == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seeds", "seed_stds", "image_std"),
    [(3, (1, 1), 0.0), (3, (1, 1), 1.0), (3, (1, 0.2), 0.5), (3, (1, 3), 0.3), (5, (1, 2), 1.0), (2, (1, 1), 1.0)],
)
def test_interval_coverage_on_normal_data(seeds, seed_stds, image_std):
    rng = np.random.default_rng(7)
    trials, resamples, covered = 1000, 60, 0
    for _ in range(trials):
        shift = rng.normal(0, image_std, 2)
        models = []
        for own, seed_std in zip(shift, seed_stds, strict=True):
            noise = np.tile(rng.normal(0, image_std, resamples), (seeds, 1))
            models.append(scores(own + rng.normal(0, seed_std, seeds), noise))
        difference = paired_difference(models[0], models[1], num_images=200)
        covered += difference.low <= 0 <= difference.high
    assert 0.93 - 0.02 < covered / trials < 0.97 + 0.015  # three standard deviations


def test_seeds_that_agree_by_chance_do_not_lower_the_p_value():
    noise = 0.05 * np.random.default_rng(3).normal(size=(2, 3, 4000))
    models = [scores([0.51, 0.51, 0.51], noise[0]), scores([0.5, 0.5, 0.5], noise[1])]
    difference = paired_difference(*models, num_images=100)
    assert difference.p_value > 0.5, "on other images the same runs differ by 0.04"


def random_models(seed, *counts):
    rng = np.random.default_rng(seed)
    return [scores(rng.normal(0.5, 0.05, n), rng.normal(0.5, 0.03, (n, 60))) for n in counts]


@pytest.mark.parametrize("counts", [(3, 3), (3, 1), (1, 1), (2, 5)])
def test_a_difference_is_the_contrast_of_1_and_minus_1_to_the_bit(counts):
    models = random_models(1, *counts, 4)
    for donors in ((), models):
        first, second = models[:2]
        difference = paired_difference(first, second, num_images=40, variance_donors=donors)
        assert repr(contrast([first, second], [1, -1], num_images=40, variance_donors=donors)) == repr(difference)
        assert repr(contrast([first, second, models[2]], [1, -1, 0], num_images=40)).startswith(
            f"Difference(value={difference.value!r},"
        )


def test_a_contrast_adds_the_variances_of_its_models_by_their_squared_weights():
    models, weights = random_models(2, 3, 4, 3, 2), [0.5, -0.25, 0.75, -1.0]
    result = contrast(models, weights, num_images=100)
    assert result.value == pytest.approx(sum(w * m.points.mean() for w, m in zip(weights, models, strict=True)))
    variances = [w**2 * m.seed_variance for w, m in zip(weights, models, strict=True)]
    assert result.seed_variances == pytest.approx(variances)
    terms = [v / m.num_runs for v, m in zip(result.seed_variances, models, strict=True)]
    assert result.standard_error**2 == pytest.approx(sum(terms) + result.image_variance)
    spread = sum(t**2 / (m.num_runs - 1) for t, m in zip(terms, models, strict=True)) + result.image_variance**2 / 99
    assert result.degrees_of_freedom == pytest.approx(result.standard_error**4 / spread)
    doubled = contrast(models, [2 * w for w in weights], num_images=100)
    assert (doubled.low, doubled.high) == pytest.approx((2 * result.low, 2 * result.high))
    assert doubled.p_value == pytest.approx(result.p_value)


def test_variance_that_all_models_of_a_contrast_share_over_images_cancels():
    common = np.random.default_rng(0).normal(0, 0.1, 400)
    models = [scores([mean] * 3, np.tile(common, (3, 1))) for mean in (0.5, 0.4, 0.3)]
    assert contrast(models, [1.0, -0.5, -0.5], num_images=100).image_variance == pytest.approx(0, abs=1e-30)
    assert contrast(models, [1.0, 1.0, -1.0], num_images=100).image_variance > 0.001


@pytest.mark.slow
def test_an_interaction_of_four_models_on_normal_data_is_covered():
    rng = np.random.default_rng(9)
    trials, covered, spreads = 1500, 0, (0.03, 0.03, 0.03, 0.06)
    for _ in range(trials):
        images = rng.normal(0, 0.02, (4, 50))  # by model and image, around a common difficulty
        drawn = rng.multinomial(50, np.full(50, 1 / 50), 60) / 50
        models = []
        for own, spread in zip(images, spreads, strict=True):
            seeds = rng.normal(0, spread, 3)
            models.append(scores(seeds + own.mean(), seeds[:, None] + own @ drawn.T))
        result = contrast(models, [1, -1, -1, 1], num_images=50)
        covered += result.low <= 0 <= result.high
    assert covered / trials == pytest.approx(0.95, abs=0.02)
