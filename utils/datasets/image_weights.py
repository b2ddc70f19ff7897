"""--image-weights: sample images more often if they contain classes with low AP."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from utils.datasets.index import DatasetIndex


def sampling_weights(index: DatasetIndex, class_ap: Sequence[float], *, single_class: bool = False) -> np.ndarray:
    """Return the sampling weight of each image, (n,) float64, above 0, not normalized.

    The weight of a class is (1 - AP)^2 divided by its number of objects, and that of an image is the sum over its
    objects. An image without objects has the smallest weight of the others, so that it is still sampled. `class_ap`,
    AP in [0, 1] by class, is empty before the first validation. All classes count as one with `single_class` or if it
    has one value.
    """
    classes = index.labels[:, 0].astype(np.int64)
    if single_class or len(class_ap) == 1:
        classes = np.zeros_like(classes)
    ap = np.zeros(max(int(classes.max(initial=0)) + 1, len(class_ap)))
    ap[: len(class_ap)] = class_ap
    counts = np.bincount(classes, minlength=len(ap)).clip(min=1)
    class_weights = (1 - ap) ** 2 / counts + 1e-9
    sums = np.concatenate(([0.0], np.cumsum(class_weights[classes])))
    weights = sums[index.starts[1:]] - sums[index.starts[:-1]]
    with_objects = weights[index.starts[1:] > index.starts[:-1]]
    return np.maximum(weights, with_objects.min() if len(with_objects) else 1.0)
