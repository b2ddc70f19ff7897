"""The joint difference of several data sets: its parts one by one, and the random-effects line by its definition."""

import math
from dataclasses import replace

import numpy as np
import pytest

from utils.metrics.joint_difference import joint_difference, random_effects
from utils.metrics.paired_difference import Difference, Scores, paired_difference
from utils.metrics.significance import BETTER, INCONCLUSIVE, WORSE, decide_all, sentence
from utils.metrics.student_t import two_sided_quantile


def scores(points, resampled):
    return Scores(points=np.asarray(points, float), resampled=np.asarray(resampled, float))


def difference_of(model, baseline, *, images=60, image_std=0.0, seed=0) -> Difference:
    """Runs with the given values, whose difference varies over images with the given standard deviation."""
    noise = np.random.default_rng(seed).normal(0, image_std, 2000)
    resampled = [np.tile(noise * sign, (len(points), 1)) for points, sign in ((model, 0.5), (baseline, -0.5))]
    return paired_difference(scores(model, resampled[0]), scores(baseline, resampled[1]), num_images=images)


ONE = difference_of([0.5, 0.54, 0.52], [0.4, 0.41])
OTHER = difference_of([0.3, 0.32], [0.31, 0.29, 0.36, 0.3])
GENERAL = difference_of([0.6, 0.63, 0.61], [0.5, 0.56, 0.54], images=40, image_std=0.02)


def test_it_is_the_unweighted_mean_and_its_variances_add_up():
    joint = joint_difference([ONE, OTHER, GENERAL])
    assert joint.value == pytest.approx((ONE.value + OTHER.value + GENERAL.value) / 3)
    squares = [d.standard_error**2 for d in (ONE, OTHER, GENERAL)]
    assert joint.standard_error == pytest.approx(math.sqrt(sum(squares)) / 3)
    assert (joint.num_images, joint.num_runs) == (40, (3, 2, 2, 4, 3, 3))
    assert joint.covers_seeds and not joint.borrows_seed_variance


def test_degrees_of_freedom_are_welchs_over_the_seeds_of_all_sets():
    joint = joint_difference([ONE, OTHER])
    runs = ([0.5, 0.54, 0.52], [0.4, 0.41], [0.3, 0.32], [0.31, 0.29, 0.36, 0.3])
    terms = [(np.var(r, ddof=1) / len(r), len(r) - 1) for r in runs]
    degrees = sum(v for v, _ in terms) ** 2 / sum(v**2 / d for v, d in terms)
    assert joint.degrees_of_freedom == pytest.approx(degrees)
    half_width = two_sided_quantile(0.95, degrees) * math.sqrt(sum(v for v, _ in terms)) / 2
    assert (joint.low, joint.high) == pytest.approx((joint.value - half_width, joint.value + half_width))


def test_the_images_of_each_set_count_with_their_number():
    noisy = difference_of([0.5] * 3, [0.4] * 3, images=21, image_std=0.05)
    calm = difference_of([0.5] * 3, [0.4] * 3, images=500, image_std=0.001)
    assert joint_difference([noisy, calm]).degrees_of_freedom == pytest.approx(20, rel=0.01)
    assert joint_difference([noisy, noisy]).degrees_of_freedom == pytest.approx(40)


def test_one_difference_twice_halves_its_variance():
    joint = joint_difference([GENERAL] * 2)
    assert joint.value == GENERAL.value and joint.standard_error == pytest.approx(GENERAL.standard_error / math.sqrt(2))
    assert joint.p_value < GENERAL.p_value


def test_seeds_that_agree_by_chance_do_not_beat_the_images():
    extreme = difference_of([0.5, 0.5, 0.5], [0.49, 0.49, 0.49], image_std=0.05)
    assert joint_difference([replace(extreme, components=((1e-12, 100.0),))] * 2).p_value > 0.5


def test_what_a_set_does_not_know_the_joint_interval_does_not_either():
    single = difference_of([0.5], [0.4], image_std=0.01)
    joint = joint_difference([single, GENERAL])
    assert not joint.covers_seeds and math.isfinite(joint.low)
    tiny = difference_of([0.5, 0.6], [0.4, 0.45], images=1)
    joint = joint_difference([tiny, GENERAL])
    assert math.isnan(joint.low) and joint.p_value == 1 and joint.random_effects is None


def test_the_variance_between_sets_meets_its_definition():
    rng = np.random.default_rng(3)
    values, variances = rng.normal(0, 1, 8), rng.uniform(0.01, 0.3, 8)
    found = random_effects(values, variances)
    weights = 1 / (variances + found.between_variance)
    mean = (weights * values).sum() / weights.sum()
    assert (weights * (values - mean) ** 2).sum() == pytest.approx(7) and found.value == pytest.approx(mean)
    half_width = two_sided_quantile(0.95, 7) / math.sqrt(weights.sum())
    assert (found.low, found.high) == pytest.approx((mean - half_width, mean + half_width))
    spread = ((values - (values / variances).sum() / (1 / variances).sum()) ** 2 / variances).sum()
    assert found.i_squared == pytest.approx(1 - 7 / spread)


