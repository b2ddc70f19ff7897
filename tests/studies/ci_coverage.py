"""Coverage of compare.py's 95 % interval and error rate of its verdicts, measured on simulated detectors.

`python -m tests.studies.ci_coverage` repeats the comparison of two simulated models, each time with new validation
images and new seeds, by the code that compare.py uses. Reported is how often the interval covers the true difference,
which the simulation knows, and how often the verdict is better or worse.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np

from tests.studies.simulated_detectors import Population, Recipe, World, add_image_interaction, detect, draw_world
from utils.cli import option, parse_options, run_script
from utils.errors import ConfigError
from utils.log import LOGGER
from utils.metrics.bootstrap import draw_resamples, resample_ap
from utils.metrics.paired_difference import Difference, Scores, paired_difference
from utils.metrics.significance import BETTER, WORSE, decide_all

METRICS = ("mAP50", "mAP50-95")

STANDARD = Recipe(quality=0.0, seed_std=0.06)
SUPERIOR = Recipe(quality=0.25, seed_std=0.06)
LARGE_VARIANCE = Recipe(quality=0.0, seed_std=0.15)
SMALL_VARIANCE = Recipe(quality=0.0, seed_std=0.02)
WITHOUT_INTERACTION = Recipe(quality=0.0, seed_std=0.06, interaction_std=0.0)


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """Two recipes, the size of the validation set, and the number of seeds of model and baseline."""

    name: str
    images: int = 60
    seeds: tuple[int, int] = (3, 3)
    baseline: Recipe = STANDARD
    model: Recipe = STANDARD
    fixed_weights: bool = False


SCENARIOS = (
    Scenario(name="equal"),
    Scenario(name="different", model=SUPERIOR),
    Scenario(name="the same recipe twice", baseline=WITHOUT_INTERACTION, model=WITHOUT_INTERACTION),
    Scenario(name="small seed variance", baseline=SMALL_VARIANCE, model=SMALL_VARIANCE),
    Scenario(name="large seed variance", baseline=LARGE_VARIANCE, model=LARGE_VARIANCE),
    Scenario(name="unequal seed variance", model=LARGE_VARIANCE),
    Scenario(name="2 seeds", seeds=(2, 2)),
    Scenario(name="5 seeds", seeds=(5, 5)),
    Scenario(name="5 and 2 seeds", seeds=(2, 5)),
    Scenario(name="30 images", images=30),
    Scenario(name="200 images, different", images=200, model=SUPERIOR),
    Scenario(name="3 and 1 seeds", seeds=(1, 3)),
    Scenario(name="2 and 1 seeds", seeds=(1, 2)),
    Scenario(name="finished weights", seeds=(1, 1), fixed_weights=True),
)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One comparison, for each of `METRICS`: the difference with its interval, the true one, and the decision."""

    differences: tuple[Difference, ...]
    truths: tuple[float, ...]
    decisions: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Results of one metric over all trials of a scenario: means, fractions, and the median width of the interval."""

    metric: str
    trials: int
    truth: float
    coverage: float
    better: float
    worse: float
    width: float
    bias: float


def draw_scores(
    trial: int, scenario: Scenario, populations: tuple[Population, Population], *, resamples: int
) -> tuple[list[list[Scores]], list[np.ndarray]]:
    """Draw images and seeds, and evaluate both models; arguments as of `run_trial`.

    Returns:
        The scores of each model, model first, for each of `METRICS`; and the true means of its runs, (metrics,).
    """
    generator = np.random.default_rng((20_231, trial))
    world = draw_world(scenario.images, generator)
    weights = np.concatenate(
        (np.ones((1, scenario.images), np.int32), draw_resamples(scenario.images, resamples, seed=trial))
    )
    scores: list[list[Scores]] = []
    run_truths = []
    for population, seeds in zip(populations, scenario.seeds, strict=True):
        model, qualities = simulated_scores(population.recipe, seeds, world, weights, generator)
        run_truths.append(np.mean([population.of_run(quality) for quality in qualities], axis=0))
        scores.append(model)
    return scores, run_truths


def run_trial(trial: int, scenario: Scenario, populations: tuple[Population, Population], *, resamples: int) -> Trial:
    """Draw images and seeds, evaluate both models, and compare them as compare.py does.

    Args:
        trial: seed of the random numbers.
        scenario: what is compared.
        populations: of the model and of the baseline.
        resamples: of the images.
    """
    scores, run_truths = draw_scores(trial, scenario, populations, resamples=resamples)
    if scenario.fixed_weights:
        truth = run_truths[0] - run_truths[1]
    else:
        truth = np.subtract(populations[0].of_recipe(), populations[1].of_recipe())
    differences = tuple(
        paired_difference(*pair, num_images=scenario.images, variance_donors=() if scenario.fixed_weights else pair)
        for pair in zip(*scores, strict=True)
    )
    decisions = [decide_all([one], fixed_weights=scenario.fixed_weights)[0].decision for one in differences]
    return Trial(differences=differences, truths=tuple(map(float, truth)), decisions=tuple(decisions))


def simulated_scores(
    recipe: Recipe, seeds: int, world: World, weights: np.ndarray, generator: np.random.Generator
) -> tuple[list[Scores], list[float]]:
    """Return the scores of a recipe's runs for each of `METRICS`, on a world and its resamples, and their qualities.

    The first row of `weights` (1 + r, i) is the images themselves.
    """
    seen = add_image_interaction(world, recipe, generator)
    values, qualities = [], []
    for _ in range(seeds):
        qualities.append(recipe.quality + recipe.seed_std * float(generator.standard_normal()))
        result = resample_ap(detect(seen, qualities[-1], generator), weights)
        values.append(np.stack((result.mean(0), result.mean())))
    runs = np.array(values)  # (seeds, metrics, 1 + resamples)
    return [Scores(points=runs[:, k, 0], resampled=runs[:, k, 1:]) for k in range(len(METRICS))], qualities


def simulate(
    scenario: Scenario, *, trials: int, resamples: int = 200, jobs: int = 1, trial_offset: int = 0
) -> tuple[Summary, ...]:
    """Run trials of a scenario in `jobs` processes; another `trial_offset` draws other images and seeds."""
    populations = (Population(scenario.model), Population(scenario.baseline))
    run = partial(run_trial, scenario=scenario, populations=populations, resamples=resamples)
    numbers = range(trial_offset, trial_offset + trials)
    if jobs > 1:
        with ProcessPoolExecutor(jobs) as pool:
            results = list(pool.map(run, numbers, chunksize=10))
    else:
        results = [run(number) for number in numbers]
    return tuple(_summarize(results, k) for k in range(len(METRICS)))


def _summarize(trials: Sequence[Trial], k: int) -> Summary:
    """Summarize one metric."""
    differences = [trial.differences[k] for trial in trials]
    truths = np.array([trial.truths[k] for trial in trials])
    decisions = [trial.decisions[k] for trial in trials]
    covered = [d.low <= truth <= d.high for d, truth in zip(differences, truths, strict=True)]
    return Summary(
        metric=METRICS[k],
        trials=len(trials),
        truth=float(truths.mean()),
        coverage=float(np.mean(covered)),
        better=decisions.count(BETTER) / len(decisions),
        worse=decisions.count(WORSE) / len(decisions),
        width=float(np.median([d.high - d.low for d in differences])),
        bias=float(np.mean([d.value for d in differences] - truths)),
    )


@dataclass(frozen=True, kw_only=True)
class SimulationOptions:
    """Options of the simulation."""

    SCENARIOS: ClassVar[Sequence[Any]] = SCENARIOS  # named objects

    trials: int = option(1000, "comparisons per scenario")
    resamples: int = option(200, "bootstrap resamples per comparison")
    trial_offset: int = option(0, "number of the first trial; another one draws other images and seeds")
    jobs: int = option(1, "parallel processes")
    scenarios: tuple[str, ...] = option((), "scenarios by name; default: all")

    def __post_init__(self) -> None:
        """Check names and ranges.

        Raises:
            ConfigError: names the flag.
        """
        names = [scenario.name for scenario in self.SCENARIOS]
        for name in self.scenarios:
            if name not in names:
                raise ConfigError("--scenarios", f"unknown scenario {name!r}", fix=f"one of: {'; '.join(names)}")
        for flag, value, minimum in (
            ("--trials", self.trials, 1),
            ("--resamples", self.resamples, 1),
            ("--jobs", self.jobs, 1),
            ("--trial-offset", self.trial_offset, 0),
        ):
            if value < minimum:
                raise ConfigError(flag, f"must be at least {minimum} (got {value})", fix=f"correct {flag}")


def main() -> None:
    """Simulate the requested scenarios and print a table."""
    options, _ = parse_options(SimulationOptions, None, description=__doc__ or "")
    LOGGER.info("| scenario | images | seeds | metric | true difference | coverage | better | worse | width | bias |")
    LOGGER.info("|---|---|---|---|---|---|---|---|---|---|")
    start = time.perf_counter()
    for scenario in SCENARIOS:
        if options.scenarios and scenario.name not in options.scenarios:
            continue
        for summary in simulate(
            scenario,
            trials=options.trials,
            resamples=options.resamples,
            jobs=options.jobs,
            trial_offset=options.trial_offset,
        ):
            seeds = " and ".join(map(str, dict.fromkeys(scenario.seeds)))
            LOGGER.info(
                f"| {scenario.name} | {scenario.images} | {seeds} | {summary.metric} | {summary.truth:+.4f} "
                f"| {summary.coverage:.1%} | {summary.better:.1%} | {summary.worse:.1%} | {summary.width:.3f} "
                f"| {summary.bias:+.4f} |"
            )
    LOGGER.info(f"{options.trials} trials per scenario, {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    run_script(main)
