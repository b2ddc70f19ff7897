import dataclasses
import itertools
import math
from statistics import NormalDist

import numpy as np
import pytest

from utils.metrics.paired_difference import Difference, Scores, paired_difference
from utils.metrics.significance import (
    BETTER,
    INCONCLUSIVE,
    WORSE,
    Verdict,
    decide_all,
    detectable_difference,
    holm,
    images_needed,
    seeds_needed,
    sentence,
)


def difference(value=0.02, *, seed_variance=0.0004, image_variance=0.00005, seeds=3):
    """A difference of two models with equal seed variance; the variances are those of the difference."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(4000)
    noise = (noise - noise.mean()) / noise.std(ddof=1) * math.sqrt(image_variance)
    points = np.linspace(-1, 1, seeds)
    points *= math.sqrt(seed_variance / 2) / np.std(points, ddof=1) if seeds > 1 else 0
    model = Scores(points=points + value, resampled=np.tile(noise, (seeds, 1)))
    baseline = Scores(points=points, resampled=np.zeros((seeds, 4000)))
    result = paired_difference(model, baseline, num_images=10_000)
    assert result.value == pytest.approx(value)
    return result


def text_of(verdict: Verdict, of: Difference, *, fixed_weights: bool = False) -> str:
    return sentence(verdict, of, model="new", baseline="old", metric="mAP50-95", fixed_weights=fixed_weights)


def test_holm_agrees_with_its_definition():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.6]) == [1.0, 1.0] and holm([]) == [] and holm([0.02]) == [0.02]


def test_holm_bounds_the_family_wise_error_rate():
    rng = np.random.default_rng(0)
    errors = sum(min(holm(rng.random(6).tolist())) < 0.05 for _ in range(4000))
    assert 0.035 < errors / 4000 < 0.065


def test_large_differences_are_decided_and_small_ones_are_inconclusive():
    verdicts = decide_all([difference(0.2), difference(-0.2), difference(0.001)])
    assert [verdict.decision for verdict in verdicts] == [BETTER, WORSE, INCONCLUSIVE]


def test_a_significant_difference_may_be_inconclusive_among_several():
    single = next(d for d in (difference(v / 1000) for v in range(1, 200)) if d.p_value < 0.03)
    assert decide_all([single])[0].decision == BETTER
    assert decide_all([single, *[difference(0.0)] * 5])[0].decision == INCONCLUSIVE


def test_one_seed_decides_on_weights_but_not_on_training_configurations():
    large = difference(0.2, seeds=1)
    assert not large.covers_seeds
    (configuration,), (weights,) = decide_all([large]), decide_all([large], fixed_weights=True)
    assert configuration == Verdict(decision=INCONCLUSIVE, p_value=large.p_value) and weights.decision == BETTER
    assert "--seeds 0 1 2" in text_of(configuration, large) and BETTER in text_of(weights, large)


def test_a_borrowed_seed_variance_decides_nothing():
    several = difference(0.2)
    rng = np.random.default_rng(0)
    baseline = Scores(points=np.array([0.500, 0.501, 0.499]), resampled=np.zeros((3, 50)))
    single = Scores(points=np.array([0.9]), resampled=1e-3 * rng.normal(size=(1, 50)))
    borrowed = paired_difference(single, baseline, num_images=100, variance_donors=[baseline, single])
    assert borrowed.p_value < 0.01 and borrowed.covers_seeds
    for fixed_weights in (False, True):
        first, second = decide_all([borrowed, several], fixed_weights=fixed_weights)
        assert (first.decision, first.extra_seeds, second.decision) == (INCONCLUSIVE, None, BETTER)
    assert text_of(first, borrowed).count("new") == 2, "the model with one run is named"


def test_seeds_needed_includes_the_test_on_images_alone():
    """Three seeds that agree: more seeds would pass the first test at once, but not the second."""
    noise = 0.05 * np.random.default_rng(3).normal(size=(2, 3, 4000))
    ours = Scores(points=np.array([0.514, 0.515, 0.516]), resampled=noise[0])
    theirs = Scores(points=np.array([0.499, 0.500, 0.501]), resampled=noise[1])
    agreeing = paired_difference(ours, theirs, num_images=100)
    verdict = decide_all([agreeing])[0]
    assert verdict.decision == INCONCLUSIVE and (verdict.extra_seeds is None or verdict.extra_seeds > 50)
    # Over images a run has the standard deviation 0.05, the difference of two models 0.07 / sqrt(S).
    larger = dataclasses.replace(agreeing, value=0.06)
    assert 3 + seeds_needed(larger) == pytest.approx(2 * ((2.08 + 0.84) * 0.05 / 0.06) ** 2, rel=0.2)


def test_seeds_needed_counts_from_the_runs_of_each_model():
    even = difference(0.03, seed_variance=0.0016, image_variance=0.00001)
    uneven = dataclasses.replace(even, num_runs=(10, 3))
    assert 0 < seeds_needed(uneven) < seeds_needed(even)


@pytest.mark.slow
def test_seeds_needed_gives_80_percent_power():
    present = difference(0.03, seed_variance=0.0016, image_variance=0.00001)
    extra = seeds_needed(present)
    assert extra is not None and 5 < 3 + extra < 40
    rng = np.random.default_rng(1)
    decided, trials, seeds = 0, 400, 3 + extra
    for _ in range(trials):
        noise = np.tile(rng.normal(0, math.sqrt(0.00001), 50), (seeds, 1))
        shift = rng.normal(0, math.sqrt(0.00001))
        ours = Scores(points=0.03 + shift + rng.normal(0, math.sqrt(0.0008), seeds), resampled=noise)
        theirs = Scores(points=rng.normal(0, math.sqrt(0.0008), seeds), resampled=np.zeros((seeds, 50)))
        decided += decide_all([paired_difference(ours, theirs, num_images=500)])[0].decision == BETTER
    assert 0.7 < decided / trials < 0.92


@pytest.mark.parametrize("comparisons", [1, 4])
def test_a_detectable_difference_is_found_in_80_percent_of_experiments(comparisons):
    """Simulated comparisons of five seeds each, with a true difference of that size."""
    rng = np.random.default_rng(2)
    seeds, seed_sd, image_sd = 5, 0.012, 0.006

    def experiment(value):
        images = rng.normal(0, image_sd, 60)
        shift = rng.normal(0, image_sd)
        ours = Scores(points=value + shift + rng.normal(0, seed_sd, seeds), resampled=np.tile(images, (seeds, 1)))
        theirs = Scores(points=rng.normal(0, seed_sd, seeds), resampled=np.zeros((seeds, 60)))
        return paired_difference(ours, theirs, num_images=300)

    values = [detectable_difference(experiment(0.0), comparisons=comparisons) for _ in range(60)]
    size = float(np.median(values))
    level = 0.04 / comparisons
    assert 0.7 < np.mean([experiment(size).p_value < level for _ in range(300)]) < 0.92
    wide = detectable_difference(experiment(0.0), comparisons=comparisons, extra_seeds=45)
    assert wide < size


def test_an_inconclusive_verdict_says_what_would_have_been_found():
    unclear = difference(0.005, seed_variance=0.001)
    (verdict,) = decide_all([unclear])
    assert verdict.detectable == detectable_difference(unclear) and f" {verdict.detectable:.3f} " in text_of(
        verdict, unclear
    )
    (decided,) = decide_all([difference(0.2)])
    assert decided.decision == BETTER and decided.detectable is None


@pytest.mark.parametrize("comparisons", [1, 5, 20])
@pytest.mark.parametrize("image_variance", [3.4e-5, 6e-5, 4e-4])
def test_too_few_images_give_the_factor_that_would_suffice(comparisons, image_variance):
    few = difference(0.01 if image_variance > 1e-4 else 0.02, image_variance=image_variance)
    verdict = decide_all([few] * comparisons)[0]
    if verdict.images_factor is None:
        assert (comparisons, image_variance) == (1, 3.4e-5) and verdict.extra_seeds == seeds_needed(few) > 5
        return
    assert f" {verdict.extra_seeds} " in text_of(verdict, few)
    # By hand, with many degrees of freedom: 4 % among the comparisons, and 80 % power.
    quantile = NormalDist().inv_cdf(1 - 0.02 / comparisons) + NormalDist().inv_cdf(0.8)
    variance = image_variance / verdict.images_factor + sum(few.seed_variances) / (3 + verdict.extra_seeds)
    assert variance == pytest.approx((few.value / quantile) ** 2, rel=0.1)
    assert seeds_needed(few, comparisons=comparisons) is None, "seeds alone do not suffice"


def test_on_as_many_images_as_advised_seeds_suffice():
    few = difference(0.02, seed_variance=1e-4, image_variance=6e-5)
    factor, extra = images_needed(few, comparisons=5)
    advised = difference(0.02, seed_variance=1e-4, image_variance=6e-5 / factor)
    fewer = difference(0.02, seed_variance=1e-4, image_variance=6e-5 / factor * 1.2)
    assert seeds_needed(advised, comparisons=5) <= extra and seeds_needed(fewer, comparisons=5) is None


def test_a_seed_variance_too_large_for_any_advice():
    noisy = difference(0.001, seed_variance=0.01, image_variance=1e-9)
    verdict = decide_all([noisy])[0]
    assert (verdict.decision, verdict.extra_seeds, verdict.images_factor) == (INCONCLUSIVE, None, None)
    assert " 100 " in text_of(verdict, noisy)


def test_weights_that_do_not_differ_significantly_need_images_and_not_seeds():
    close = difference(0.01, seeds=1, image_variance=1e-4)
    (verdict,) = decide_all([close], fixed_weights=True)
    assert verdict.images_factor == pytest.approx(((2.054 + 0.842) * 0.01 / 0.01) ** 2, rel=0.01)
    text = text_of(verdict, close, fixed_weights=True)
    assert "8.4 times" in text and "--seeds" not in text


@pytest.mark.parametrize("fixed_weights", [False, True])
@pytest.mark.parametrize("seeds", [1, 3])
def test_a_verdict_needs_ten_images(fixed_weights, seeds):
    rng = np.random.default_rng(0)
    points = 1e-3 * rng.normal(size=(2, seeds))
    ours, theirs = (
        Scores(points=0.3 + points[0], resampled=np.full((seeds, 9), 0.3)),
        Scores(points=points[1], resampled=np.zeros((seeds, 9))),
    )
    for num_images in (1, 2, 9):
        few = paired_difference(ours, theirs, num_images=num_images)
        assert math.isnan(few.low) == (num_images == 1 or seeds == 1), "never an interval of width 0"
        (verdict,) = decide_all([few], fixed_weights=fixed_weights)
        text = text_of(verdict, few, fixed_weights=fixed_weights)
        assert verdict.decision == INCONCLUSIVE and f" {num_images}." in text and "nan" not in text


def test_larger_differences_need_fewer_seeds():
    needed = [seeds_needed(difference(value, seed_variance=0.002)) for value in (0.03, 0.04, 0.06)]
    assert all(a > b for a, b in itertools.pairwise(needed))


def test_sentences_contain_models_decision_and_interval():
    worse = difference(-0.2)
    text = text_of(decide_all([worse])[0], worse)
    numbers = f"mAP50-95 -0.200, 95 % interval {worse.low:+.3f} to {worse.high:+.3f}"
    assert text.startswith("new ") and " old" in text and numbers in text
    unclear = difference(0.03, seed_variance=0.001)
    (verdict,) = decide_all([unclear])
    assert INCONCLUSIVE in text_of(verdict, unclear) and f" {verdict.extra_seeds} " in text_of(verdict, unclear)


def test_equal_values_are_inconclusive_without_advice():
    zeros = Scores(points=np.zeros(3), resampled=np.zeros((3, 9)))
    equal = paired_difference(zeros, zeros, num_images=9)
    assert equal.p_value == 1
    (verdict,) = decide_all([equal])
    assert verdict == Verdict(decision=INCONCLUSIVE, p_value=1)
    assert "images" not in text_of(verdict, equal) and "nan" not in text_of(verdict, equal)
