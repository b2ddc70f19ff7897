"""Simulated detectors of known quality: evaluated sets drawn from random numbers instead of images.

A world of images and objects has difficulties that all detectors share. A training run adds its seed variance and its
own interaction with images and objects. IoUs, confidences and false positives follow from these, and hence an
`EvaluatedSet` as a real evaluation returns.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tests.helpers.evaluations import evaluated_set
from utils.metrics.bootstrap import resample_ap
from utils.metrics.evaluated_set import EvaluatedSet
from utils.metrics.matching import IOU_THRESHOLDS

OBJECTS_PER_IMAGE = (2.0, 1.0, 0.4)  # of each class; the last one is rare
CROWDING = 2.0  # shape of the gamma distribution of objects per image; a smaller shape is more uneven
IMAGE_DIFFICULTY, OBJECT_DIFFICULTY = 0.6, 1.0  # standard deviations in logits, as the next two
RUN_BY_IMAGE, RUN_BY_OBJECT = 0.3, 0.7
FALSE_POSITIVES = 1.5  # per image and class
POPULATION = 20_000  # images
QUADRATURE = 9  # points
RANGE = 4.6  # seed standard deviations on either side that the population's curve covers


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A way of training; all values in logits.

    Attributes:
        quality: mean quality of its runs.
        seed_std: standard deviation of the quality over seeds.
        interaction_std: of the recipe with images and objects, the same for all its runs.
    """

    quality: float
    seed_std: float
    interaction_std: float = 0.3


@dataclass(frozen=True, kw_only=True)
class World:
    """Images and objects with their difficulties.

    Attributes:
        image_difficulty: (i,).
        object_images: (m,) ascending.
        object_classes: (m,).
        object_difficulty: (m,).
    """

    image_difficulty: np.ndarray
    object_images: np.ndarray
    object_classes: np.ndarray
    object_difficulty: np.ndarray


def draw_world(images: int, generator: np.random.Generator) -> World:
    """Draw images with many or few objects, hard or easy."""
    crowding = generator.gamma(CROWDING, 1 / CROWDING, images)
    counts = generator.poisson(crowding[:, None] * np.array(OBJECTS_PER_IMAGE))  # (i, c)
    cells = np.repeat(np.arange(counts.size), counts.ravel())
    return World(
        image_difficulty=generator.normal(0, IMAGE_DIFFICULTY, images),
        object_images=cells // len(OBJECTS_PER_IMAGE),
        object_classes=cells % len(OBJECTS_PER_IMAGE),
        object_difficulty=generator.normal(0, OBJECT_DIFFICULTY, len(cells)),
    )


def add_image_interaction(world: World, recipe: Recipe, generator: np.random.Generator) -> World:
    """Return the world with the difficulties that a recipe meets: its interaction is added, for all its runs."""
    std, images, objects = recipe.interaction_std, world.image_difficulty, world.object_difficulty
    return replace(
        world,
        image_difficulty=images + std * generator.standard_normal(len(images)),
        object_difficulty=objects + std * generator.standard_normal(len(objects)),
    )


def detect(world: World, quality: float, generator: np.random.Generator) -> EvaluatedSet:
    """Return the detections of one run of the given quality."""
    images, objects, classes = len(world.image_difficulty), len(world.object_images), len(OBJECTS_PER_IMAGE)
    ease = quality - world.image_difficulty + generator.normal(0, RUN_BY_IMAGE, images)
    logit = ease[world.object_images] - world.object_difficulty + generator.normal(0, RUN_BY_OBJECT, objects)
    iou = _logistic(1.2 + 0.7 * logit + generator.normal(0, 0.4, objects))
    false_positives = generator.poisson(FALSE_POSITIVES * np.exp(-0.3 * ease)[:, None], (images, classes))
    cells = np.repeat(np.arange(false_positives.size), false_positives.ravel())
    image_ids = np.concatenate((world.object_images, cells // classes))
    confidence = np.concatenate((logit + generator.normal(0, 1, objects), generator.normal(-1.5, 1.2, len(cells))))
    order = np.lexsort((-confidence, image_ids))
    tp = np.zeros((len(image_ids), len(IOU_THRESHOLDS)), bool)
    tp[:objects] = iou[:, None] >= IOU_THRESHOLDS
    return evaluated_set(
        tp[order],
        _logistic(confidence[order]),
        np.concatenate((world.object_classes, cells % classes))[order],
        world.object_classes,
        num_images=images,
        image_ids=image_ids[order],
        label_image_ids=world.object_images,
    )


class Population:
    """The true mAP of a recipe's runs over very many images, as a function of a run's quality."""

    def __init__(self, recipe: Recipe, *, points: int = 13, seed: int = 0) -> None:
        """Evaluate runs over the range of the recipe's qualities in one large world, to interpolate between them."""
        half = RANGE * recipe.seed_std
        self.recipe = recipe
        self.qualities = np.linspace(recipe.quality - half, recipe.quality + half, points)
        plain = draw_world(POPULATION, np.random.default_rng(seed))
        world = add_image_interaction(plain, recipe, np.random.default_rng(seed + 2))
        ones = np.ones((1, POPULATION), np.int32)
        results = [resample_ap(detect(world, q, np.random.default_rng(seed + 1)), ones) for q in self.qualities]
        self.map50 = np.array([float(result.mean(0)[0]) for result in results])
        self.map50_95 = np.array([float(result.mean()[0]) for result in results])

    def of_run(self, quality: float) -> tuple[float, float]:
        """Return the mAP50 and mAP50-95 of a run."""
        return (
            float(np.interp(quality, self.qualities, self.map50)),
            float(np.interp(quality, self.qualities, self.map50_95)),
        )

    def of_recipe(self) -> tuple[float, float]:
        """Return the mean mAP50 and mAP50-95 over all seeds."""
        recipe = self.recipe
        points, weights = np.polynomial.hermite_e.hermegauss(QUADRATURE)
        runs = np.array([self.of_run(recipe.quality + recipe.seed_std * point) for point in points])
        map50, map50_95 = (weights / weights.sum()) @ runs
        return float(map50), float(map50_95)


def _logistic(value: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-value))
