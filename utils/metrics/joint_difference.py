"""The mean difference of two models over several data sets, on each of which both were trained and evaluated.

The data sets are fixed: the mean over these sets is estimated, each with the same weight, and the variances of their
differences add up. What to expect on other data sets of this kind is a different question, which `RandomEffects`
answers as far as few sets can. docs/statistics.md says why the former decides, and measures the coverage.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from utils.metrics.paired_difference import Difference, add_variances, interval, p_value
from utils.metrics.significance import BETTER, INCONCLUSIVE, MIN_IMAGES, SIGNIFICANCE_LEVEL, WORSE, Verdict, holm
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
class JointDifference:
    """The mean of the differences on several data sets with its 95 % interval from `low` to `high`."""

    value: float  # unweighted mean over the data sets of the model's mean minus the baseline's
    low: float  # nan, as `high` and `standard_error`, if that of a data set is unknown
    high: float
    standard_error: float
    degrees_of_freedom: float
    p_value: float  # as of `Difference`, of the mean
    num_sets: int
    num_images: int  # of the smallest data set
    covers_seeds: bool  # whether the interval includes the seed variance of every data set
    borrows_seed_variance: bool  # whether a model with one run is assumed to have that of others, on any data set
    random_effects: RandomEffects | None  # None if the variance of a difference is unknown or 0


def joint_difference(differences: Sequence[Difference]) -> JointDifference:
    """Return the mean over data sets of the differences of the same two models, one of each set, at least two.

    Runs and images of different sets are independent, so the variance is the sum of all variances over seeds and over
    images, divided by the squared number of sets; the degrees of freedom follow Welch and Satterthwaite over all of
    them. As on one set, the p-value is at least the one of the images alone.
    """
    count = len(differences)
    value = sum(difference.value for difference in differences) / count
    total, degrees = add_variances((v / count**2, d) for difference in differences for v, d in difference.components)
    of_these_runs = add_variances(
        (difference.variance_of_these_runs / count**2, max(difference.num_images - 1.0, 1.0))
        for difference in differences
    )
    low, high = interval(value, total, degrees)
    return JointDifference(
        value=value,
        low=low,
        high=high,
        standard_error=math.sqrt(total) if math.isfinite(total) else math.nan,
        degrees_of_freedom=degrees,
        p_value=max(p_value(value, total, degrees), p_value(value, *of_these_runs)),
        num_sets=count,
        num_images=min(difference.num_images for difference in differences),
        covers_seeds=all(difference.covers_seeds for difference in differences),
        borrows_seed_variance=any(difference.borrows_seed_variance for difference in differences),
        random_effects=random_effects(
            np.array([difference.value for difference in differences]),
            np.array([difference.standard_error**2 for difference in differences]),
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


def decide_jointly(differences: Sequence[JointDifference], *, fixed_weights: bool = False) -> list[Verdict]:
    """Decide on all models of a comparison with Holm's correction, by the rules for one data set.

    `fixed_weights` are compared without the seed variance. Every data set needs `MIN_IMAGES` images.
    """
    corrected = holm([difference.p_value for difference in differences])
    verdicts = []
    for difference, probability in zip(differences, corrected, strict=True):
        decidable = (difference.covers_seeds or fixed_weights) and not difference.borrows_seed_variance
        significant = probability < SIGNIFICANCE_LEVEL and difference.num_images >= MIN_IMAGES
        direction = BETTER if difference.value > 0 else WORSE
        verdicts.append(Verdict(decision=direction if decidable and significant else INCONCLUSIVE, p_value=probability))
    return verdicts


def joint_sentence(
    verdict: Verdict,
    difference: JointDifference,
    *,
    model: str,
    baseline: str,
    metric: str,
    fixed_weights: bool = False,
) -> str:
    """Return the joint verdict as text: names, metric, interval and, if inconclusive, the reason."""
    numbers = f"mean {metric} {difference.value:+.3f}"
    if math.isfinite(difference.low):
        numbers += f", 95 % interval {difference.low:+.3f} to {difference.high:+.3f}"
    if verdict.decision == INCONCLUSIVE:
        start = f"{model} compared with {baseline} over {difference.num_sets} data sets: inconclusive ({numbers})."
        return f"{start} {_reason(difference, fixed_weights=fixed_weights)}"
    scope = "" if difference.covers_seeds else ", for these weights (other seeds are unknown)"
    return f"{model} is {verdict.decision} than {baseline} over {difference.num_sets} data sets{scope}: {numbers}."


def _reason(difference: JointDifference, *, fixed_weights: bool) -> str:
    """Explain why a joint verdict is inconclusive."""
    if difference.value == 0 and difference.standard_error == 0:
        return "The values are equal."
    if difference.num_images < MIN_IMAGES:
        return f"A verdict needs at least {MIN_IMAGES} images of each data set; one has {difference.num_images}."
    if not difference.covers_seeds and not fixed_weights:
        return "One run per model does not show the seed variance; train at least three seeds on each data set."
    if difference.borrows_seed_variance:
        return "A model was trained once on a data set; a verdict needs at least three runs of each model on each."
    if not math.isfinite(difference.low):
        return "Too few resamples of the images contain the labels that the metric needs."
    start = ""
    if difference.low > 0 or difference.high < 0:
        start = "The interval excludes 0, but not clearly enough for a verdict. "
    limit = max(abs(difference.low), abs(difference.high))
    return start + f"If there is a mean difference, it is unlikely to exceed {limit:.3f} in either direction."
