"""Metrics of a run on the set itself and on resamples, per class and per object size, and the support of these."""

import numpy as np
import pytest

from tests.helpers.evaluations import image_evaluation
from tests.helpers.random_runs import NAMES, random_images, random_run
from utils.comparison.predictions import (
    Support,
    _read_cache,
    excluded_by_size,
    resampled_metrics,
    support_by_class,
    support_in_size,
)
from utils.metrics.average_precision import precision_recall
from utils.metrics.bootstrap import draw_resamples
from utils.metrics.evaluated_set import EvaluatedSet, ImageEvaluation, box_areas
from utils.metrics.object_size import SIZES, restrict_to_size, size_bins


def test_metrics_are_those_of_val_on_the_set_and_on_repeated_images():
    images, weights = random_images(3), draw_resamples(24, 3, seed=0)
    metrics = resampled_metrics(EvaluatedSet.concatenate(images), weights, NAMES)
    expected = precision_recall(EvaluatedSet.concatenate(images))
    assert metrics["all", "", "map50"][0] == pytest.approx(expected.map50, abs=1e-12)
    assert metrics["all", "", "map50_95"][0] == pytest.approx(expected.map50_95, abs=1e-12)
    for class_id, name in enumerate(NAMES):
        assert metrics["class", name, "map50_95"][0] == pytest.approx(expected.ap[class_id].mean(), abs=1e-12)
        assert metrics["class", name, "map50"][0] == pytest.approx(expected.ap[class_id, 0], abs=1e-12)
    repeated = precision_recall(EvaluatedSet.concatenate([images[i] for i in np.repeat(np.arange(24), weights[1])]))
    assert metrics["all", "", "map50_95"][2] == pytest.approx(repeated.map50_95, abs=1e-12)


def test_every_label_belongs_to_one_size_and_perfect_detections_are_perfect_in_each():
    run = random_run(3, noise=0)
    parts = [restrict_to_size(run, size_bin)[0] for size_bin in range(3)]
    assert sum(len(part.label_classes) for part in parts) == len(run.label_classes)
    assert min(len(part.label_classes) for part in parts) > 0
    metrics = resampled_metrics(run, draw_resamples(24, 2, seed=0), NAMES)
    for size in ("medium", "large"):  # no class has sufficient support in small
        assert metrics["size", size, "map50"][0] > 0.8


def test_support_counts_objects_and_images_as_a_loop_does():
    images = random_images(3, count=40)
    run = EvaluatedSet.concatenate(images)
    support = support_by_class(run, NAMES)
    assert list(support) == [*(("class", name) for name in NAMES), *(("size", size) for size in SIZES)]
    for class_id, name in enumerate(NAMES):
        counts = [int((image.label_classes == class_id).sum()) for image in images]
        assert support["class", name] == Support(sum(counts), sum(count > 0 for count in counts))
    for size_bin, size in enumerate(SIZES):
        counts = [int((size_bins(box_areas(image.label_boxes)) == size_bin).sum()) for image in images]
        assert support["size", size] == Support(sum(counts), sum(count > 0 for count in counts))
        assert sum(part.objects for part in support_in_size(run, size_bin).values()) == sum(counts)


def test_support_is_sufficient_from_five_objects_in_three_images():
    assert [Support(5, 3).sufficient, Support(4, 4).sufficient, Support(9, 2).sufficient] == [True, False, False]


def with_large_object(image: ImageEvaluation, label: int, *, keep: bool = True) -> ImageEvaluation:
    """Add a large object without detections to the labels, or replace them by it."""
    box, kept = np.array([[0.0, 0.0, 600.0, 400.0]]), slice(None if keep else 0)
    return image_evaluation(
        image.boxes,
        image.confidences,
        image.classes,
        np.concatenate((image.label_boxes[kept], box)),
        np.concatenate((image.label_classes[kept], [label])),
        image_id=image.image_id,
    )


def test_a_class_with_one_object_of_a_size_is_excluded_from_the_mean_of_the_size():
    images = random_images(3, count=60)
    run = EvaluatedSet.concatenate([with_large_object(images[0], 3), *images[1:]])
    names, weights = (*NAMES, "rare"), draw_resamples(60, 50, seed=0)
    *others, last = excluded_by_size(run, names)
    assert last == "rare of large (1 in 1)" and all(" of small (" in text for text in others)
    before = resampled_metrics(EvaluatedSet.concatenate(images), weights, names)
    after = resampled_metrics(run, weights, names)
    for metric in ("map50", "map50_95"):
        np.testing.assert_allclose(after["size", "large", metric], before["size", "large", metric])
        assert after["class", "rare", metric][0] == 0, "it counts as a class"


@pytest.mark.parametrize("count", [4, 5])
def test_a_size_without_any_class_of_sufficient_support_has_no_metric(count):
    images = [with_large_object(image, 0, keep=False) for image in random_images(3, count=count)]
    metrics = resampled_metrics(EvaluatedSet.concatenate(images), draw_resamples(count, 9, seed=0), NAMES)
    assert (("size", "large", "map50") in metrics) == (count == 5)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", None])
def test_a_damaged_cache_is_reported_and_one_of_an_older_version_is_not(content, tmp_path, caplog):
    path = tmp_path / "model-0.npz"
    if content is None:
        np.savez_compressed(path, mark=np.array("2 of an earlier version"), images=np.array(3))
    else:
        path.write_bytes(content)
    assert _read_cache(path, "3 key") is None and _read_cache(tmp_path / "missing.npz", "3 key") is None
    assert [str(path) in record.getMessage() for record in caplog.records] == ([True] if content is not None else [])