def test_equal_variances_give_the_t_interval_of_the_values():
    values = np.array([0.1, 0.4, 0.9])
    found = random_effects(values, np.full(3, 1e-3))
    assert found.between_variance == pytest.approx(np.var(values, ddof=1) - 1e-3)
    half_width = two_sided_quantile(0.95, 2) * math.sqrt(np.var(values, ddof=1) / 3)
    assert (found.low, found.high) == pytest.approx((values.mean() - half_width, values.mean() + half_width))


def test_without_heterogeneity_the_interval_is_not_narrower_than_the_variances_allow():
    found = random_effects(np.full(3, 0.2), np.full(3, 0.03))
    assert (found.between_variance, found.i_squared) == (0, 0) and found.value == pytest.approx(0.2)
    assert found.high - 0.2 == pytest.approx(two_sided_quantile(0.95, 2) * 0.1)
    assert random_effects(np.array([1.0, 2.0]), np.array([0.1, 0.0])) is None


def test_verdicts_follow_the_rules_of_one_set():
    clear = joint_difference([ONE, GENERAL])
    unclear = joint_difference([OTHER, OTHER])
    assert [v.decision for v in decide_all([clear, unclear])] == [BETTER, INCONCLUSIVE]
    assert decide_all([replace(clear, value=-clear.value)])[0].decision == WORSE
    assert decide_all([clear, unclear])[0].p_value == pytest.approx(2 * clear.p_value), "Holm"
    for undecided in ({"num_runs": (3, 2, 1, 3)}, {"num_images": 9}, {"covers_seeds": False}):
        assert decide_all([replace(clear, **undecided)])[0].decision == INCONCLUSIVE
    of_weights = replace(clear, covers_seeds=False)
    assert decide_all([of_weights], fixed_weights=True)[0].decision == BETTER


def test_more_seeds_on_every_set_make_a_mean_significant():
    """Of normal data without image variance, with the same number of runs for all, the number follows from t alone."""
    few = joint_difference(
        [difference_of([0.5, 0.56, 0.53], [0.49, 0.54, 0.5]), difference_of([0.4, 0.45], [0.38, 0.42])]
    )
    (verdict,) = decide_all([few])
    assert verdict.decision == INCONCLUSIVE and verdict.images_factor is None

    def is_enough(extra):
        variances = [np.var(runs, ddof=1) for runs in ([0.5, 0.56, 0.53], [0.49, 0.54, 0.5], [0.4, 0.45], [0.38, 0.42])]
        counts = np.array([3, 3, 2, 2]) + extra
        terms = np.array(variances) / counts / 4
        degrees = terms.sum() ** 2 / (terms**2 / (counts - 1)).sum()
        return abs(few.value) >= (two_sided_quantile(0.96, degrees) + 0.8416) * math.sqrt(terms.sum())

    assert is_enough(verdict.extra_seeds) and not is_enough(verdict.extra_seeds - 1)


def test_sentences_name_sets_numbers_and_reasons():
    clear = joint_difference([ONE, GENERAL])

    def text(difference, *, fixed_weights=False):
        (verdict,) = decide_all([difference], fixed_weights=fixed_weights)
        names = {"model": "new", "baseline": "old", "metric": "mAP", "where": " over 2 data sets"}
        return sentence(verdict, difference, **names, fixed_weights=fixed_weights)

    assert "new is better than old over 2 data sets" in text(clear) and f"{clear.low:+.3f}" in text(clear)
    assert "these weights" in text(replace(clear, covers_seeds=False), fixed_weights=True)
    reasons = {
        text(replace(clear, p_value=0.9, **changes))
        for changes in (
            {},
            {"low": -0.2},
            {"value": 0.0, "standard_error": 0.0},
            {"num_images": 4},
            {"covers_seeds": False},
            {"num_runs": (3, 2, 1, 3)},
            {"low": math.nan, "high": math.nan},
        )
    }
    assert len(reasons) == 7 and all("inconclusive" in reason for reason in reasons)
    single = text(replace(clear, num_runs=(3, 1, 3, 1)))
    assert "that old, trained once" in single


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sets", "seeds"), [(2, 2), *(pytest.param(sets, 3, marks=pytest.mark.long) for sets in (3, 5))]
)
def test_interval_coverage_and_error_rate_on_normal_data(sets, seeds):
    """True differences vary between sets by far more than their intervals, with mean 0; so do the variances."""
    rng = np.random.default_rng(11)
    trials, covered, decided = 600, 0, 0
    truths = 5.0 * (np.arange(sets) - (sets - 1) / 2)
    for _ in range(trials):
        differences = []
        for k, truth in enumerate(truths):
            models = []
            for shift, seed_std in ((truth, 1.0), (0.0, 0.5 + k % 2)):
                own, noise = rng.normal(0, 0.7), np.tile(rng.normal(0, 0.7, 60), (seeds, 1))
                models.append(scores(shift + own + rng.normal(0, seed_std, seeds), noise))
            differences.append(paired_difference(*models, num_images=200))
        joint = joint_difference(differences)
        covered += joint.low <= 0 <= joint.high
        decided += decide_all([joint])[0].decision != INCONCLUSIVE
    assert 0.93 - 0.025 < covered / trials < 0.97 + 0.02 and decided / trials < 0.05 + 0.025  # three standard errors
