"""Coverage of the 95 % intervals of differences in errors (TIDE), measured on simulated detectors with boxes.

`python -m tests.studies.error_coverage` repeats the comparison of two simulated models, each time with new validation
images and new seeds, by the code that compare.py uses. It prints how often the interval of each kind of error covers
the true difference: that on 10,000 images, averaged over the distribution of seeds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from utils.cli import option, parse_options, run_script
from utils.comparison.error_analysis import error_metrics
from utils.comparison.statistics import collect_scores
from utils.log import LOGGER
from utils.metrics.bootstrap import draw_resamples
from utils.metrics.evaluated_set import EvaluatedSet
from utils.metrics.paired_difference import paired_difference
from utils.metrics.tide import error_scores

POPULATION, QUADRATURE = 10_000, 5  # images, and seeds at which the true values are taken
OBJECTS_PER_IMAGE = (3.0, 1.5, 0.8)
SEED_STD = 0.1  # of the quality
# Seeds of both models, and quality of the model minus that of the baseline.
SCENARIOS = {"equal": (3, 0.0), "different": (3, 0.5), "5 seeds": (5, 0.0), "one run each": (1, 0.0)}
World = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # of all objects: image, class, (m, 4) box, difficulty


def draw_world(images: int, rng: np.random.Generator) -> World:
    """Draw the objects of some images."""
    counts = rng.poisson(rng.gamma(2, 0.5, images)[:, None] * np.array(OBJECTS_PER_IMAGE))
    cells = np.repeat(np.arange(counts.size), counts.ravel())
    image_ids, classes = cells // len(OBJECTS_PER_IMAGE), cells % len(OBJECTS_PER_IMAGE)
    centre, size = rng.uniform((0, 0), (640, 480), (len(cells), 2)), rng.uniform(30, 140, (len(cells), 2))
    difficulty = rng.normal(0, 1, len(cells)) + rng.normal(0, 0.5, images)[image_ids]
    return image_ids, classes, np.concatenate((centre - size / 2, centre + size / 2), 1), difficulty


def detect(world: World, images: int, quality: float, rng: np.random.Generator) -> EvaluatedSet:
    """Return the detections of a run: every kind of error occurs, less often with a higher quality."""
    label_images, label_classes, label_boxes, difficulty = world
    objects = np.concatenate((np.arange(len(difficulty)), np.flatnonzero(rng.random(len(difficulty)) < 0.15)))
    ease = quality - difficulty[objects] + rng.normal(0, 0.5, len(objects))
    seen = rng.random(len(objects)) < 1 / (1 + np.exp(-1.5 - 1.2 * ease))
    objects, ease = objects[seen], ease[seen]
    size = np.tile(label_boxes[objects, 2:] - label_boxes[objects, :2], 2)
    boxes = label_boxes[objects] + size * rng.normal(0, 0.1, size.shape) * np.exp(-0.4 * ease)[:, None]
    confused = rng.random(len(objects)) < 1 / (1 + np.exp(2.5 + ease))
    classes = np.where(confused, rng.integers(0, 3, len(objects)), label_classes[objects])
    false = int(rng.poisson(2.0 * np.exp(-0.3 * quality) * images))
    centre, half = rng.uniform((0, 0), (640, 480), (false, 2)), rng.uniform(15, 70, (false, 2))
    boxes = np.concatenate((boxes, np.concatenate((centre - half, centre + half), 1)))
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    classes = np.concatenate((classes, rng.integers(0, 3, false)))
    image_ids = np.concatenate((label_images[objects], rng.integers(0, images, false)))
    logits = np.concatenate((0.5 + 0.8 * ease + rng.normal(0, 0.6, len(ease)), rng.normal(-1, 0.8, false)))
    order = np.lexsort((-logits, image_ids))
    return EvaluatedSet(
        num_images=images,
        image_ids=image_ids[order],
        boxes=boxes[order],
        confidences=1 / (1 + np.exp(-logits[order])),
        classes=classes[order],
        tp=np.zeros((len(order), 10), bool),
        claimed_areas=np.zeros(len(order)),
        label_image_ids=label_images,
        label_classes=label_classes,
        label_boxes=label_boxes,
    )


def true_scores(quality: float, *, images: int = POPULATION) -> dict[str, float]:
    """Return the expected scores of a model's runs, by Gauss-Hermite quadrature over seeds."""
    world = draw_world(images, np.random.default_rng(1))
    nodes, weights = np.polynomial.hermite_e.hermegauss(QUADRATURE)
    parts = [error_scores(detect(world, images, quality + SEED_STD * z, np.random.default_rng(2))) for z in nodes]
    return {name: float(np.average([p[name][0] for p in parts], weights=weights)) for name in parts[0]}


def covered(images: int, seeds: int, gain: float, truth: dict[str, float], *, resamples: int, trial: int) -> np.ndarray:
    """Return whether the interval of each score covers its true difference, in one comparison."""
    rng = np.random.default_rng([trial, images, seeds])
    world, weights = draw_world(images, rng), draw_resamples(images, resamples, seed=trial)
    # With one run each the interval is about these weights, whose seeds are taken as equal to the mean.
    spread = SEED_STD if seeds > 1 else 0.0
    models = []
    for quality in (gain, 0.0):
        runs = [
            error_metrics(detect(world, images, quality + spread * rng.standard_normal(), rng), weights)
            for _ in range(seeds)
        ]
        models.append(collect_scores("", runs, seeds=range(seeds), fixed_weights=False).metrics.values())
    pairs = zip(truth.values(), *models, strict=True)
    differences = [(value, paired_difference(*scores, num_images=images)) for value, *scores in pairs]
    return np.array([difference.low <= value <= difference.high for value, difference in differences])


@dataclass(frozen=True)
class SimulationOptions:
    """Options of the simulation."""

    trials: int = option(400, "comparisons in each scenario")
    images: int = option(80, "validation images")
    resamples: int = option(200, "bootstrap resamples")


def main() -> None:
    """Print a table of all scenarios."""
    options, _ = parse_options(SimulationOptions, None, description=__doc__ or "")
    baseline = true_scores(0.0)
    LOGGER.info(f"| scenario | {' | '.join(baseline)} |")
    for name, (seeds, gain) in SCENARIOS.items():
        truth = {key: value - baseline[key] for key, value in true_scores(gain).items()}
        hits = [
            covered(options.images, seeds, gain, truth, resamples=options.resamples, trial=trial)
            for trial in range(options.trials)
        ]
        LOGGER.info(f"| {name} | {' | '.join(f'{100 * rate:.1f}%' for rate in np.mean(hits, 0))} |")


if __name__ == "__main__":
    run_script(main)
