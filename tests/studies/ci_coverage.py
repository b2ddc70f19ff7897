"""Is the interval honest? `python -m tests.studies.ci_coverage` compares simulated detectors many times.

Every comparison draws new validation images and new seeds, and goes through the code that compare.py uses. Counted
is how often the 95 % interval holds the true difference, which the simulation knows, and what the verdict says.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np

from tests.studies.simulated_detectors import Population, Recipe, add_image_interaction, detect, draw_world
from utils.cli import option, parse_options, run_script
from utils.errors import ConfigError
from utils.log import LOGGER
from utils.metrics.bootstrap import draw_resamples, resample_ap
from utils.metrics.paired_difference import Difference, Scores, paired_difference
from utils.metrics.significance import BETTER, WORSE, decide_all

TITLES = ("mAP50", "mAP50-95")


USUAL = Recipe(quality=0.0, seed_std=0.06)
GOOD = Recipe(quality=0.25, seed_std=0.06)
LUCKY = Recipe(quality=0.0, seed_std=0.15)
STEADY = Recipe(quality=0.0, seed_std=0.02)
PLAIN = Recipe(quality=0.0, seed_std=0.06, taste=0.0)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One kind of comparison."""

    name: str
    images: int = 60
    seeds: tuple[int, int] = (3, 3)
    baseline: Recipe = USUAL
    model: Recipe = USUAL
    finished: bool = False


SETTINGS = (
    Setting(name="equal"),
    Setting(name="different", model=GOOD),
    Setting(name="the same recipe twice", baseline=PLAIN, model=PLAIN),
    Setting(name="little luck", baseline=STEADY, model=STEADY),
    Setting(name="much luck", baseline=LUCKY, model=LUCKY),
    Setting(name="unequal luck", model=LUCKY),
    Setting(name="2 seeds", seeds=(2, 2)),
    Setting(name="5 seeds", seeds=(5, 5)),
    Setting(name="5 and 2 seeds", seeds=(2, 5)),
    Setting(name="30 images", images=30),
    Setting(name="200 images, different", images=200, model=GOOD),
    Setting(name="3 and 1 seeds", seeds=(1, 3)),
    Setting(name="2 and 1 seeds", seeds=(1, 2)),
    Setting(name="finished weights", seeds=(1, 1), finished=True),
)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one comparison came to, for mAP50 and mAP50-95: its differences, the truths, and the verdict's words."""

    differences: tuple[Difference, Difference]
    truths: tuple[float, float]
    words: tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class ConversionReport:
    """Shares over all comparisons of a setting for one figure."""

    title: str
    comparisons: int
    truth: float
    held: float
    better: float
    worse: float
    width: float
    bias: float


def compare_once(
    number: int, setting: Setting, populations: tuple[Population, Population], *, resamples: int
) -> Outcome:
    """Draw images and seeds, judge both models, and compare them as compare.py does."""
    generator = np.random.default_rng((20_231, number))
    world = draw_world(setting.images, generator)
    weights = draw_resamples(setting.images, resamples, seed=number)
    ones = np.ones((1, setting.images), np.int32)
    scores: list[tuple[Scores, Scores]] = []
    run_truths = []
    for population, seeds in zip(populations, setting.seeds, strict=True):
        recipe = population.recipe
        seen = add_image_interaction(world, recipe, generator)
        points, resampled, truths = [], [], []
        for _ in range(seeds):
            quality = recipe.quality + recipe.seed_std * float(generator.standard_normal())
            result = resample_ap(detect(seen, quality, generator), np.concatenate((ones, weights)))
            both = np.stack((result.mean(0), result.mean()))
            points.append(both[:, 0])
            resampled.append(both[:, 1:])
            truths.append(population.of_run(quality))
        run_truths.append(np.mean(truths, axis=0))
        first, second = (
            Scores(points=np.array(points)[:, k], resampled=np.array(resampled)[:, k]) for k in range(len(TITLES))
        )
        scores.append((first, second))
    if setting.finished:
        truth = run_truths[0] - run_truths[1]
    else:
        truth = np.subtract(populations[0].of_recipe(), populations[1].of_recipe())
    differences = [
        paired_difference(
            ours, theirs, num_images=setting.images, variance_donors=() if setting.finished else (ours, theirs)
        )
        for ours, theirs in zip(*scores, strict=True)
    ]
    words = [decide_all([difference], fixed_weights=setting.finished)[0].decision for difference in differences]
    return Outcome(
        differences=(differences[0], differences[1]),
        truths=(float(truth[0]), float(truth[1])),
        words=(words[0], words[1]),
    )


