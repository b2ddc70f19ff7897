"""Runs of models whose detections are labels with noise, and their scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tests.helpers.evaluations import image_evaluation
from utils.comparison.error_analysis import error_metrics
from utils.comparison.predictions import resampled_metrics
from utils.comparison.statistics import ModelScores, collect_scores
from utils.metrics.bootstrap import draw_resamples
from utils.metrics.evaluated_set import EvaluatedSet, ImageEvaluation

NAMES = ("cat", "dog", "cow")
COUNT = 24
COST = {
    "image_size": 96,
    "parameters": 1000,
    "gflops": 1.5,
    "sampling_gflops": 0.0,
    "inference_ms": 3.0,
    "inference_ms_p95": 4.0,
}


def random_images(seed: int, *, noise: float = 6.0, count: int = COUNT, num_classes: int = 3) -> list[ImageEvaluation]:
    """Return images with labels of many sizes, the same for every seed, and detections near them."""
    truth, rng = np.random.default_rng(99), np.random.default_rng(seed)
    images = []
    for image_id in range(count):
        n = int(truth.integers(1, 5))
        corner, side = truth.uniform(0, 300, (n, 2)), truth.uniform(15, 160, (n, 2))
        labels = np.concatenate((corner, corner + side), 1)
        label_classes = truth.integers(0, num_classes, n)
        boxes = np.concatenate((labels + rng.normal(0, noise, (n, 4)), rng.uniform(0, 100, (3, 4)).cumsum(1)))
        classes = np.concatenate((label_classes, rng.integers(0, num_classes, 3)))
        confidences = np.concatenate((rng.uniform(0.3, 1, n), rng.uniform(0, 0.6, 3)))
        order = np.argsort(-confidences)
        images.append(
            image_evaluation(boxes[order], confidences[order], classes[order], labels, label_classes, image_id=image_id)
        )
    return images


def random_run(seed: int, *, noise: float = 6.0, count: int = COUNT) -> EvaluatedSet:
    """Return the images of `random_images` as one set."""
    return EvaluatedSet.concatenate(random_images(seed, noise=noise, count=count))


def random_scores(label: str, seeds: Sequence[int], *, noise: float) -> ModelScores:
    """Return the scores of a model with one run for each seed, which the scores do not record."""
    weights = draw_resamples(COUNT, 200, seed=0)
    sets = [random_run(seed, noise=noise) for seed in seeds]
    runs = [resampled_metrics(one, weights, NAMES) | error_metrics(one, weights) for one in sets]
    return collect_scores(label, runs, seeds=[None] * len(runs), fixed_weights=False)
