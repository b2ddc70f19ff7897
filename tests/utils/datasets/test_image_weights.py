"""Sampling weights of --image-weights, also if all classes are trained as one."""

import numpy as np
import pytest

from utils.datasets.image_weights import sampling_weights
from utils.datasets.index import DatasetIndex


def index_of(*images: list[int]) -> DatasetIndex:
    """Images with objects of the given classes."""
    rows = [[class_id, 0.5, 0.5, 0.1, 0.1] for classes in images for class_id in classes]
    return DatasetIndex(
        paths=np.array([f"{i}.png" for i in range(len(images))]),
        sizes_hw=np.full((len(images), 2), 64, np.int32),
        labels=np.array(rows, np.float32),
        starts=np.cumsum([0, *map(len, images)]),
    )


INDEX = index_of([0, 0, 0, 0], [1], [2, 2], [])


def test_weights_follow_ap_and_class_frequency() -> None:
    weights = sampling_weights(INDEX, [0.0, 0.0, 0.5])
    np.testing.assert_allclose(weights, [1, 1, 0.25, 0.25], rtol=1e-6)


@pytest.mark.parametrize(("class_ap", "single_class"), [([], True), ([0.4], True), ([0.4], False)])
def test_trained_as_one_class_every_object_has_the_same_weight(class_ap: list[float], single_class: bool) -> None:
    weights = sampling_weights(INDEX, class_ap, single_class=single_class)
    np.testing.assert_allclose(weights / weights[1], [4, 1, 2, 1], rtol=1e-6)
    one = index_of([0, 0, 0, 0], [0], [0, 0], [])
    assert np.array_equal(weights, sampling_weights(one, class_ap))
