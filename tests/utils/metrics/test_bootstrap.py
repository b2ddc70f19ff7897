import numpy as np
import pytest

from utils.metrics.average_precision import precision_recall
from utils.metrics.bootstrap import EvaluatedSet, draw_resamples, resample_ap

THRESHOLDS = 10


def random_set(seed, *, images=17, classes=3, scores="distinct"):
    """Images with labels and detections; at each overlap at most as many are right as an image has labels."""
    rng = np.random.default_rng(seed)
    n, m = int(rng.integers(0, 160)), int(rng.integers(1, 50))
    where, kind = np.sort(rng.integers(0, images, n)), rng.integers(0, classes, n)
    label_images, label_classes = rng.integers(0, images, m), rng.integers(0, classes, m)
    correct = np.zeros((n, THRESHOLDS), bool)
    for image in range(images):
        for number in range(classes):
            free = int(((label_images == image) & (label_classes == number)).sum())
            found = np.flatnonzero((where == image) & (kind == number))
            for column in range(THRESHOLDS):
                correct[rng.permutation(found)[: rng.integers(0, free + 1)], column] = True
    values = rng.random(n) if scores == "distinct" else rng.choice([0.25, 0.5, 0.75], n)
    return EvaluatedSet(
        images=images,
        detection_images=where,
        scores=values.astype(np.float32),
        classes=kind,
        correct=correct,
        label_images=label_images,
        label_classes=label_classes,
    )


def repeated(judged, weights):
    """The project's own numbers on images that really are repeated."""

    def rows(of):
        found = [np.flatnonzero(of == image) for image in np.repeat(np.arange(judged.images), weights)]
        return np.concatenate([np.zeros(0, int), *found])

    d, k = rows(judged.detection_images), rows(judged.label_images)
    counted = slice(None) if judged.counted is None else judged.counted[d, 0]
    return precision_recall(
        judged.correct[d][counted], judged.scores[d][counted], judged.classes[d][counted], judged.label_classes[k]
    )


@pytest.mark.parametrize("seed", range(60))
def test_resampled_ap_is_that_of_images_really_repeated(seed):
    judged = random_set(seed)
    weights = np.concatenate((np.ones((1, 17), np.int32), draw_resamples(17, 6, seed=seed)))
    result = resample_ap(judged, weights)
    for row, ap, map50, map50_95 in zip(weights, result.ap, result.mean(0), result.mean(), strict=True):
        expected = repeated(judged, row)
        assert np.array_equal(result.classes[np.isfinite(ap[:, 0])], expected.classes)
        if len(expected.classes):
            np.testing.assert_allclose(ap[np.isfinite(ap[:, 0])], expected.ap, rtol=0, atol=1e-12)
            assert (map50, map50_95) == pytest.approx((expected.map50, expected.map50_95), abs=1e-12)
        else:
            assert np.isnan(map50)


def test_equal_scores_of_different_images_keep_the_images_order():
    for seed in range(30):
        judged = random_set(seed, images=60, scores="tied")  # about one detection of a class in an image
        pairs = np.stack((judged.detection_images, judged.classes), 1)
        first = np.sort(np.unique(pairs, axis=0, return_index=True)[1])
        judged = EvaluatedSet(
            images=60,
            detection_images=judged.detection_images[first],
            scores=judged.scores[first],
            classes=judged.classes[first],
            correct=judged.correct[first],
            label_images=judged.label_images,
            label_classes=judged.label_classes,
        )
        (weights,) = draw_resamples(60, 1, seed=seed)
        result, expected = resample_ap(judged, weights[None]), repeated(judged, weights)
        np.testing.assert_allclose(result.ap[0][np.isfinite(result.ap[0, :, 0])], expected.ap, rtol=0, atol=1e-12)


def test_detections_that_do_not_count_are_as_if_they_were_not_there():
    for seed in range(30):
        judged = random_set(seed)
        rng = np.random.default_rng(seed)
        counts = (rng.random(len(judged.scores)) < 0.6) | judged.correct.any(1)
        marked = EvaluatedSet(**{**vars(judged), "counted": np.repeat(counts[:, None], THRESHOLDS, 1)})
        weights = draw_resamples(17, 4, seed=seed)
        result = resample_ap(marked, weights)
        for row, ap in zip(weights, result.ap, strict=True):
            expected = repeated(marked, row)
            np.testing.assert_allclose(ap[np.isfinite(ap[:, 0])], expected.ap, rtol=0, atol=1e-12)


def test_a_detection_may_count_at_some_overlaps_only():
    correct = np.array([[True, True], [True, False], [False, False]])
    judged = EvaluatedSet(
        images=1,
        detection_images=np.zeros(3, int),
        scores=np.array([0.9, 0.8, 0.7]),
        classes=np.zeros(3, int),
        correct=correct[[1, 2, 0]],  # 0.9: right at the first only; 0.8: never; 0.7: both
        counted=np.array([[True, False], [True, True], [True, True]]),
        label_images=np.zeros(2, int),
        label_classes=np.zeros(2, int),
    )
    ap = resample_ap(judged, np.ones((1, 1), np.int32)).ap[0, 0]
    first = precision_recall(judged.correct[:, :1], judged.scores, judged.classes, judged.label_classes).ap[0, 0]
    second = precision_recall(judged.correct[1:, 1:], judged.scores[1:], judged.classes[1:], judged.label_classes)
    assert ap == pytest.approx([first, second.ap[0, 0]], abs=1e-12) and ap[0] != ap[1]


def test_resamples_draw_with_multiplicity_and_are_repeatable():
    weights = draw_resamples(40, 500, seed=3)
    assert weights.shape == (500, 40) and (weights.sum(1) == 40).all()
    assert np.array_equal(weights, draw_resamples(40, 500, seed=3))
    assert (weights == 0).mean() == pytest.approx((1 - 1 / 40) ** 40, abs=0.01) and weights.max() >= 3


def test_results_do_not_depend_on_how_resamples_are_put_together(monkeypatch):
    judged, weights = random_set(5), draw_resamples(17, 50, seed=1)
    whole = resample_ap(judged, weights).ap
    monkeypatch.setattr("utils.metrics.bootstrap.CHUNK_RESAMPLES", 7)
    np.testing.assert_allclose(whole, resample_ap(judged, weights).ap, rtol=0, atol=1e-12)


def test_means_leave_out_classes_that_a_resample_lacks():
    judged = EvaluatedSet(
        images=2,
        detection_images=np.array([0]),
        scores=np.array([0.9]),
        classes=np.array([0]),
        correct=np.ones((1, 10), bool),
        label_images=np.array([0, 1]),
        label_classes=np.array([0, 1]),
    )
    result = resample_ap(judged, np.array([[1, 1], [2, 0], [0, 2]], np.int32))
    assert result.mean() == pytest.approx([0.4975, 0.995, 0.0], abs=1e-9)
    assert np.isnan(result.of_class(0)[2]) and result.of_class(0)[:2] == pytest.approx([0.995, 0.995])
    assert result.of_class(1, 0)[0] == 0


def test_no_images_and_no_detections():
    empty = EvaluatedSet(
        images=0,
        detection_images=np.zeros(0, int),
        scores=np.zeros(0),
        classes=np.zeros(0, int),
        correct=np.zeros((0, 10), bool),
        label_images=np.zeros(0, int),
        label_classes=np.zeros(0, int),
    )
    result = resample_ap(empty, draw_resamples(0, 3, seed=0))
    assert result.ap.shape == (3, 0, 10) and np.isnan(result.mean()).all()
