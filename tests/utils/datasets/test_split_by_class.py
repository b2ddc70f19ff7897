"""Stratified splits and folds of groups: nothing broken, the wanted sizes, every class everywhere, equal fractions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.datasets.split_by_class import assign_folds, assign_splits, class_fraction_differences


@st.composite
def labelled_sets(draw):
    """Draw the objects of each class in each image, and groups of images, some large."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    images, classes, groups = draw(st.integers(0, 60)), draw(st.integers(0, 6)), draw(st.integers(1, 60))
    counts = rng.poisson(draw(st.sampled_from((0.05, 0.5, 4))), (images, classes))
    ids = np.unique(rng.integers(0, groups, images), return_inverse=True)[1]
    return counts, ids


def random_set(images, classes, seed, groups=0):
    """Return counts of classes from frequent to rare; each image is a group unless a number of groups is given."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(np.geomspace(3, 0.05, classes), (images, classes))
    return counts, rng.permutation(np.arange(images) % groups) if groups else np.arange(images)


@settings(max_examples=60, deadline=None)
@given(
    data=labelled_sets(),
    fractions=st.sampled_from(((8, 1, 1), (0.9, 0.1), (1,), (7, 0, 3), (1, 1, 1))),
    seed=st.integers(0, 3),
)
def test_groups_stay_together_and_no_wanted_split_stays_empty(data, fractions, seed):
    counts, groups = data
    chosen = assign_splits(counts, groups, fractions, seed)
    assert chosen.shape == groups.shape and chosen.dtype == np.int64
    assert len(set(zip(groups.tolist(), chosen.tolist(), strict=True))) == len(set(groups.tolist()))
    wanted = {split for split, fraction in enumerate(fractions) if fraction}
    assert set(chosen.tolist()) <= wanted
    assert len(set(chosen.tolist())) == min(len(wanted), len(set(groups.tolist())))
    assert np.array_equal(chosen, assign_splits(counts, groups, fractions, seed))


@settings(max_examples=60, deadline=None)
@given(data=labelled_sets(), fractions=st.sampled_from(((8, 1, 1), (1, 1, 1), (2, 8))))
def test_a_class_is_in_the_largest_split_and_in_all_if_it_has_many_groups(data, fractions):
    counts, groups = data
    chosen = assign_splits(counts, groups, fractions, 0)
    largest = int(np.argmax(fractions))
    for objects in counts.T:
        splits_of = {group: split for group, split in zip(groups[objects > 0], chosen[objects > 0], strict=True)}
        if splits_of and groups.max() >= (len(counts.T) + 1) * len(fractions):
            assert largest in splits_of.values()
        if len(splits_of) > 3 * counts.shape[1] + len(fractions):  # then others cannot hold all of them back
            assert len(set(splits_of.values())) == len(fractions)


@pytest.mark.parametrize("fractions", [(8, 1, 1), (1, 1, 1), (0.7, 0.3)])
@pytest.mark.parametrize("groups", [0, 150])
def test_sizes_are_near_the_fractions_and_class_fractions_are_closer_than_at_random(fractions, groups):
    wanted = np.array(fractions) / sum(fractions)
    rng = np.random.default_rng(1)
    ours, random = [], []
    for seed in range(5):
        counts, ids = random_set(600, 12, seed, groups)
        chosen = assign_splits(counts, ids, fractions, seed)
        largest = np.bincount(ids).max()
        assert np.abs(np.bincount(chosen, minlength=len(wanted)) - 600 * wanted).max() <= 1.5 * largest
        ours.append(class_fraction_differences(counts, chosen).mean())
        of_groups = rng.choice(len(wanted), ids.max() + 1, p=wanted)
        random.append(class_fraction_differences(counts, of_groups[ids]).mean())
    assert np.mean(ours) < np.mean(random) * (0.8 if groups else 0.4)


def test_a_class_of_three_images_is_in_all_three_splits():
    counts = np.zeros((100, 2), np.int64)
    counts[:, 0] = 1
    counts[[10, 50, 90], 1] = 1
    chosen = assign_splits(counts, np.arange(100), (8, 1, 1), 0)
    assert sorted(chosen[counts[:, 1] > 0]) == [0, 1, 2]
    assert np.bincount(chosen).tolist() == [80, 10, 10]


def test_crowded_images_do_not_all_go_to_the_largest_split():
    counts = np.ceil(np.random.default_rng(0).lognormal(1, 1.5, (500, 1))).astype(np.int64)
    chosen = assign_splits(counts, np.arange(500), (8, 1, 1), 0)
    fractions = [counts[chosen == split].sum() / counts.sum() for split in range(3)]
    assert np.allclose(fractions, (0.8, 0.1, 0.1), atol=0.01)
    medians = [np.median(counts[chosen == split]) for split in range(3)]
    assert max(medians) - min(medians) <= 1


def test_a_group_larger_than_a_split_goes_to_the_training_split():
    groups = np.array([0] * 60 + [1] * 20 + list(range(2, 22)))
    chosen = assign_splits(np.ones((100, 1), np.int64), groups, (8, 1, 1), 0)
    assert (chosen[:80] == 0).all() and np.bincount(chosen).tolist() == [80, 10, 10]


def test_the_seed_changes_the_splits_but_not_their_sizes():
    counts, groups = random_set(200, 4, 0)
    first, second = (assign_splits(counts, groups, (8, 1, 1), seed) for seed in (0, 1))
    assert (first != second).any() and np.bincount(first).tolist() == np.bincount(second).tolist()


def test_folds_are_equal_and_have_every_class():
    counts, groups = random_set(103, 5, 0)
    folds = assign_folds(counts, groups, 5, 0)
    assert sorted(np.bincount(folds)) == [20, 20, 21, 21, 21]
    assert all((counts[folds == fold].sum(0) > 0).all() for fold in range(5) if (counts > 0).sum(0).min() >= 5)


def test_differences_of_fractions_by_hand():
    counts = np.array([[1, 1], [3, 1], [0, 0], [5, 5]])
    assert np.allclose(class_fraction_differences(counts, np.array([0, 1, 2, 0])), [0.25, 0.25])
    assert class_fraction_differences(np.zeros((2, 3)), np.array([0, 1])).tolist() == [0, 0, 0]


@pytest.mark.parametrize("fractions", [(), (0, 0), (1, -1), (1, float("nan"))])
def test_fractions_that_mean_nothing(fractions):
    with pytest.raises(ValueError):
        assign_splits(np.ones((3, 1)), np.arange(3), fractions, 0)


def test_counts_and_groups_of_other_lengths():
    with pytest.raises(ValueError):
        assign_splits(np.ones((3, 1)), np.arange(4), (1, 1), 0)


@pytest.mark.slow
def test_a_step_for_each_group_does_not_look_at_all_classes():
    counts = np.zeros((20_000, 3000), np.uint8)
    counts[np.arange(20_000), np.arange(20_000) % 3000] = 1
    chosen = assign_splits(counts, np.arange(20_000), (8, 1, 1), 0)
    assert all((np.bincount(np.flatnonzero(chosen == split) % 3000, minlength=3000) > 0).all() for split in range(3))
