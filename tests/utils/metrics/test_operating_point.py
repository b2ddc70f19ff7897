"""Precision, recall and F1 of resamples equal those of images that really are repeated."""

import numpy as np
import pytest

from tests.helpers.evaluations import evaluated_set
from tests.utils.metrics.test_bootstrap import choose, random_set, repeat_images
from utils.metrics.average_precision import precision_recall
from utils.metrics.bootstrap import draw_resamples
from utils.metrics.operating_point import resample_point

METRICS = ("precision", "recall", "f1")


def independent_point(evaluated):
    """P, R and F1 of each class with labels at the peak of the smoothed mean F1, by a loop over the curve."""
    grid, class_ids = np.linspace(0, 1, 1000), sorted(set(evaluated.label_classes.tolist()))
    curves = np.zeros((2, len(class_ids), 1000))
    for row, class_id in enumerate(class_ids):
        of_class = np.flatnonzero(evaluated.classes == class_id)
        of_class = of_class[np.argsort(-evaluated.confidences[of_class], kind="stable")]
        scores, hits = evaluated.confidences[of_class].astype(float), evaluated.tp[of_class, 0].cumsum()
        precision, recall = hits / np.arange(1, len(hits) + 1), hits / (evaluated.label_classes == class_id).sum()
        for k, confidence in enumerate(grid):
            count = int((scores >= confidence).sum())
            if len(scores) == 0:
                continue
            if count == 0:
                curves[:, row, k] = 1, 0
            elif count == len(scores):
                curves[:, row, k] = precision[-1], recall[-1]
            else:
                share = (scores[count - 1] - confidence) / (scores[count - 1] - scores[count])
                for c, values in enumerate((precision, recall)):
                    curves[c, row, k] = (1 - share) * values[count - 1] + share * values[count]
    f1 = 2 * curves[0] * curves[1] / np.maximum(curves[0] + curves[1], 1e-16)
    padded = np.pad(f1.mean(0), 50, mode="edge")
    best = int(np.argmax([padded[k : k + 101].mean().round(12) for k in range(1000)]))
    return curves[0, :, best], curves[1, :, best], f1[:, best]


@pytest.mark.parametrize("seed", range(12))
def test_the_set_itself_has_the_numbers_of_an_independent_loop(seed):
    evaluated = random_set(seed)
    point = resample_point(evaluated, np.ones((1, 17), np.int32))
    expected = independent_point(evaluated)
    for metric, values in zip(METRICS, expected, strict=True):
        np.testing.assert_allclose(getattr(point, metric)[0], values, rtol=0, atol=1e-9)
    validated = precision_recall(evaluated)
    assert [point.mean(metric)[0] for metric in METRICS] == pytest.approx(
        [validated.mean_precision, validated.mean_recall, validated.f1.mean()], abs=1e-15
    )


@pytest.mark.parametrize("confidences", ["distinct", "tied"])
@pytest.mark.parametrize("seed", range(30))
def test_resamples_equal_repeated_images(seed, confidences):
    evaluated = random_set(seed, confidences=confidences)
    if confidences == "tied":  # one detection of a class in an image, as repeated images keep their order then
        pairs = np.stack((evaluated.image_ids, evaluated.classes), 1)
        evaluated = choose(evaluated, np.sort(np.unique(pairs, axis=0, return_index=True)[1]))
    weights = draw_resamples(17, 6, seed=seed)
    point = resample_point(evaluated, weights)
    for index, row in enumerate(weights):
        expected = repeat_images(evaluated, row)
        present = np.isfinite(point.f1[index])
        assert np.array_equal(point.class_ids[present], expected.class_ids)
        for metric in METRICS:
            np.testing.assert_allclose(getattr(point, metric)[index, present], getattr(expected, metric), atol=1e-12)
            if present.any():
                assert point.mean(metric)[index] == pytest.approx(getattr(expected, metric).mean(), abs=1e-12)


def test_chunks_do_not_matter(monkeypatch):
    evaluated, weights = random_set(5), draw_resamples(17, 50, seed=1)
    whole = resample_point(evaluated, weights)
    monkeypatch.setattr("utils.metrics.operating_point.CHUNK_RESAMPLES", 7)
    for metric in METRICS:
        assert np.array_equal(getattr(whole, metric), getattr(resample_point(evaluated, weights), metric))


def test_nothing_found_is_zero_and_no_label_is_nan():
    labels = {"label_classes": [0, 1], "label_image_ids": np.array([0, 1])}
    evaluated = evaluated_set(np.ones((1, 10), bool), [0.9], [0], num_images=2, **labels)
    point = resample_point(evaluated, np.array([[1, 1], [2, 0], [0, 2]], np.int32))
    np.testing.assert_array_equal(point.precision, [[1, 0], [1, np.nan], [np.nan, 0]])
    np.testing.assert_array_equal(point.recall, [[1, 0], [1, np.nan], [np.nan, 0]])
    assert point.mean("f1").tolist() == [0.5, 1.0, 0.0]
    empty = evaluated_set(np.zeros((0, 10), bool), [], [], [], num_images=0)
    assert np.isnan(resample_point(empty, draw_resamples(0, 3, seed=0)).mean("f1")).all()
