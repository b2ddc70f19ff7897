"""Detectors of known quality on images that exist as numbers only: what a trial of statistics needs.

No boxes are drawn. A world of images and objects has difficulties that all detectors share; a training run adds the
luck of its seed, and its own likes and dislikes of images and objects. From these come overlaps, confidences, and
false alarms, and hence a `EvaluatedSet` as a real validation would give.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tests.helpers.evaluations import evaluated_set
from utils.metrics.bootstrap import resample_ap
from utils.metrics.evaluated_set import EvaluatedSet
from utils.metrics.matching import IOU_THRESHOLDS

OBJECTS_PER_IMAGE = (2.0, 1.0, 0.4)  # of each class; the last is rare
CROWDING = 2.0  # shape of the gamma distribution of how full images are: less is more uneven
IMAGE_DIFFICULTY, OBJECT_DIFFICULTY = 0.6, 1.0
RUN_BY_IMAGE, RUN_BY_OBJECT = 0.3, 0.7
FALSE_ALARMS = 1.5  # per image and class
POPULATION = 20_000
QUADRATURE = 9
REACH = 4.6  # standard deviations of luck that the population's curve covers


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A way of training. All in logits.

    Attributes:
        quality: how good its runs are in the mean.
        seed_std: how much they differ by their seed.
        taste: how much the recipe likes some images and objects better than others, whatever the seed.
    """

    quality: float
    seed_std: float
    taste: float = 0.3


@dataclass(frozen=True, kw_only=True)
class World:
    """Images and objects with their difficulties.

    Attributes:
        image_difficulty: (i,).
        object_images: (m,) rising.
        object_classes: (m,).
        object_difficulty: (m,).
    """

    image_difficulty: np.ndarray
    object_images: np.ndarray
    object_classes: np.ndarray
    object_difficulty: np.ndarray


def draw_world(images: int, generator: np.random.Generator) -> World:
    """Draw images: some are full and some empty, some hard and some easy."""
    fullness = generator.gamma(CROWDING, 1 / CROWDING, images)
    counts = generator.poisson(fullness[:, None] * np.array(OBJECTS_PER_IMAGE))  # (i, c)
    cells = np.repeat(np.arange(counts.size), counts.ravel())
    return World(
        image_difficulty=generator.normal(0, IMAGE_DIFFICULTY, images),
        object_images=cells // len(OBJECTS_PER_IMAGE),
        object_classes=cells % len(OBJECTS_PER_IMAGE),
        object_difficulty=generator.normal(0, OBJECT_DIFFICULTY, len(cells)),
    )


def add_image_interaction(world: World, recipe: Recipe, generator: np.random.Generator) -> World:
    """Return the world as a recipe finds it: some images and objects easier, others harder, for all its runs."""
    return replace(
        world,
        image_difficulty=world.image_difficulty + recipe.taste * generator.standard_normal(len(world.image_difficulty)),
        object_difficulty=world.object_difficulty
        + recipe.taste * generator.standard_normal(len(world.object_difficulty)),
    )


def detect(world: World, quality: float, generator: np.random.Generator) -> EvaluatedSet:
    """Let one trained run of the given quality look at a world."""
    images, objects = len(world.image_difficulty), len(world.object_images)
    ease = quality - world.image_difficulty + generator.normal(0, RUN_BY_IMAGE, images)
    clarity = ease[world.object_images] - world.object_difficulty + generator.normal(0, RUN_BY_OBJECT, objects)
    overlap = _logistic(1.2 + 0.7 * clarity + generator.normal(0, 0.4, objects))
    alarms = generator.poisson(FALSE_ALARMS * np.exp(-0.3 * ease)[:, None], (images, len(OBJECTS_PER_IMAGE)))
    cells = np.repeat(np.arange(alarms.size), alarms.ravel())
    where = np.concatenate((world.object_images, cells // len(OBJECTS_PER_IMAGE)))
    confidence = np.concatenate((clarity + generator.normal(0, 1, objects), generator.normal(-1.5, 1.2, len(cells))))
    order = np.lexsort((-confidence, where))
    correct = np.zeros((len(where), len(IOU_THRESHOLDS)), bool)
    correct[:objects] = overlap[:, None] >= IOU_THRESHOLDS
    return evaluated_set(
        correct[order],
        _logistic(confidence[order]),
        np.concatenate((world.object_classes, cells % len(OBJECTS_PER_IMAGE)))[order],
        world.object_classes,
        num_images=images,
        image_ids=where[order],
        label_image_ids=world.object_images,
    )


class Population:
    """The truth about a recipe: the mAP of its runs over very many images, as a function of a run's quality."""

    def __init__(self, recipe: Recipe, *, points: int = 13, seed: int = 0) -> None:
        """Judge runs of all the qualities a recipe may bring on one large world; between them, interpolated."""
        reach = REACH * recipe.seed_std
        low, high = recipe.quality - reach, recipe.quality + reach
        self.recipe = recipe
        world = add_image_interaction(
            draw_world(POPULATION, np.random.default_rng(seed)), recipe, np.random.default_rng(seed + 2)
        )
        self.qualities = np.linspace(low, high, points)
        ones = np.ones((1, POPULATION), np.int32)
        judged = [resample_ap(detect(world, q, np.random.default_rng(seed + 1)), ones) for q in self.qualities]
        self.map50 = np.array([float(result.mean(0)[0]) for result in judged])
        self.map50_95 = np.array([float(result.mean()[0]) for result in judged])

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
