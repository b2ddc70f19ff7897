"""Contrasts of models, such as the difference of two, each trained with one or several seeds, on the same images.

Two sources of variance separate a measured difference from the true one: the choice of validation images and the
seeds of the trainings. docs/statistics.md derives the interval and measures its coverage.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from utils.metrics.student_t import two_sided_p_value, two_sided_quantile

CONFIDENCE_LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class Scores:
    """One metric (mAP, or the AP of a class) of all runs of one model."""

    points: np.ndarray  # (s,) on the validation set itself, one per run
    # (s, r) on r resamples of its images, the same for all runs of a comparison; nan where undefined
    resampled: np.ndarray

    @property
    def num_runs(self) -> int:
        """Runs, each with a seed of its own."""
        return len(self.points)

    @property
    def seed_variance(self) -> float:
        """Sample variance of the metric over runs; nan with one run."""
        return float(np.var(self.points, ddof=1)) if self.num_runs > 1 else math.nan


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A weighted sum of models' means, usually model minus baseline, with its 95 % interval from `low` to `high`.

    Tuples hold one value for each model, variances times the square of its weight, which is 1 in a difference.
    """

    value: float  # the model's mean minus the baseline's
    low: float  # nan, as `high` and `standard_error`, if the image variance is unknown, as with one image
    high: float
    standard_error: float
    degrees_of_freedom: float
    # probability of a difference at least as large between equal models, under other seeds and images or under other
    # images alone, whichever is greater
    p_value: float
    seed_variances: tuple[float, ...]  # of one run over seeds; nan if no model has two runs
    image_variance: float  # of the value over images, the part common to all seeds of a model
    # of one run over images, the part that differs between seeds (the interaction); `seed_variances` include it
    seed_by_image_variances: tuple[float, ...]
    # of the value over images for these runs: with their interactions, which `image_variance` excludes
    variance_of_these_runs: float
    # independent estimates that add up to the squared standard error, each with its degrees of freedom
    components: tuple[tuple[float, float], ...]
    num_images: int
    num_runs: tuple[int, ...]
    covers_seeds: bool  # whether the interval includes the seed variance; otherwise it holds for these weights only

    @property
    def borrows_seed_variance(self) -> bool:
        """Whether a model with one run is assumed to have the seed variance of models with several."""
        return self.covers_seeds and min(self.num_runs) == 1


def paired_difference(
    model: Scores, baseline: Scores, *, num_images: int, variance_donors: Sequence[Scores] = ()
) -> Difference:
    """Return model minus baseline, both on the same resamples, as the `contrast` with the weights 1 and -1."""
    return contrast([model, baseline], [1.0, -1.0], num_images=num_images, variance_donors=variance_donors)


def contrast(
    models: Sequence[Scores], weights: Sequence[float], *, num_images: int, variance_donors: Sequence[Scores] = ()
) -> Difference:
    """Return the weighted sum of the models' means with a 95 % interval over other images and other seeds.

    The variance is the sum of w^2 s^2 / S over the models, plus c: s^2 are the seed variances, measured on these images
    and so including the seed-by-image interaction, c the variance of the sum over resampled images that all seeds of a
    model have in common. The degrees of freedom of Student's t follow Welch and Satterthwaite. A few seeds may agree by
    chance, so the p-value is at least the one that the resampled images alone give for these runs.

    Args:
        models: their scores, on the same resamples.
        weights: one for each model, with the sum 0.
        num_images: in the validation set.
        variance_donors: models of the comparison. A model with one run is assigned the mean seed variance of those
            with several; if none has several, the interval covers images only.
    """
    value = float(sum(weight * scores.points.mean() for scores, weight in zip(models, weights, strict=True)))
    common, of_these_runs, interactions = _image_variance(models, weights, num_images=num_images)
    sources = [_seed_variance_sources(scores, variance_donors) for scores in models]
    covers_seeds = all(sources)
    seed_variances = [
        weight**2 * sum(part * donor.seed_variance for donor, part in donors) if donors else math.nan
        for donors, weight in zip(sources, weights, strict=True)
    ]
    # A donor may serve several models: its terms are one estimate, added before degrees of freedom are taken.
    terms: dict[int, tuple[float, float]] = {}
    for scores, weight, donors in zip(models, weights, sources, strict=True):
        for donor, part in donors:
            before = terms.get(id(donor), (0.0, 0.0))[0]
            term = weight**2 * part * donor.seed_variance / scores.num_runs
            terms[id(donor)] = before + term, donor.num_runs - 1.0
    if num_images < 2 or (value != 0 and of_these_runs == 0 and not covers_seeds):  # no source of variance is known
        common = of_these_runs = math.nan
    components = (*terms.values(), (common if covers_seeds else of_these_runs, max(num_images - 1.0, 1.0)))
    total, degrees = add_variances(components)
    low, high = interval(value, total, degrees)
    return Difference(
        value=value,
        low=low,
        high=high,
        standard_error=math.sqrt(total) if math.isfinite(total) else math.nan,
        degrees_of_freedom=degrees,
        p_value=max(p_value(value, total, degrees), p_value(value, of_these_runs, max(num_images - 1.0, 1.0))),
        seed_variances=tuple(seed_variances),
        image_variance=common,
        seed_by_image_variances=interactions,
        variance_of_these_runs=of_these_runs,
        components=components,
        num_images=num_images,
        num_runs=tuple(scores.num_runs for scores in models),
        covers_seeds=covers_seeds,
    )


