"""The mean difference of two models over several data sets, on each of which both were trained and evaluated.

The data sets are fixed: the mean over these sets is estimated, each with the same weight, and the variances of their
differences add up. What to expect on other data sets of this kind is a different question, which `RandomEffects`
answers as far as few sets can. docs/statistics.md says why the former decides, and measures the coverage.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from utils.metrics.paired_difference import Difference, add_variances, interval, p_value
from utils.metrics.student_t import two_sided_quantile

BISECTIONS = 100


@dataclass(frozen=True, kw_only=True)
class RandomEffects:
    """How much the differences vary between data sets, and their mean over all data sets of this kind."""

    between_variance: float  # tau^2, of the true difference over data sets, after Paule and Mandel (1982)
    i_squared: float  # share of the variance between the measured differences that seeds and images do not explain
    value: float  # of the mean over data sets, which weighs a more precise difference more
    low: float  # 95 % interval after Hartung, Knapp, Sidik and Jonkman, never narrower than that without tau^2
    high: float


@dataclass(frozen=True, kw_only=True)
class JointDifference(Difference):
    """The mean of the differences on several data sets; tuples hold a value for each model on each set."""

    random_effects: RandomEffects | None  # None if the variance of a difference is unknown or 0


def joint_difference(differences: Sequence[Difference]) -> JointDifference:
    """Return the mean over data sets of the same difference or contrast on each of them, at least two.

    Runs and images of different sets are independent, so the variance is the sum of all variances over seeds and over
    images, divided by the squared number of sets; the degrees of freedom follow Welch and Satterthwaite over all of
    them. As on one set, the p-value is at least the one of the images alone. The number of images is that of the
    smallest set, and the seeds are covered if they are on every set.
    """
    count = len(differences)
    value = sum(difference.value for difference in differences) / count

    def mean_of(variances: Iterable[float]) -> tuple[float, ...]:
        """Return the variances of terms as those of the mean."""
        return tuple(variance / count**2 for variance in variances)

    components = tuple((v / count**2, degrees) for one in differences for v, degrees in one.components)
    total, degrees = add_variances(components)
    image_variances = mean_of(one.variance_of_these_runs for one in differences)
    image_degrees = (max(one.num_images - 1.0, 1.0) for one in differences)
    of_these_runs = add_variances(zip(image_variances, image_degrees, strict=True))
    low, high = interval(value, total, degrees)
    return JointDifference(
        value=value,
        low=low,
        high=high,
        standard_error=math.sqrt(total) if math.isfinite(total) else math.nan,
        degrees_of_freedom=degrees,
        p_value=max(p_value(value, total, degrees), p_value(value, *of_these_runs)),
        seed_variances=mean_of(v for one in differences for v in one.seed_variances),
        image_variance=sum(mean_of(one.image_variance for one in differences)),
        seed_by_image_variances=mean_of(v for one in differences for v in one.seed_by_image_variances),
        variance_of_these_runs=of_these_runs[0],
        components=components,
        num_images=min(one.num_images for one in differences),
        num_runs=tuple(runs for one in differences for runs in one.num_runs),
        covers_seeds=all(one.covers_seeds for one in differences),
        random_effects=random_effects(
            np.array([one.value for one in differences]), np.array([one.standard_error**2 for one in differences])
        ),
    )


def random_effects(values: np.ndarray, variances: np.ndarray) -> RandomEffects | None:
    """Return the random-effects summary of (k,) differences with known variances; None unless these are positive.

    tau^2 is the one with which the weighted squared deviations from the mean add up to their expectation k - 1. The
    variance of the mean is that of Hartung and Knapp, at least 1 / sum of weights (Roever et al. 2015), with Student's
    t of k - 1 degrees of freedom: with two or three sets the interval is wide.
    """
    count = len(values)
    if count < 2 or not (np.isfinite(variances) & (variances > 0)).all():
        return None

    def mean_and_spread(between: float) -> tuple[float, float]:
        weights = 1 / (variances + between)
        mean = float((weights * values).sum() / weights.sum())
        return mean, float((weights * (values - mean) ** 2).sum())

    spread = mean_and_spread(0.0)[1]  # Cochran's Q
    low, high = 0.0, count * float(np.var(values))  # beyond `high` all weights are smaller than needed
    for _ in range(BISECTIONS if spread > count - 1 else 0):
        middle = (low + high) / 2
        low, high = (middle, high) if mean_and_spread(middle)[1] > count - 1 else (low, middle)
    mean, remaining = mean_and_spread(low)
    variance = max(remaining / (count - 1), 1.0) / float((1 / (variances + low)).sum())
    half_width = two_sided_quantile(0.95, count - 1.0) * math.sqrt(variance)
    return RandomEffects(
        between_variance=low,
        i_squared=max(1 - (count - 1) / spread, 0.0) if spread > 0 else 0.0,
        value=mean,
        low=mean - half_width,
        high=mean + half_width,
    )
