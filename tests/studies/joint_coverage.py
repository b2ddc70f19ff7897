"""Coverage of the joint interval of several data sets and error rate of its verdicts, on simulated detectors.

`python -m tests.studies.joint_coverage` repeats a comparison on several data sets with new images and seeds of each, as
tests/studies/ci_coverage.py does on one. Reported is how often the joint interval covers the mean of the true
differences of these sets, how often the joint verdict is better or worse, and the widths of this interval and of the
random-effects interval for other sets of this kind.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np

from tests.studies.ci_coverage import (
    LARGE_VARIANCE,
    METRICS,
    SMALL_VARIANCE,
    STANDARD,
    SUPERIOR,
    Scenario,
    draw_scores,
)
from tests.studies.simulated_detectors import Population, Recipe
from utils.cli import option, parse_options, run_script
from utils.log import LOGGER
from utils.metrics.joint_difference import JointDifference, joint_difference
from utils.metrics.paired_difference import Difference, Scores, paired_difference
from utils.metrics.significance import BETTER, WORSE, decide_all

NUMBERS_OF_SETS = NUMBERS_OF_SEEDS = (2, 3, 5)
IMAGES = (60, 30, 120, 45, 90)  # of the first set, of the second...
OFFSET = 1_000_000  # between the random numbers of two data sets
PAIRS: dict[str, tuple[tuple[Recipe, Recipe], ...]] = {  # model and baseline on each data set; fewer sets: the first
    "equal": ((STANDARD, STANDARD),) * 5,
    "unequal variances": (
        (STANDARD, STANDARD),
        (LARGE_VARIANCE, SMALL_VARIANCE),
        (SMALL_VARIANCE, SMALL_VARIANCE),
        (STANDARD, LARGE_VARIANCE),
        (SMALL_VARIANCE, STANDARD),
    ),
    "heterogeneous": (
        (SUPERIOR, STANDARD),
        (STANDARD, SUPERIOR),
        (STANDARD, STANDARD),
        (STANDARD, SUPERIOR),
        (SUPERIOR, STANDARD),
    ),
    "heterogeneous, better": (
        (SUPERIOR, STANDARD),
        (STANDARD, STANDARD),
        (SUPERIOR, STANDARD),
        (STANDARD, STANDARD),
        (SUPERIOR, STANDARD),
    ),
}


@dataclass(frozen=True, kw_only=True)
class JointSummary:
    """Results of one metric over all trials: fractions, means, and the median widths of both intervals."""

    metric: str
    truth: float
    coverage: float
    better: float
    worse: float
    width: float
    of_sets_width: float  # of the random-effects interval


@dataclass(frozen=True, kw_only=True)
class SetTrial:
    """One data set: its true difference and the measured one, by number of seeds of each model, for each metric."""

    truths: tuple[float, ...]
    differences: dict[int, tuple[Difference, ...]]


def run_set(trial: int, scenario: Scenario, populations: tuple[Population, Population], *, resamples: int) -> SetTrial:
    """Compare on one data set with the first two, the first three, and all of five seeds."""
    scores, _ = draw_scores(trial, scenario, populations, resamples=resamples)
    truth = np.subtract(populations[0].of_recipe(), populations[1].of_recipe())

    def first(of: Scores, seeds: int) -> Scores:
        return Scores(points=of.points[:seeds], resampled=of.resampled[:seeds])

    differences = {
        seeds: tuple(
            paired_difference(first(model, seeds), first(baseline, seeds), num_images=scenario.images)
            for model, baseline in zip(*scores, strict=True)
        )
        for seeds in NUMBERS_OF_SEEDS
    }
    return SetTrial(truths=tuple(map(float, truth)), differences=differences)


def simulate(
    name: str, *, trials: int, resamples: int, jobs: int = 1, trial_offset: int = 0
) -> dict[tuple[int, int], tuple[JointSummary, ...]]:
    """Return by numbers of data sets and seeds a summary per metric; fewer sets and seeds are the first of all."""
    of_sets = [
        _trials(
            Scenario(name=name, images=IMAGES[k], seeds=(max(NUMBERS_OF_SEEDS),) * 2, model=model, baseline=baseline),
            range(trial_offset + OFFSET * k, trial_offset + OFFSET * k + trials),
            resamples=resamples,
            jobs=jobs,
        )
        for k, (model, baseline) in enumerate(PAIRS[name])
    ]
    return {
        (sets, seeds): tuple(_summarize(of_sets[:sets], seeds, k) for k in range(len(METRICS)))
        for seeds in NUMBERS_OF_SEEDS
        for sets in NUMBERS_OF_SETS
    }


def _trials(scenario: Scenario, numbers: range, *, resamples: int, jobs: int) -> list[SetTrial]:
    """Compare on one data set, each time with other images and seeds."""
    populations = (_population(scenario.model), _population(scenario.baseline))
    run = partial(run_set, scenario=scenario, populations=populations, resamples=resamples)
    if jobs == 1:
        return list(map(run, numbers))
    with ProcessPoolExecutor(jobs) as pool:
        return list(pool.map(run, numbers, chunksize=10))


@lru_cache(maxsize=8)
def _population(recipe: Recipe) -> Population:
    return Population(recipe)


def _summarize(of_sets: Sequence[Sequence[SetTrial]], seeds: int, k: int) -> JointSummary:
    """Summarize one metric."""
    trials = list(zip(*of_sets, strict=True))
    truths = np.array([np.mean([one.truths[k] for one in trial]) for trial in trials])
    joints: list[JointDifference] = [joint_difference([one.differences[seeds][k] for one in trial]) for trial in trials]
    decisions = [decide_all([joint])[0].decision for joint in joints]
    effects = [joint.random_effects for joint in joints if joint.random_effects is not None]
    return JointSummary(
        metric=METRICS[k],
        truth=float(truths.mean()),
        coverage=float(np.mean([j.low <= truth <= j.high for j, truth in zip(joints, truths, strict=True)])),
        better=decisions.count(BETTER) / len(decisions),
        worse=decisions.count(WORSE) / len(decisions),
        width=float(np.median([joint.high - joint.low for joint in joints])),
        of_sets_width=float(np.median([effect.high - effect.low for effect in effects])),
    )


@dataclass(frozen=True, kw_only=True)
class SimulationOptions:
    """Options of the simulation."""

    trials: int = option(1000, "comparisons per scenario")
    resamples: int = option(100, "bootstrap resamples per comparison")
    trial_offset: int = option(0, "number of the first trial; another one draws other images and seeds")
    jobs: int = option(1, "parallel processes")
    scenarios: tuple[str, ...] = option(tuple(PAIRS), "scenarios by name", choices=tuple(PAIRS))


def main() -> None:
    """Simulate the requested scenarios and print a table."""
    options, _ = parse_options(SimulationOptions, None, description=__doc__ or "")
    LOGGER.info("| scenario | sets | seeds | metric | true mean | coverage | better | worse | width | of other sets |")
    LOGGER.info("|---|---|---|---|---|---|---|---|---|---|")
    start = time.perf_counter()
    settings = {key: getattr(options, key) for key in ("trials", "resamples", "trial_offset", "jobs")}
    for name in options.scenarios:
        for (sets, seeds), of_metrics in simulate(name, **settings).items():
            for of in of_metrics:
                LOGGER.info(
                    f"| {name} | {sets} | {seeds} | {of.metric} | {of.truth:+.4f} | {of.coverage:.1%} "
                    f"| {of.better:.1%} | {of.worse:.1%} | {of.width:.3f} | {of.of_sets_width:.3f} |"
                )
    LOGGER.info(f"{options.trials} trials per scenario, {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    run_script(main)
