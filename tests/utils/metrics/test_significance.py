import dataclasses
import itertools
import math
from statistics import NormalDist

import numpy as np
import pytest

from utils.metrics.paired_difference import Difference, Scores, paired_difference
from utils.metrics.significance import BETTER, UNKNOWN, WORSE, decide_all, holm, images_needed, seeds_needed, sentence


def difference(value=0.02, *, seed=0.0004, image=0.00005, seeds=3, knows=True):
    """A difference as two models with equal luck have it."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(4000)
    noise = (noise - noise.mean()) / noise.std(ddof=1) * math.sqrt(image)
    points = np.linspace(-1, 1, seeds)
    points *= math.sqrt(seed / 2) / np.std(points, ddof=1) if seeds > 1 else 0
    model = Scores(points=points + value, resampled=np.tile(noise, (seeds, 1)))
    baseline = Scores(points=points, resampled=np.zeros((seeds, 4000)))
    result = paired_difference(model, baseline, images=10_000)
    assert result.value == pytest.approx(value)
    return result if knows else dataclasses.replace(result, knows_seeds=False, seed_variances=(math.nan, math.nan))


def test_holm_agrees_with_its_definition():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.6]) == [1.0, 1.0] and holm([]) == [] and holm([0.02]) == [0.02]


def test_holm_keeps_the_chance_of_one_false_claim():
    rng = np.random.default_rng(0)
    false = sum(min(holm(rng.random(6).tolist())) < 0.05 for _ in range(4000))
    assert 0.035 < false / 4000 < 0.065


def test_clear_differences_get_a_word_and_small_ones_do_not():
    words = [verdict.word for verdict in decide_all([difference(0.2), difference(-0.2), difference(0.001)])]
    assert words == [BETTER, WORSE, UNKNOWN]


def test_a_difference_that_stands_alone_may_fall_among_many():
    one = next(d for d in (difference(v / 1000) for v in range(1, 200)) if d.p_value < 0.03)
    assert decide_all([one])[0].word == BETTER
    assert decide_all([one, *[difference(0.0)] * 5])[0].word == UNKNOWN


def test_one_seed_tells_nothing_of_recipes_but_something_of_weights():
    clear = difference(0.2, seeds=1)
    assert not clear.knows_seeds
    (recipe,), (weights,) = decide_all([clear]), decide_all([clear], finished=True)
    assert (recipe.word, recipe.more_seeds, weights.word) == (UNKNOWN, None, BETTER)
    assert "--seeds 0 1 2" in sentence(recipe, clear, model="b", baseline="a", figure="mAP50-95")
    assert "as far as these weights go" in sentence(weights, clear, model="b", baseline="a", figure="mAP50-95")


def test_a_model_trained_once_gets_no_word_from_the_luck_of_another():
    several = difference(0.2)
    rng = np.random.default_rng(0)
    baseline = Scores(points=np.array([0.500, 0.501, 0.499]), resampled=np.zeros((3, 50)))
    once = Scores(points=np.array([0.9]), resampled=1e-3 * rng.normal(size=(1, 50)))
    lent = paired_difference(once, baseline, images=100, variance_donors=[baseline, once])
    assert lent.p_value < 0.01 and lent.knows_seeds
    for finished in (False, True):
        first, second = decide_all([lent, several], finished=finished)
        assert (first.word, first.more_seeds, second.word) == (UNKNOWN, None, BETTER)
    text = sentence(first, lent, model="new", baseline="old", figure="mAP50-95")
    assert "new, trained once, has the luck" in text and "three runs at least" in text


def test_seeds_needed_asks_the_images_too():
    """Three seeds that agree: more of them would settle the interval at once, but not the runs' luck with images."""
    noise = 0.05 * np.random.default_rng(3).normal(size=(2, 3, 4000))
    ours = Scores(points=np.array([0.514, 0.515, 0.516]), resampled=noise[0])
    theirs = Scores(points=np.array([0.499, 0.500, 0.501]), resampled=noise[1])
    agreed = paired_difference(ours, theirs, images=100)
    verdict = decide_all([agreed])[0]
    assert verdict.word == UNKNOWN and (verdict.more_seeds is None or verdict.more_seeds > 50)
    # A run's luck with the images has the deviation 0.05, both models' 0.07 / sqrt(S), which shows 2.9 times over.
    larger = dataclasses.replace(agreed, value=0.06)
    assert 3 + seeds_needed(larger) == pytest.approx(2 * ((2.08 + 0.84) * 0.05 / 0.06) ** 2, rel=0.2)


def test_seeds_needed_counts_from_what_each_model_has():
    base = difference(0.03, seed=0.0016, image=0.00001)
    uneven = dataclasses.replace(base, seeds=(10, 3))
    assert 0 < seeds_needed(uneven) < seeds_needed(base)


