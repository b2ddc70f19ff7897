"""--image-weights: images with the classes that the model still does badly are drawn more often."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from utils.datasets.index import DatasetIndex


def sampling_weights(index: DatasetIndex, class_ap: Sequence[float], *, single_class: bool = False) -> np.ndarray:
    """Return how often each image is wanted.

    A class counts as (1 - AP)^2 over its share of all objects, an image as the sum over its objects. An image without
    objects counts as the least of the others, so that it still comes up.

    Args:
        index: the training split.
        class_ap: AP of every class that is trained, in [0, 1]; empty before the first validation.
        single_class: all classes of the split are trained as one; so they are when `class_ap` is of one.

    Returns:
        (images,) float64, above 0.
    """
    classes = index.labels[:, 0].astype(np.int64)
    if single_class or len(class_ap) == 1:
        classes = np.zeros_like(classes)
    known = np.zeros(max(int(classes.max(initial=0)) + 1, len(class_ap)))
    known[: len(class_ap)] = class_ap
    counts = np.bincount(classes, minlength=len(known)).clip(min=1)
    wanted = (1 - known) ** 2 / counts + 1e-9
    per_object = wanted[classes]
    sums = np.concatenate(([0.0], np.cumsum(per_object)))
    weights = sums[index.starts[1:]] - sums[index.starts[:-1]]
    with_objects = weights[index.starts[1:] > index.starts[:-1]]
    return np.maximum(weights, with_objects.min() if len(with_objects) else 1.0)
