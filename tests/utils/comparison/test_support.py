"""How much there is to judge by, and that an object or two of a size move no mean over classes."""

from dataclasses import replace

import numpy as np
import pytest

from tests.utils.comparison.test_statistics import NAMES, images
from utils.comparison.predictions import resampled_metrics
from utils.comparison.support import excluded_by_size, support_by_class
from utils.metrics.bootstrap import draw_resamples
from utils.metrics.evaluated_set import EvaluatedSet, ImageEvaluation, box_areas
from utils.metrics.object_size import SIZES, size_bins


def test_objects_and_images_are_counted_as_a_loop_does():
    shown = images(3, count=40)
    judgement = EvaluatedSet.concatenate(shown)
    found = support_by_class(judgement, NAMES)
    for number, name in enumerate(NAMES):
        own = [int((image.label_classes == number).sum()) for image in shown]
        assert found["class", name] == (sum(own), sum(count > 0 for count in own))
    for number, size in enumerate(SIZES):
        own = [int((size_bins(box_areas(image.label_boxes)) == number).sum()) for image in shown]
        assert found["size", size] == (sum(own), sum(count > 0 for count in own))


def with_one_large(image: ImageEvaluation, label: int, *, keep: bool = True) -> ImageEvaluation:
    """Add a large object that nothing found, to the other labels or in place of them."""
    box, kept = np.array([[0.0, 0.0, 600.0, 400.0]]), slice(None if keep else 0)
    return replace(
        image,
        label_boxes=np.concatenate((image.label_boxes[kept], box)),
        label_classes=np.concatenate((image.label_classes[kept], [label])),
    )


def test_a_class_with_one_object_of_a_size_has_no_part_in_its_mean():
    shown = images(3, count=60)
    judgement = EvaluatedSet.concatenate([with_one_large(shown[0], 3), *shown[1:]])
    names, weights = (*NAMES, "rare"), draw_resamples(60, 50, seed=0)
    left_out = excluded_by_size(judgement, names)
    assert left_out[-1] == "rare of large (1 in 1)" and all(" of small (" in text for text in left_out[:-1])
    before, after = (
        resampled_metrics(EvaluatedSet.concatenate(shown), weights, names),
        resampled_metrics(judgement, weights, names),
    )
    for figure in ("map50", "map50_95"):
        np.testing.assert_allclose(after["size", "large", figure], before["size", "large", figure])
        assert after["class", "rare", figure][0] == 0, "as a class it counts"


@pytest.mark.parametrize("count", [4, 5])
def test_a_size_in_which_no_class_has_enough_has_no_figure(count):
    shown = [with_one_large(image, 0, keep=False) for image in images(3, count=count)]
    figures = resampled_metrics(EvaluatedSet.concatenate(shown), draw_resamples(count, 9, seed=0), NAMES)
    assert (("size", "large", "map50") in figures) == (count == 5)
