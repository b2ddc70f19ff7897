"""The interval against normal models whose truth is known, and its parts one by one."""

import math

import numpy as np
import pytest

from utils.metrics.paired_difference import Scores, paired_difference
from utils.metrics.student_t import t_ppf


def scores(points, resampled):
    return Scores(points=np.asarray(points, float), resampled=np.asarray(resampled, float))


def test_without_luck_of_images_it_is_welchs_t():
    model, baseline = scores([0.5, 0.54, 0.52], np.zeros((3, 9))), scores([0.4, 0.41], np.zeros((2, 9)))
    difference = paired_difference(model, baseline, images=50)
    one, two = np.var([0.5, 0.54, 0.52], ddof=1) / 3, np.var([0.4, 0.41], ddof=1) / 2
    degrees = (one + two) ** 2 / (one**2 / 2 + two**2 / 1)
    assert difference.value == pytest.approx(0.115) and difference.degrees == pytest.approx(degrees)
    assert difference.standard_error == pytest.approx(math.sqrt(one + two))
    reach = t_ppf(0.95, degrees) * math.sqrt(one + two)
    assert (difference.low, difference.high) == pytest.approx((0.115 - reach, 0.115 + reach))
    assert difference.knows_seeds and difference.image_variance == 0 and difference.p_value < 0.05


def test_images_that_move_all_runs_alike_cancel():
    common = np.random.default_rng(0).normal(0, 0.1, 400)
    ours, theirs = np.tile(common, (3, 1)), np.tile(common, (3, 1))
    difference = paired_difference(scores([0.5] * 3, ours), scores([0.4] * 3, theirs), images=100)
    assert difference.image_variance == pytest.approx(0, abs=1e-30)


def test_what_a_model_has_by_itself_is_the_images_share_and_the_seeds_interplay_is_not_counted_twice():
    rng = np.random.default_rng(1)
    resamples, seeds = 40_000, 4
    own, other = 0.02 * rng.normal(size=resamples), 0.01 * rng.normal(size=resamples)
    interplay = 0.05 * rng.normal(size=(2, seeds, resamples))
    model, baseline = scores(np.zeros(seeds), own + interplay[0]), scores(np.zeros(seeds), other + interplay[1])
    difference = paired_difference(model, baseline, images=1_000_000)
    assert difference.image_variance == pytest.approx(0.02**2 + 0.01**2, rel=0.15)


def test_one_run_each_covers_images_only():
    rng = np.random.default_rng(2)
    model, baseline = scores([0.5], 0.03 * rng.normal(size=(1, 5000))), scores([0.4], np.zeros((1, 5000)))
    difference = paired_difference(model, baseline, images=41)
    assert not difference.knows_seeds and all(map(math.isnan, difference.seed_variances))
    assert difference.standard_error == pytest.approx(0.03 * math.sqrt(41 / 40), rel=0.03)
    assert difference.degrees == pytest.approx(40)


def test_a_model_trained_once_borrows_the_others_spread():
    once, two, three = ([0.7], [0.5, 0.6], [0.1, 0.2, 0.3])
    once, two, three = (scores(points, np.zeros((len(points), 9))) for points in (once, two, three))
    pooled = (0.005 + 2 * 0.01) / 3
    difference = paired_difference(once, two, images=30, variance_donors=[two, once, three])
    assert difference.knows_seeds and difference.has_seed_variance
    assert difference.seed_variances == pytest.approx((pooled, 0.005))
    assert difference.standard_error**2 == pytest.approx(pooled + 0.005 / 2)
    # The baseline's spread serves twice, so its two terms are one guess with one degree of freedom.
    of_two, of_three = 0.005 / 3 + 0.005 / 2, 2 * 0.01 / 3
    assert difference.degrees == pytest.approx((of_two + of_three) ** 2 / (of_two**2 / 1 + of_three**2 / 2))
    assert not paired_difference(once, once, images=30, variance_donors=[once]).knows_seeds


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [(3, 1), (2, 1)])
def test_a_borrowed_spread_is_no_second_opinion(seeds):
    """Alone and lent, one variance is still one guess, of few degrees of freedom."""
    rng = np.random.default_rng(8)
    trials, held = 2000, 0
    for _ in range(trials):
        models = [scores(rng.normal(0, 1, count), np.zeros((count, 2))) for count in seeds]
        difference = paired_difference(models[1], models[0], images=200, variance_donors=models)
        held += difference.low <= 0 <= difference.high
    assert held / trials == pytest.approx(0.95, abs=0.015)


def test_resamples_where_a_figure_is_undefined_are_left_out():
    resampled = np.array([[np.nan, 0.1, 0.2, 0.3]])
    whole = paired_difference(scores([0.2], resampled), scores([0.0], np.zeros((1, 4))), images=10)
    part = paired_difference(scores([0.2], resampled[:, 1:]), scores([0.0], np.zeros((1, 3))), images=10)
    assert whole == part or whole.image_variance == part.image_variance
    nothing = paired_difference(scores([0.2], resampled[:, :1]), scores([0.0], np.zeros((1, 1))), images=10)
    assert math.isnan(nothing.low) and nothing.p_value == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seeds", "luck", "images"),
    [(3, (1, 1), 0.0), (3, (1, 1), 1.0), (3, (1, 0.2), 0.5), (3, (1, 3), 0.3), (5, (1, 2), 1.0), (2, (1, 1), 1.0)],
)
def test_on_normal_data_the_interval_holds_the_truth_as_often_as_it_says(seeds, luck, images):
    rng = np.random.default_rng(7)
    trials, resamples, held = 1000, 60, 0
    for _ in range(trials):
        shift = rng.normal(0, images, 2)
        models = []
        for own, spread in zip(shift, luck, strict=True):
            noise = np.tile(rng.normal(0, images, resamples), (seeds, 1))
            models.append(scores(own + rng.normal(0, spread, seeds), noise))
        difference = paired_difference(models[0], models[1], images=200)
        held += difference.low <= 0 <= difference.high
    assert 0.93 - 0.02 < held / trials < 0.97 + 0.015  # three standard deviations of luck


def test_seeds_that_agree_by_luck_do_not_make_a_difference_sure():
    noise = 0.05 * np.random.default_rng(3).normal(size=(2, 3, 4000))
    lucky = [scores([0.51, 0.51, 0.51], noise[0]), scores([0.5, 0.5, 0.5], noise[1])]
    difference = paired_difference(*lucky, images=100)
    assert difference.p_value > 0.5, "these runs on other images differ by 0.04 for nothing"
