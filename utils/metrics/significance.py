"""From intervals to words: better, worse, or cannot tell yet and what would tell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from utils.metrics.paired_difference import Difference
from utils.metrics.student_t import t_ppf

BETTER, WORSE, UNKNOWN = "better", "worse", "cannot tell yet"
# A verdict is said at 4 %: the degrees of freedom of a few seeds are themselves a guess, and their t-test errs by up to
# one in a hundred. So equal models are called better or worse in at most 5 %.
ERROR_RATE = 0.04
POWER_DEVIATION = 0.8416  # the normal deviation that leaves four chances in five of telling
MOST_SEEDS = 100
MIN_IMAGES_FOR_VERDICT = 10  # below, resamples of the images know next to nothing, and no verdict rests on them
MOST_TIMES = 1000.0  # as many images
STEP = 1.05  # how finely that number is looked for


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What can be said of a model against the baseline.

    Attributes:
        word: `better`, `worse` or `cannot tell yet`.
        p_value: of the difference, corrected for the number of comparisons.
        more_seeds: roughly how many more seeds each would tell; with `times_images`, on so many images. None when
            already told, when more than 100 would be needed, or when nothing is known about the luck of the seed.
        times_images: roughly how many times as many images would be needed, where no number of seeds would do
            without; None otherwise.
    """

    word: str
    p_value: float
    more_seeds: int | None = None
    times_images: float | None = None


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number, after Holm (1979): the chance of even one false claim stays below 5 %.

    The smallest is multiplied by their number n, the next by n - 1, and so on; none falls below the one before.
    """
    corrected = [math.nan] * len(p_values)
    highest = 0.0
    for rank, position in enumerate(sorted(range(len(p_values)), key=lambda k: p_values[k])):
        highest = max(highest, min(p_values[position] * (len(p_values) - rank), 1.0))
        corrected[position] = highest
    return corrected


def decide_all(differences: Sequence[Difference], *, finished: bool = False) -> list[Verdict]:
    """Judge all models against the baseline, with Holm's correction when they are several.

    Args:
        differences: model minus baseline, of the figure that decides.
        finished: the question is about these weights and not about how they were trained, so that an interval which
            knows nothing about the luck of the seed suffices.
    """
    corrected = holm([difference.p_value for difference in differences])
    return [
        _judge(difference, p_value, comparisons=len(differences), finished=finished)
        for difference, p_value in zip(differences, corrected, strict=True)
    ]


def _judge(difference: Difference, p_value: float, *, comparisons: int, finished: bool) -> Verdict:
    answers = (difference.knows_seeds or finished) and not difference.has_seed_variance
    if answers and p_value < ERROR_RATE and difference.images >= MIN_IMAGES_FOR_VERDICT:
        return Verdict(word=BETTER if difference.value > 0 else WORSE, p_value=p_value)
    if difference.has_seed_variance:
        return Verdict(word=UNKNOWN, p_value=p_value)
    if not difference.knows_seeds:
        return Verdict(word=UNKNOWN, p_value=p_value, times_images=_times_images(difference, comparisons=comparisons))
    more_seeds = seeds_needed(difference, comparisons=comparisons)
    if more_seeds is not None:
        return Verdict(word=UNKNOWN, p_value=p_value, more_seeds=more_seeds)
    times, seeds = images_needed(difference, comparisons=comparisons) or (None, None)
    return Verdict(word=UNKNOWN, p_value=p_value, more_seeds=seeds, times_images=times)


def seeds_needed(difference: Difference, *, comparisons: int = 1) -> int | None:
    """Return how many more seeds each would tell, with four chances in five, a difference as large as this one.

    Both questions of a verdict have to be answered: by the interval, and by the images alone for the runs at hand.

    Returns:
        Up to 100, or None when more would be needed or the luck of the seed is unknown.
    """
    if not difference.knows_seeds or not difference.standard_error > 0 or difference.value == 0:
        return None
    tell = (more for more in range(1, MOST_SEEDS + 1) if _would_tell(difference, more, comparisons=comparisons))
    return next(tell, None)


def images_needed(difference: Difference, *, comparisons: int = 1) -> tuple[float, int] | None:
    """Return how many times as many images would tell, together with how many more seeds, where seeds alone do not.

    The least number for which a hundred more seeds would do. With t times the images, what they do to the difference
    falls to 1 / t, and so does the seeds' interplay with them, which the spread over seeds holds.

    Returns:
        Below 1000 times, or None: then the luck of the seed is too great for a hundred more of each, or not known.
    """
    if not difference.knows_seeds or not difference.standard_error > 0 or difference.value == 0:
        return None
    times = STEP
    while times < MOST_TIMES:
        larger = _with_images(difference, times)
        if _would_tell(larger, MOST_SEEDS, comparisons=comparisons):
            return times, seeds_needed(larger, comparisons=comparisons) or MOST_SEEDS
        times *= STEP
    return None


def _with_images(difference: Difference, times: float) -> Difference:
    """Return what a difference would be like on so many times as many images."""
    kept = [
        max(of_seeds - interplay * (1 - 1 / times), 0.0)
        for of_seeds, interplay in zip(difference.seed_variances, difference.seed_by_image_variance, strict=True)
    ]
    first, second = difference.seed_by_image_variance
    return replace(
        difference,
        images=round(difference.images * times),
        image_variance=difference.image_variance / times,
        seed_by_image_variance=(first / times, second / times),
        seed_variances=(kept[0], kept[1]),
    )


def _would_tell(difference: Difference, more: int, *, comparisons: int) -> bool:
    """Whether so many more seeds of each would tell a difference as large as this one in four cases of five."""
    confidence = 1 - ERROR_RATE / comparisons
    of_images = difference.image_variance, max(difference.images - 1.0, 1.0)
    counts = [present + more for present in difference.seeds]
    terms = [
        *((v / count, count - 1.0) for v, count in zip(difference.seed_variances, counts, strict=True)),
        of_images,
    ]
    total = sum(term for term, _ in terms)
    spread = sum(term**2 / degrees for term, degrees in terms)
    interplay = sum(v / count for v, count in zip(difference.seed_by_image_variance, counts, strict=True))
    questions = (
        (total, total**2 / spread if spread > 0 else math.inf),
        (difference.image_variance + interplay, of_images[1]),
    )
    return all(
        abs(difference.value) >= (t_ppf(confidence, degrees) + POWER_DEVIATION) * math.sqrt(variance)
        for variance, degrees in questions
    )


def _times_images(difference: Difference, *, comparisons: int) -> float | None:
    """Return how many times as many images would tell these very runs apart; None if that cannot be said."""
    if difference.value == 0 or not difference.standard_error > 0:
        return None
    reach = t_ppf(1 - ERROR_RATE / comparisons, math.inf) + POWER_DEVIATION
    times = (reach * difference.standard_error / difference.value) ** 2
    return times if 1 < times < MOST_TIMES else None


def sentence(
    verdict: Verdict, difference: Difference, *, model: str, baseline: str, figure: str, finished: bool = False
) -> str:
    """Say a verdict in words, with the interval it rests on.

    Args:
        verdict: of the difference.
        difference: model minus baseline.
        model: its name.
        baseline: likewise.
        figure: what the difference is of.
        finished: as in `decide_all`.
    """
    numbers = f"{figure} {difference.value:+.3f}"
    if math.isfinite(difference.low):
        numbers += f", 95 % interval {difference.low:+.3f} to {difference.high:+.3f}"
    if verdict.word != UNKNOWN:
        scope = "" if difference.knows_seeds else " as far as these weights go (nothing is known of other seeds)"
        return f"{model} is {verdict.word} than {baseline}{scope}: {numbers}."
    start = f"{model} against {baseline}: cannot tell yet ({numbers}). "
    if difference.value == 0 and difference.standard_error == 0:
        return start + "Their figures are the same."
    if difference.images < MIN_IMAGES_FOR_VERDICT:
        return start + f"No verdict rests on fewer than {MIN_IMAGES_FOR_VERDICT} images; here are {difference.images}."
    if not difference.knows_seeds:
        if not finished:
            return start + "One seed each says nothing about its luck; three at least are needed (--seeds 0 1 2)."
        told = "These files cannot be told apart on these images"
        if verdict.times_images is not None:
            told += f"; about {_roughly(verdict.times_images)} times as many might do"
        return start + told + ". To compare how they were trained, train more seeds of each, and give all runs."
    if difference.has_seed_variance:
        once = " and ".join(name for name, runs in zip((model, baseline), difference.seeds, strict=True) if runs == 1)
        return start + (
            f"The interval takes it that {once}, trained once, has the luck of those trained several times; nobody "
            "knows, and three runs at least are needed."
        )
    if not math.isfinite(difference.low):
        return start + "Whatever images are left out, the difference stays the same: too few have anything to tell."
    if difference.low > 0 or difference.high < 0:
        start += "The interval leaves out 0, but not by enough for a verdict. "
    each = "seed" if verdict.more_seeds == 1 else "seeds"
    bound = f"If there is a difference, it is hardly larger than {max(abs(difference.low), abs(difference.high)):.3f}"
    if verdict.times_images is not None:
        times = _roughly(verdict.times_images)
        return start + (
            f"{MOST_SEEDS} more seeds of each would not tell a difference so small on these images; about {times} "
            f"times as many images, with {verdict.more_seeds} more {each} of each, might. {bound} either way."
        )
    if verdict.more_seeds is not None:
        return start + (
            f"If the difference is as large as it looks, about {verdict.more_seeds} more {each} of each would tell."
        )
    if difference.value == 0:
        return start + f"{bound} either way."
    return start + f"More than {MOST_SEEDS} more seeds of each would be needed to tell. {bound} either way."


def _roughly(number: float) -> str:
    """Write a number with two digits, or more if it is whole."""
    return f"{number:.1f}" if number < 10 else f"{number:.0f}"
