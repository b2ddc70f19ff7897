"""Decide on differences: better, worse, or inconclusive and what would make them significant."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from utils.metrics.paired_difference import Difference, add_variances
from utils.metrics.student_t import two_sided_quantile

BETTER, WORSE, INCONCLUSIVE = "better", "worse", "inconclusive"
# With few seeds the degrees of freedom are an estimate, and the t-test's error rate exceeds its level by up to 1 %. At
# a level of 4 % equal models are called better or worse in at most 5 % of comparisons.
SIGNIFICANCE_LEVEL = 0.04
MARK_LEVELS = (0.05, 0.01, 0.001)  # of one to three asterisks
MARK_LEGEND = ", ".join(f"{'*' * count} p < {level:g}" for count, level in enumerate(MARK_LEVELS, 1))
POWER_Z = 0.8416  # normal quantile of 80 % power
MAX_EXTRA_SEEDS = 100
MIN_IMAGES = 10  # below, resamples of the images carry too little information for a verdict
MAX_IMAGES_FACTOR = 1000.0
IMAGES_FACTOR_STEP = 1.05  # resolution of the search


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Decision on a model compared with the baseline and, if inconclusive, about what would make it significant."""

    decision: str  # `BETTER`, `WORSE` or `INCONCLUSIVE`
    p_value: float  # corrected for the number of comparisons
    # more seeds per model; None if more than `MAX_EXTRA_SEEDS`, or if the seed variance is unknown
    extra_seeds: int | None = None
    # times as many images, together with `extra_seeds`; None if seeds alone suffice
    images_factor: float | None = None
    # smallest difference that these runs and images would have found with 80 % power; None if a variance is unknown
    detectable: float | None = None


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for multiple comparisons after Holm (1979), which bounds the family-wise error rate.

    The smallest is multiplied by their number n, the next by n - 1, and so on; none falls below the one before.
    """
    corrected = [math.nan] * len(p_values)
    highest = 0.0
    for rank, position in enumerate(sorted(range(len(p_values)), key=lambda k: p_values[k])):
        highest = max(highest, min(p_values[position] * (len(p_values) - rank), 1.0))
        corrected[position] = highest
    return corrected


def significance_mark(difference: Difference, p_value: float, *, fixed_weights: bool = False) -> str:
    """Return * for p < 0.05, ** for p < 0.01, *** for p < 0.001, "" else and where no verdict is possible."""
    if not _decidable(difference, fixed_weights=fixed_weights):
        return ""
    return "*" * sum(p_value < level for level in MARK_LEVELS)


def decide_all(differences: Sequence[Difference], *, fixed_weights: bool = False) -> list[Verdict]:
    """Decide on all models of a comparison, with Holm's correction.

    Args:
        differences: model minus baseline, of the deciding metric.
        fixed_weights: compare these weights rather than the ways they were trained, so that an interval without the
            seed variance suffices.
    """
    corrected = holm([difference.p_value for difference in differences])
    return [
        _decide(difference, p_value, comparisons=len(differences), fixed_weights=fixed_weights)
        for difference, p_value in zip(differences, corrected, strict=True)
    ]


def _decidable(difference: Difference, *, fixed_weights: bool) -> bool:
    """Whether the seed variance of both models is known, as far as it matters, and there are enough images."""
    known = (difference.covers_seeds or fixed_weights) and not difference.borrows_seed_variance
    return known and difference.num_images >= MIN_IMAGES


def _decide(difference: Difference, p_value: float, *, comparisons: int, fixed_weights: bool) -> Verdict:
    if _decidable(difference, fixed_weights=fixed_weights) and p_value < SIGNIFICANCE_LEVEL:
        return Verdict(decision=BETTER if difference.value > 0 else WORSE, p_value=p_value)
    inconclusive = Verdict(decision=INCONCLUSIVE, p_value=p_value)
    if difference.borrows_seed_variance:
        return inconclusive
    if not difference.covers_seeds:
        return replace(inconclusive, images_factor=_images_factor(difference, comparisons=comparisons))
    inconclusive = replace(inconclusive, detectable=detectable_difference(difference, comparisons=comparisons))
    extra_seeds = seeds_needed(difference, comparisons=comparisons)
    if extra_seeds is not None:
        return replace(inconclusive, extra_seeds=extra_seeds)
    factor, seeds = images_needed(difference, comparisons=comparisons) or (None, None)
    return replace(inconclusive, extra_seeds=seeds, images_factor=factor)


def seeds_needed(difference: Difference, *, comparisons: int = 1) -> int | None:
    """Return how many more seeds per model would make a difference of this size significant with 80 % power.

    None if more than `MAX_EXTRA_SEEDS` are needed or the seed variance is unknown.
    """
    counts = range(1, MAX_EXTRA_SEEDS + 1)
    return next((n for n in counts if _would_be_significant(difference, n, comparisons=comparisons)), None)


def images_needed(difference: Difference, *, comparisons: int = 1) -> tuple[float, int] | None:
    """Return how many times as many images, and how many more seeds, are needed if seeds alone do not suffice.

    The factor is the smallest with which `MAX_EXTRA_SEEDS` suffice. None if it exceeds `MAX_IMAGES_FACTOR`, as with a
    large seed variance, or if that variance is unknown.
    """
    factor = IMAGES_FACTOR_STEP
    while factor < MAX_IMAGES_FACTOR:
        larger = _with_images(difference, factor)
        if _would_be_significant(larger, MAX_EXTRA_SEEDS, comparisons=comparisons):
            return factor, seeds_needed(larger, comparisons=comparisons) or MAX_EXTRA_SEEDS
        factor *= IMAGES_FACTOR_STEP
    return None


def _with_images(difference: Difference, factor: float) -> Difference:
    """Return the difference as expected on `factor` times as many images: their variance and interaction shrink."""
    seed_variances = [
        max(variance - interaction * (1 - 1 / factor), 0.0)
        for variance, interaction in zip(difference.seed_variances, difference.seed_by_image_variances, strict=True)
    ]
    return replace(
        difference,
        num_images=round(difference.num_images * factor),
        image_variance=difference.image_variance / factor,
        seed_by_image_variances=tuple(variance / factor for variance in difference.seed_by_image_variances),
        seed_variances=tuple(seed_variances),
    )


def _would_be_significant(difference: Difference, extra_seeds: int, *, comparisons: int) -> bool:
    if difference.value == 0:
        return False
    smallest = detectable_difference(difference, extra_seeds=extra_seeds, comparisons=comparisons)
    return smallest is not None and abs(difference.value) >= smallest


def detectable_difference(difference: Difference, *, extra_seeds: int = 0, comparisons: int = 1) -> float | None:
    """Return the smallest difference that passes both tests (of seeds and images, of images alone) with 80 % power.

    Args:
        difference: measured, of which the variances are used and not the value.
        extra_seeds: more runs of each model than were measured.
        comparisons: whose p-values Holm's method corrects; all of them is the worst case.

    Returns:
        A difference above 0, or None if a variance is unknown or all are 0.
    """
    if not difference.covers_seeds or not difference.standard_error > 0:
        return None
    confidence = 1 - SIGNIFICANCE_LEVEL / comparisons
    image_degrees = max(difference.num_images - 1.0, 1.0)
    counts = [present + extra_seeds for present in difference.num_runs]
    terms = [
        *((v / count, count - 1.0) for v, count in zip(difference.seed_variances, counts, strict=True)),
        (difference.image_variance, image_degrees),
    ]
    interaction = sum(v / count for v, count in zip(difference.seed_by_image_variances, counts, strict=True))
    tests = (
        add_variances(terms),
        (difference.image_variance + interaction, image_degrees),
    )
    return max((two_sided_quantile(confidence, degrees) + POWER_Z) * math.sqrt(variance) for variance, degrees in tests)


def _images_factor(difference: Difference, *, comparisons: int) -> float | None:
    """Return how many times as many images would separate these weights; None if that cannot be estimated."""
    if difference.value == 0 or not difference.standard_error > 0:
        return None
    quantile = two_sided_quantile(1 - SIGNIFICANCE_LEVEL / comparisons, math.inf) + POWER_Z
    factor = (quantile * difference.standard_error / difference.value) ** 2
    return factor if 1 < factor < MAX_IMAGES_FACTOR else None


def sentence(
    verdict: Verdict,
    difference: Difference,
    *,
    model: str,
    baseline: str,
    metric: str,
    where: str = "",
    fixed_weights: bool = False,
) -> str:
    """Return the verdict as text: names, metric, `where` both are compared, interval and, if inconclusive, why."""
    numbers = f"{metric} {difference.value:+.3f}"
    if math.isfinite(difference.low):
        numbers += f", 95 % interval {difference.low:+.3f} to {difference.high:+.3f}"
    if verdict.decision == INCONCLUSIVE:
        reason = _reason(verdict, difference, names=(model, baseline), fixed_weights=fixed_weights)
        return f"{model} compared with {baseline}{where}: inconclusive ({numbers}). {reason}"
    scope = "" if difference.covers_seeds else " for these weights (other seeds are unknown)"
    return f"{model} is {verdict.decision} than {baseline}{where}{scope}: {numbers}."


def _reason(verdict: Verdict, difference: Difference, *, names: tuple[str, str], fixed_weights: bool) -> str:
    """Explain why a verdict is inconclusive and what would change that."""
    if difference.value == 0 and difference.standard_error == 0:
        return "The values are equal."
    if difference.num_images < MIN_IMAGES:
        return f"A verdict needs at least {MIN_IMAGES} images of a data set, not {difference.num_images}."
    if not difference.covers_seeds:
        if not fixed_weights:
            return "One run per model does not show the seed variance; train at least three seeds (--seeds 0 1 2)."
        reason = "The difference of these weights is not significant on these images"
        if verdict.images_factor is not None:
            reason += f"; about {_round_for_display(verdict.images_factor)} times as many might suffice"
        return reason + ". To compare how they were trained, train more seeds of each and pass all runs."
    if difference.borrows_seed_variance:
        runs = zip(
            itertools.cycle(names), difference.num_runs, strict=False
        )  # a joint difference has those of each set
        single = " and ".join(dict.fromkeys(name for name, count in runs if count == 1))
        return (
            f"The interval assumes that {single}, trained once, has the seed variance of the models trained several "
            "times; a verdict needs at least three runs of each."
        )
    if not math.isfinite(difference.low):
        return "Too few resamples of the images contain the labels that the metric needs."
    excludes_zero = difference.low > 0 or difference.high < 0
    start = "The interval excludes 0, but not clearly enough for a verdict. " if excludes_zero else ""
    found = ""
    if verdict.detectable is not None:
        found = f" These runs and images would reveal a difference of {verdict.detectable:.3f} with 80 % probability."
    seeds = f"{verdict.extra_seeds} more {'seed' if verdict.extra_seeds == 1 else 'seeds'} per model"
    if verdict.extra_seeds is not None and verdict.images_factor is None:
        return start + f"A difference of this size would need about {seeds} to be significant." + found
    limit = max(abs(difference.low), abs(difference.high))
    bound = f"If there is a difference, it is unlikely to exceed {limit:.3f} in either direction."
    if verdict.images_factor is not None:
        factor = _round_for_display(verdict.images_factor)
        return start + (
            f"{MAX_EXTRA_SEEDS} more seeds per model would not make a difference of this size significant on these "
            f"images; about {factor} times as many images with {seeds} might. {bound}{found}"
        )
    if difference.value == 0:
        return start + bound + found
    return start + f"More than {MAX_EXTRA_SEEDS} more seeds per model would be needed. {bound}{found}"


def _round_for_display(value: float) -> str:
    """Format with two digits, or as an integer from 10."""
    return f"{value:.1f}" if value < 10 else f"{value:.0f}"