def _seed_variance_sources(model: Scores, variance_donors: Sequence[Scores]) -> list[tuple[Scores, float]]:
    """Return the scores whose weighted seed variances estimate the model's, with the weights; empty if unknown."""
    several = [model] if model.num_runs > 1 else [donor for donor in variance_donors if donor.num_runs > 1]
    degrees = sum(donor.num_runs - 1 for donor in several)
    return [(donor, (donor.num_runs - 1) / degrees) for donor in several]


def add_variances(components: Iterable[tuple[float, float]]) -> tuple[float, float]:
    """Return the sum of independent variance estimates, given with their degrees of freedom, and its own.

    Those are after Welch and Satterthwaite; infinite if all variances are 0 or one is unknown.
    """
    known = tuple(components)
    total = sum(variance for variance, _ in known)
    spread = sum(variance**2 / degrees for variance, degrees in known)
    return total, total**2 / spread if spread > 0 else math.inf


def interval(value: float, variance: float, degrees: float) -> tuple[float, float]:
    """Return the ends of the 95 % interval; nan if the variance is unknown."""
    if not math.isfinite(variance):
        return math.nan, math.nan
    half_width = two_sided_quantile(CONFIDENCE_LEVEL, degrees) * math.sqrt(variance)
    return value - half_width, value + half_width


def p_value(value: float, variance: float, degrees: float) -> float:
    """Return the probability of a value at least as large if the true one is 0; 1 if the variance is unknown."""
    if variance > 0:
        return two_sided_p_value(value / math.sqrt(variance), degrees)
    return 0.0 if value and variance == 0 else 1.0


def _image_variance(
    models: Sequence[Scores], weights: Sequence[float], *, num_images: int
) -> tuple[float, float, tuple[float, ...]]:
    """Return the variance of a contrast over images.

    The variance of the resampled contrast includes, for each model, the interaction w^2 (V - C) / S: V is the variance
    of one run, C the covariance of two runs of the model. The seed variance includes it too, so it is subtracted here;
    counted twice it would make the interval too wide.

    Returns:
        The variance without the interactions, at least 0; with them; and w^2 (V - C) of each model, 0 with one run. All
        nan if fewer than two resamples have the metric.
    """
    defined = np.logical_and.reduce([np.isfinite(scores.resampled).all(0) for scores in models])
    if defined.sum() < 2:
        return math.nan, math.nan, (math.nan,) * len(models)
    resampled = [scores.resampled[:, defined] for scores in models]
    correction = num_images / max(num_images - 1, 1)  # a bootstrap variance is (n - 1) / n of that of other images
    values = sum(weight * runs.mean(0) for runs, weight in zip(resampled, weights, strict=True))
    variance = correction * float(np.var(values, ddof=1))
    interactions = tuple(
        weight**2 * correction * float(np.var(runs - runs.mean(0), axis=1, ddof=1).sum()) / (len(runs) - 1)
        if len(runs) > 1
        else 0.0
        for runs, weight in zip(resampled, weights, strict=True)
    )
    interaction = sum(term / len(runs) for term, runs in zip(interactions, resampled, strict=True))
    return max(variance - interaction, 0.0), variance, interactions
