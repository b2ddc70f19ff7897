"""From intervals to words: better, worse, or cannot tell yet and what would tell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from utils.metrics.paired_difference import CONFIDENCE, Difference
from utils.metrics.student import deviation_of

BETTER, WORSE, UNKNOWN = "better", "worse", "cannot tell yet"
# A verdict is said at 4 %: the degrees of freedom of a few seeds are themselves a guess, and their t-test errs by up to
# one in a hundred. So equal models are called better or worse in at most 5 %.
ERROR_RATE = 0.04
POWER_DEVIATION = 0.8416  # the normal deviation that leaves four chances in five of telling
MOST_SEEDS = 100


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What can be said of a model against the baseline.

    Attributes:
        word: `better`, `worse` or `cannot tell yet`.
        p_value: of the difference, corrected for the number of comparisons.
        more_seeds: roughly how many more seeds each would tell; None when already told, when no number of seeds would
            do, or when a model was trained once, so that nothing is known about its luck.
        times_pictures: roughly how many times as many validation pictures would be needed, when it is they that are
            too few; None otherwise.
    """

    word: str
    p_value: float
    more_seeds: int | None = None
    times_pictures: float | None = None


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


def judge_all(differences: Sequence[Difference], *, finished: bool = False) -> list[Verdict]:
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
    answers = (difference.knows_seeds or finished) and not difference.lends_luck
    if answers and p_value < ERROR_RATE:
        return Verdict(word=BETTER if difference.value > 0 else WORSE, p_value=p_value)
    if difference.lends_luck:
        return Verdict(word=UNKNOWN, p_value=p_value)
    more_seeds = seeds_needed(difference, comparisons=comparisons)
    times = None if more_seeds is not None else _times_pictures(difference)
    return Verdict(word=UNKNOWN, p_value=p_value, more_seeds=more_seeds, times_pictures=times)


def seeds_needed(difference: Difference, *, comparisons: int = 1) -> int | None:
    """Return how many more seeds each would tell, with four chances in five, a difference as large as this one.

    Both questions of a verdict have to be answered: by the interval, and by the pictures alone for the runs at hand.

    Returns:
        Up to 100, or None when more would be needed or the luck of the seed is unknown.
    """
    if not difference.knows_seeds or not difference.standard_error > 0 or difference.value == 0:
        return None
    confidence = 1 - ERROR_RATE / comparisons
    of_pictures = difference.image_variance, max(difference.images - 1.0, 1.0)
    for more in range(1, MOST_SEEDS + 1):
        counts = [present + more for present in difference.seeds]
        terms = [
            *((v / count, count - 1.0) for v, count in zip(difference.seed_variances, counts, strict=True)),
            of_pictures,
        ]
        total = sum(term for term, _ in terms)
        spread = sum(term**2 / degrees for term, degrees in terms)
        interplay = sum(v / count for v, count in zip(difference.interplay_variances, counts, strict=True))
        questions = (
            (total, total**2 / spread if spread > 0 else math.inf),
            (difference.image_variance + interplay, of_pictures[1]),
        )
        if all(
            abs(difference.value) >= (deviation_of(confidence, degrees) + POWER_DEVIATION) * math.sqrt(variance)
            for variance, degrees in questions
        ):
            return more
    return None


def _times_pictures(difference: Difference) -> float | None:
    """Return how many times as many pictures would tell if seeds were plenty; None if that cannot be said."""
    reach = deviation_of(CONFIDENCE, math.inf) + POWER_DEVIATION
    if difference.value == 0 or not difference.image_variance > 0:
        return None
    times = reach**2 * difference.image_variance / difference.value**2
    return times if times > 1 else None


def sentence(verdict: Verdict, difference: Difference, *, model: str, baseline: str, figure: str) -> str:
    """Say a verdict in words, with the interval it rests on."""
    numbers = f"{figure} {difference.value:+.3f}, 95 % interval {difference.low:+.3f} to {difference.high:+.3f}"
    if verdict.word != UNKNOWN:
        scope = "" if difference.knows_seeds else " as far as these weights go (nothing is known of other seeds)"
        return f"{model} is {verdict.word} than {baseline}{scope}: {numbers}."
    start = f"{model} against {baseline}: cannot tell yet ({numbers}). "
    if not difference.knows_seeds:
        return start + "One seed each says nothing about its luck; three at least are needed (--seeds 0 1 2)."
    if difference.lends_luck:
        once = " and ".join(name for name, runs in zip((model, baseline), difference.seeds, strict=True) if runs == 1)
        return start + (
            f"The interval takes it that {once}, trained once, has the luck of those trained several times; nobody "
            "knows, and three runs at least are needed."
        )
    if difference.low > 0 or difference.high < 0:
        start += "The interval leaves out 0, but not by enough for a verdict. "
    if verdict.more_seeds is not None:
        each = "seed" if verdict.more_seeds == 1 else "seeds"
        return start + (
            f"If the difference is as large as it looks, about {verdict.more_seeds} more {each} of each would tell."
        )
    if difference.value == 0 and difference.standard_error == 0:
        return start + "Their figures are the same."
    bound = max(abs(difference.low), abs(difference.high))
    if verdict.times_pictures is not None and verdict.times_pictures < MOST_SEEDS:
        return start + (
            "No number of seeds would tell a difference so small on these pictures; about "
            f"{verdict.times_pictures:.1f} times as many validation pictures might. "
            f"It is hardly larger than {bound:.3f} either way."
        )
    return start + f"If there is a difference, it is hardly larger than {bound:.3f} either way."