@pytest.mark.slow
def test_seeds_needed_would_tell_four_times_in_five():
    present = difference(0.03, seed=0.0016, image=0.00001)
    more = seeds_needed(present)
    assert more is not None and 5 < 3 + more < 40
    rng = np.random.default_rng(1)
    told, trials, seeds = 0, 400, 3 + more
    for _ in range(trials):
        noise = np.tile(rng.normal(0, math.sqrt(0.00001), 50), (seeds, 1))
        shift = rng.normal(0, math.sqrt(0.00001))
        ours = Scores(points=0.03 + shift + rng.normal(0, math.sqrt(0.0008), seeds), resampled=noise)
        theirs = Scores(points=rng.normal(0, math.sqrt(0.0008), seeds), resampled=np.zeros((seeds, 50)))
        told += decide_all([paired_difference(ours, theirs, images=500)])[0].word == BETTER
    assert 0.7 < told / trials < 0.92


@pytest.mark.parametrize("comparisons", [1, 5, 20])
@pytest.mark.parametrize("image", [3.4e-5, 6e-5, 4e-4])
def test_when_images_are_too_few_it_says_how_many_more_would_do(comparisons, image):
    few = difference(0.01 if image > 1e-4 else 0.02, image=image)
    verdict = decide_all([few] * comparisons)[0]
    text = sentence(verdict, few, model="b", baseline="a", figure="mAP50-95")
    if verdict.times_images is None:
        assert (comparisons, image) == (1, 3.4e-5) and verdict.more_seeds == seeds_needed(few) > 5
        return
    assert "times as many" in text and f"{verdict.more_seeds} more seeds of each" in text
    # By hand, the degrees of freedom being plenty: 4 % among the comparisons, and four chances in five.
    reach = NormalDist().inv_cdf(1 - 0.02 / comparisons) + NormalDist().inv_cdf(0.8)
    variance = image / verdict.times_images + sum(few.seed_variances) / (3 + verdict.more_seeds)
    assert variance == pytest.approx((few.value / reach) ** 2, rel=0.1)
    assert seeds_needed(few, comparisons=comparisons) is None, "seeds alone do not"


def test_who_follows_the_advice_gets_an_answer():
    few = difference(0.02, seed=1e-4, image=6e-5)
    times, more = images_needed(few, comparisons=5)
    advised = difference(0.02, seed=1e-4, image=6e-5 / times)
    assert seeds_needed(advised, comparisons=5) <= more
    assert seeds_needed(difference(0.02, seed=1e-4, image=6e-5 / times * 1.2), comparisons=5) is None


def test_too_much_luck_for_any_number_is_said_too():
    wild = difference(0.001, seed=0.01, image=1e-9)
    verdict = decide_all([wild])[0]
    assert (verdict.word, verdict.more_seeds, verdict.times_images) == (UNKNOWN, None, None)
    assert "More than 100 more seeds" in sentence(verdict, wild, model="b", baseline="a", figure="mAP50-95")


def test_two_files_that_cannot_be_told_apart_lack_images_not_seeds():
    alike = difference(0.01, seeds=1, image=1e-4)
    (verdict,) = decide_all([alike], finished=True)
    text = sentence(verdict, alike, model="b", baseline="a", figure="mAP50-95", finished=True)
    assert verdict.times_images == pytest.approx(((2.054 + 0.842) * 0.01 / 0.01) ** 2, rel=0.01)
    assert "8.4 times as many might do" in text and "--seeds" not in text


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize("seeds", [1, 3])
def test_a_handful_of_images_gets_no_word(finished, seeds):
    rng = np.random.default_rng(0)
    points = 1e-3 * rng.normal(size=(2, seeds))
    ours, theirs = (
        Scores(points=0.3 + points[0], resampled=np.full((seeds, 9), 0.3)),
        Scores(points=points[1], resampled=np.zeros((seeds, 9))),
    )
    for images in (1, 2, 9):
        one = paired_difference(ours, theirs, images=images)
        assert math.isnan(one.low) == (images == 1 or seeds == 1), "no interval of no width"
        (verdict,) = decide_all([one], finished=finished)
        text = sentence(verdict, one, model="b", baseline="a", figure="mAP50-95", finished=finished)
        assert verdict.word == UNKNOWN and f"here are {images}" in text and "nan" not in text


def test_larger_differences_need_fewer_seeds():
    needed = [seeds_needed(difference(value, seed=0.002)) for value in (0.03, 0.04, 0.06)]
    assert all(a > b for a, b in itertools.pairwise(needed))


def test_sentences_name_the_models_and_the_interval():
    worse = difference(-0.2)
    text = sentence(decide_all([worse])[0], worse, model="wide", baseline="narrow", figure="mAP50-95")
    assert text.startswith("wide is worse than narrow: mAP50-95 -0.200, 95 % interval -0.2")
    unknown = difference(0.03, seed=0.001)
    text = sentence(decide_all([unknown])[0], unknown, model="b", baseline="a", figure="mAP50-95")
    assert "cannot tell yet" in text and "more seeds of each would tell" in text


def test_equal_figures_are_called_equal():
    zeros = Scores(points=np.zeros(3), resampled=np.zeros((3, 9)))
    same = paired_difference(zeros, zeros, images=9)
    assert isinstance(same, Difference) and same.p_value == 1
    (verdict,) = decide_all([same])
    assert verdict.word == UNKNOWN and verdict.more_seeds is None
    assert "the same" in sentence(verdict, same, model="b", baseline="a", figure="mAP50")
