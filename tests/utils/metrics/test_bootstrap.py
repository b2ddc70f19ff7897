from dataclasses import replace

import numpy as np
import pytest

from tests.helpers.evaluations import evaluated_set
from utils.metrics.average_precision import precision_recall
from utils.metrics.bootstrap import draw_resamples, resample_ap

THRESHOLDS = 10


def random_set(seed, *, images=17, classes=3, confidences="distinct"):
    """Images with labels and detections; at each IoU threshold at most as many true positives as labels."""
    rng = np.random.default_rng(seed)
    n, m = int(rng.integers(0, 160)), int(rng.integers(1, 50))
    image_ids, class_ids = np.sort(rng.integers(0, images, n)), rng.integers(0, classes, n)
    label_images, label_classes = rng.integers(0, images, m), rng.integers(0, classes, m)
    tp = np.zeros((n, THRESHOLDS), bool)
    for image in range(images):
        for class_id in range(classes):
            labels = int(((label_images == image) & (label_classes == class_id)).sum())
            detections = np.flatnonzero((image_ids == image) & (class_ids == class_id))
            for column in range(THRESHOLDS):
                tp[rng.permutation(detections)[: rng.integers(0, labels + 1)], column] = True
    values = rng.random(n) if confidences == "distinct" else rng.choice([0.25, 0.5, 0.75], n)
    return evaluated_set(
        tp,
        values.astype(np.float32),
        class_ids,
        label_classes,
        num_images=images,
        image_ids=image_ids,
        label_image_ids=label_images,
    )


def choose(evaluated, detections, labels=slice(None)):
    """The set with some of its detections and labels only, which may occur several times."""
    return replace(
        evaluated,
        image_ids=evaluated.image_ids[detections],
        boxes=evaluated.boxes[detections],
        confidences=evaluated.confidences[detections],
        classes=evaluated.classes[detections],
        tp=evaluated.tp[detections],
        claimed_areas=evaluated.claimed_areas[detections],
        label_image_ids=evaluated.label_image_ids[labels],
        label_classes=evaluated.label_classes[labels],
        label_boxes=evaluated.label_boxes[labels],
    )


def repeat_images(evaluated, weights, ignored=None):
    """The project's own metrics of images that really are repeated, without the detections ignored."""

    def rows(image_ids):
        parts = [np.flatnonzero(image_ids == image) for image in np.repeat(np.arange(evaluated.num_images), weights)]
        return np.concatenate([np.zeros(0, int), *parts])

    detections = rows(evaluated.image_ids)
    kept = detections if ignored is None else detections[~ignored[detections, 0]]
    return precision_recall(choose(evaluated, kept, rows(evaluated.label_image_ids)))


@pytest.mark.parametrize("seed", range(60))
def test_resampled_ap_equals_that_of_repeated_images(seed):
    evaluated = random_set(seed)
    weights = np.concatenate((np.ones((1, 17), np.int32), draw_resamples(17, 6, seed=seed)))
    result = resample_ap(evaluated, weights)
    for row, ap, map50, map50_95 in zip(weights, result.ap, result.mean(0), result.mean(), strict=True):
        expected = repeat_images(evaluated, row)
        assert np.array_equal(result.class_ids[np.isfinite(ap[:, 0])], expected.class_ids)
        if len(expected.class_ids):
            np.testing.assert_allclose(ap[np.isfinite(ap[:, 0])], expected.ap, rtol=0, atol=1e-12)
            assert (map50, map50_95) == pytest.approx((expected.map50, expected.map50_95), abs=1e-12)
        else:
            assert np.isnan(map50)


def test_equal_confidences_in_different_images_keep_the_order_of_the_images():
    for seed in range(30):
        evaluated = random_set(seed, images=60, confidences="tied")  # about one detection of a class in an image
        pairs = np.stack((evaluated.image_ids, evaluated.classes), 1)
        evaluated = choose(evaluated, np.sort(np.unique(pairs, axis=0, return_index=True)[1]))
        (weights,) = draw_resamples(60, 1, seed=seed)
        result, expected = resample_ap(evaluated, weights[None]), repeat_images(evaluated, weights)
        np.testing.assert_allclose(result.ap[0][np.isfinite(result.ap[0, :, 0])], expected.ap, rtol=0, atol=1e-12)


def test_ignored_detections_count_as_absent():
    for seed in range(30):
        evaluated = random_set(seed)
        rng = np.random.default_rng(seed)
        counted = (rng.random(len(evaluated.confidences)) < 0.6) | evaluated.tp.any(1)
        ignored = np.repeat(~counted[:, None], THRESHOLDS, 1)
        weights = draw_resamples(17, 4, seed=seed)
        result = resample_ap(evaluated, weights, ignored=ignored)
        for row, ap in zip(weights, result.ap, strict=True):
            expected = repeat_images(evaluated, row, ignored)
            np.testing.assert_allclose(ap[np.isfinite(ap[:, 0])], expected.ap, rtol=0, atol=1e-12)


def test_a_detection_may_be_ignored_at_some_iou_thresholds_only():
    # 0.9 is a true positive at the first threshold only, 0.8 at none, 0.7 at both.
    tp = np.array([[True, False], [False, False], [True, True]])
    ignored = np.array([[False, True], [False, False], [False, False]])
    evaluated = evaluated_set(tp, [0.9, 0.8, 0.7], [0, 0, 0], [0, 0])
    ap = resample_ap(evaluated, np.ones((1, 1), np.int32), ignored=ignored).ap[0, 0]
    first = precision_recall(replace(evaluated, tp=tp[:, :1])).ap[0, 0]
    second = precision_recall(replace(choose(evaluated, slice(1, None)), tp=tp[1:, 1:])).ap[0, 0]
    assert ap == pytest.approx([first, second], abs=1e-12) and ap[0] != ap[1]


def test_resamples_draw_with_replacement_and_are_repeatable():
    weights = draw_resamples(40, 500, seed=3)
    assert weights.shape == (500, 40) and (weights.sum(1) == 40).all()
    assert np.array_equal(weights, draw_resamples(40, 500, seed=3))
    assert (weights == 0).mean() == pytest.approx((1 - 1 / 40) ** 40, abs=0.01) and weights.max() >= 3


def test_results_do_not_depend_on_the_chunk_size(monkeypatch):
    evaluated, weights = random_set(5), draw_resamples(17, 50, seed=1)
    whole = resample_ap(evaluated, weights).ap
    monkeypatch.setattr("utils.metrics.bootstrap.CHUNK_RESAMPLES", 7)
    np.testing.assert_allclose(whole, resample_ap(evaluated, weights).ap, rtol=0, atol=1e-12)


def test_means_exclude_classes_that_a_resample_lacks():
    labels = {"label_classes": [0, 1], "label_image_ids": np.array([0, 1])}
    evaluated = evaluated_set(np.ones((1, 10), bool), [0.9], [0], num_images=2, **labels)
    result = resample_ap(evaluated, np.array([[1, 1], [2, 0], [0, 2]], np.int32))
    assert result.mean() == pytest.approx([0.4975, 0.995, 0.0], abs=1e-9)
    assert np.isnan(result.of_class(0)[2]) and result.of_class(0)[:2] == pytest.approx([0.995, 0.995])
    assert result.of_class(1, 0)[0] == 0


def test_no_images_and_no_detections():
    empty = evaluated_set(np.zeros((0, 10), bool), [], [], [], num_images=0)
    result = resample_ap(empty, draw_resamples(0, 3, seed=0))
    assert result.ap.shape == (3, 0, 10) and np.isnan(result.mean()).all()
