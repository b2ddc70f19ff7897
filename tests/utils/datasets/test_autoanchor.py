"""Anchors fitted to box sizes: exact where the optimum is known, kept where the model's anchors fit."""

import numpy as np
import pytest

from utils.datasets.autoanchor import best_possible_recall, best_ratio, fit_anchors

FAR = np.full((1, 1, 2), 5000.0)


def fit(boxes, anchors, **changes):
    return fit_anchors(np.array(boxes, float), anchors, **{"max_ratio": 4.0, "image_size": 640, **changes})


def test_best_ratio_by_hand():
    boxes = np.array([[10.0, 40], [20, 20], [100, 30], [5, 8]])
    anchors = np.array([[20.0, 20], [80, 40]])
    # (0.5, 0.5) and (0.125, 1); (1, 1) and (0.25, 0.5); (0.2, 2/3) and (0.8, 0.75); (0.25, 0.4) and (1/16, 0.2)
    np.testing.assert_allclose(best_ratio(boxes, anchors), [0.5, 1, 0.75, 0.25], rtol=1e-12)


def test_recall_excludes_the_limit_itself():
    boxes = np.array([[10.0, 40], [20, 20], [100, 30], [5, 8]])
    anchors = np.array([[20.0, 20], [80, 40]])
    assert best_possible_recall(boxes, anchors, max_ratio=4) == 0.75  # a ratio of exactly 1 / 4 is too far
    assert best_possible_recall(boxes, anchors, max_ratio=4.01) == 1
    assert best_possible_recall(boxes, anchors, max_ratio=2) == 0.5
    assert best_possible_recall(boxes, anchors, max_ratio=1.01) == 0.25


@pytest.mark.parametrize("seed", [0, 1, 5])
def test_with_as_many_boxes_as_anchors_the_boxes_are_the_anchors(seed):
    boxes = [[300, 200], [12, 20], [60, 30], [90, 170], [25, 9], [33, 64]]
    fitted = fit(boxes, np.full((3, 2, 2), 5000.0), seed=seed)
    # By area: 225, 240, 1800, 2112, 15300, 60000.
    expected = [[[25, 9], [12, 20]], [[60, 30], [33, 64]], [[90, 170], [300, 200]]]
    assert fitted.shape == (3, 2, 2) and fitted.dtype == np.float32
    np.testing.assert_allclose(fitted, expected, rtol=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_mutation_finds_the_best_single_anchor(seed):
    # Between the sizes, k times (10, 30) has a mean ratio of (2 / k + k / 2) / 3, which decreases from k = 1 to 2:
    # k-means ends at k = 4 / 3, the optimum is k = 1.
    fitted = fit([[10, 30], [10, 30], [20, 60]], FAR, seed=seed)
    np.testing.assert_allclose(fitted, [[[10, 30]]], rtol=0.02)


def test_three_clusters_are_found():
    rng = np.random.default_rng(3)
    centres = np.array([[10.0, 22], [64, 30], [150, 260]])
    boxes = np.concatenate([centre * rng.uniform(0.95, 1.05, (40, 2)) for centre in centres])
    fitted = fit(boxes, np.full((1, 3, 2), 5000.0))
    np.testing.assert_allclose(fitted[0], centres, rtol=0.05)
    assert best_possible_recall(boxes, fitted[0].astype(float), max_ratio=1.2) == 1


@pytest.mark.parametrize(("fitting", "kept"), [(100, True), (99, True), (98, False), (50, False)])
def test_anchors_with_a_recall_above_98_percent_are_kept(fitting, kept):
    boxes = [[20, 40]] * fitting + [[200, 400]] * (100 - fitting)
    anchors = np.array([[[22.0, 38], [21, 41]]])
    fitted = fit(boxes, anchors)
    assert (fitted is None) is kept
    if not kept:
        assert best_possible_recall(np.array(boxes, float), fitted[0], max_ratio=4) == 1


def test_force_replaces_anchors_that_fit():
    fitted = fit([[20, 40]] * 5, np.array([[[22.0, 38]]]), force=True)
    np.testing.assert_allclose(fitted, [[[20, 40]]], rtol=1e-6)


def test_anchors_that_do_not_improve_recall_are_discarded():
    # No single anchor fits both sizes.
    boxes = [[10, 10]] * 4 + [[1000, 1000]] * 4
    assert fit(boxes, np.array([[[10.0, 10]]])) is None
    fitted = fit(boxes, np.array([[[10.0, 10]]]), force=True)
    assert fitted.shape == (1, 1, 2) and np.isfinite(fitted).all()


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(("boxes", "fits"), [(1, False), (2, True)])
def test_fewer_boxes_than_anchors_fit_nothing(boxes, fits, force):
    fitted = fit([[30, 20], [70, 90]][:boxes], np.full((2, 1, 2), 5000.0), force=force)
    assert (fitted is not None) is fits


def test_boxes_below_two_pixels_on_both_sides_do_not_count():
    many = [[1.9, 1.5]] * 50
    assert fit([*many, [30, 20]], np.full((2, 1, 2), 5000.0)) is None
    # One side of 2 pixels is enough.
    fitted = fit([*many, [2, 1], [30, 20]], np.full((2, 1, 2), 5000.0))
    np.testing.assert_allclose(fitted[1], [[30, 20]], rtol=1e-6)
    assert fit([*many, [1, 2], [30, 20]], np.full((2, 1, 2), 5000.0)) is not None


def test_anchors_have_at_least_two_pixels():
    # The best width is 1, but no anchor is narrower than 2.
    fitted = fit([[1, 40], [1, 40], [6, 40]], FAR)
    assert fitted[0, 0, 0] == 2


def test_equal_seeds_give_equal_anchors_and_inputs_are_unchanged():
    boxes = np.random.default_rng(0).uniform(5, 300, (200, 2))
    anchors = np.full((2, 2, 2), 5000.0)
    before = boxes.copy(), anchors.copy()
    first, again, other = (fit(boxes, anchors, seed=seed) for seed in (7, 7, 8))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert np.array_equal(boxes, before[0]) and np.array_equal(anchors, before[1])
    areas = first.reshape(-1, 2).prod(1)
    assert (np.diff(areas) > 0).all()


def test_anchors_scale_with_the_boxes():
    boxes = np.random.default_rng(1).uniform(20, 300, (60, 2))
    anchors = np.full((1, 3, 2), 5000.0)
    np.testing.assert_allclose(fit(2 * boxes, anchors), 2 * fit(boxes, anchors), rtol=1e-5)