def simulate(
    setting: Setting, *, comparisons: int, resamples: int = 200, jobs: int = 1, first: int = 0
) -> tuple[ConversionReport, ...]:
    """Compare many times.

    Args:
        setting: what is compared.
        comparisons: how often.
        resamples: of the images, in each comparison.
        jobs: processes.
        first: number of the first comparison; others draw other images and seeds.
    """
    populations = (Population(setting.model), Population(setting.baseline))
    one = partial(compare_once, setting=setting, populations=populations, resamples=resamples)
    numbers = range(first, first + comparisons)
    if jobs > 1:
        with ProcessPoolExecutor(jobs) as pool:
            outcomes = list(pool.map(one, numbers, chunksize=10))
    else:
        outcomes = [one(number) for number in numbers]
    return tuple(_tally(outcomes, k) for k in range(len(TITLES)))


def _tally(outcomes: Sequence[Outcome], k: int) -> ConversionReport:
    """Count what came of one figure."""
    differences = [outcome.differences[k] for outcome in outcomes]
    truths = np.array([outcome.truths[k] for outcome in outcomes])
    words = [outcome.words[k] for outcome in outcomes]
    held = [d.low <= truth <= d.high for d, truth in zip(differences, truths, strict=True)]
    return ConversionReport(
        title=TITLES[k],
        comparisons=len(outcomes),
        truth=float(truths.mean()),
        held=float(np.mean(held)),
        better=words.count(BETTER) / len(words),
        worse=words.count(WORSE) / len(words),
        width=float(np.median([d.high - d.low for d in differences])),
        bias=float(np.mean([d.value for d in differences] - truths)),
    )


@dataclass(frozen=True, kw_only=True)
class SimulationOptions:
    """Options of the simulation."""

    comparisons: int = option(1000, "comparisons of each setting")
    resamples: int = option(200, "bootstrap resamples of each comparison")
    first: int = option(0, "number of the first comparison; another draws other images and seeds")
    jobs: int = option(1, "processes")
    settings: tuple[str, ...] = option((), "settings to run, by name; all by default", kind=str, many=True)

    def __post_init__(self) -> None:
        """Check names and ranges.

        Raises:
            ConfigError: names the flag.
        """
        names = [setting.name for setting in SETTINGS]
        for wanted in self.settings:
            if wanted not in names:
                raise ConfigError("--settings", f"{wanted!r} is unknown", fix=f"one of: {'; '.join(names)}")
        for flag, value in (
            ("--comparisons", self.comparisons),
            ("--resamples", self.resamples),
            ("--jobs", self.jobs),
        ):
            if value < 1:
                raise ConfigError(flag, f"must be at least 1 (got {value})", fix=f"correct {flag}")
        if self.first < 0:
            raise ConfigError("--first", f"must be at least 0 (got {self.first})", fix="correct --first")


def main() -> None:
    """Simulate the settings asked for and print a table."""
    options, _ = parse_options(SimulationOptions, None, description=__doc__ or "")
    LOGGER.info("| setting | images | seeds | figure | truth | interval holds it | better | worse | width | bias |")
    LOGGER.info("|---|---|---|---|---|---|---|---|---|---|")
    start = time.perf_counter()
    for setting in SETTINGS:
        if options.settings and setting.name not in options.settings:
            continue
        for tally in simulate(
            setting,
            comparisons=options.comparisons,
            resamples=options.resamples,
            jobs=options.jobs,
            first=options.first,
        ):
            seeds = " and ".join(map(str, dict.fromkeys(setting.seeds)))
            LOGGER.info(
                f"| {setting.name} | {setting.images} | {seeds} | {tally.title} | {tally.truth:+.4f} "
                f"| {tally.held:.1%} | {tally.better:.1%} | {tally.worse:.1%} | {tally.width:.3f} | {tally.bias:+.4f} |"
            )
    LOGGER.info(f"{options.comparisons} comparisons each, {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    run_script(main)
