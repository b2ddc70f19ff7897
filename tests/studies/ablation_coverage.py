"""Coverage of the intervals of an ablation's effects, and error rate of their verdicts, on simulated detectors.

`python -m tests.studies.ablation_coverage` repeats ablations of two or three switches, each time with new validation
images and new seeds, by the code that compare.py uses. See `tests.studies.ci_coverage` for what is simulated.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache, partial

import numpy as np

from tests.studies.ci_coverage import METRICS, STANDARD, SimulationOptions, simulated_scores
from tests.studies.simulated_detectors import Population, Recipe, draw_world
from utils.cli import parse_options, run_script
from utils.comparison.ablation import effect_weights
from utils.comparison.ablation_design import Ablation, combinations
from utils.log import LOGGER
from utils.metrics.bootstrap import draw_resamples
from utils.metrics.paired_difference import contrast
from utils.metrics.significance import INCONCLUSIVE, decide_all

KINDS = {1: "switch", 2: "interaction", 3: "together"}


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """An ablation of switches A, B, ...; qualities are those of the switches alone, and what combinations add."""

    name: str
    switches: str = "AB"
    design: str = "factorial"
    images: int = 60
    seeds: int = 3
    qualities: Mapping[str, float] = field(default_factory=dict)  # in logits, by switches that are on; 0 if missing
    seed_stds: Mapping[str, float] = field(default_factory=dict)  # of models other than the standard

    def recipes(self) -> dict[str, Recipe]:
        """Return the recipe of each model; its name is the switches that are on."""
        names = ["".join(on) for on in combinations(self.switches, self.design)]
        return {
            name: replace(
                STANDARD,
                quality=sum(value for part, value in self.qualities.items() if set(part) <= set(name)),
                seed_std=self.seed_stds.get(name, STANDARD.seed_std),
            )
            for name in names
        }


SCENARIOS = (
    Scenario(name="no effect"),
    Scenario(name="two effects", qualities={"A": 0.25, "B": 0.15}),
    Scenario(name="an interaction", qualities={"A": 0.1, "AB": 0.3}),
    Scenario(name="unequal seed variance", seed_stds={"B": 0.02, "AB": 0.15}),
    Scenario(name="2 seeds", seeds=2),
    Scenario(name="30 images", images=30),
    Scenario(name="three switches", switches="ABC", qualities={"A": 0.25}),
    Scenario(name="one at a time", switches="ABC", design="one-at-a-time", qualities={"A": 0.25}),
)


@cache
def truth_of(recipe: Recipe) -> tuple[float, float]:
    """Return the true mAP50 and mAP50-95 of a recipe."""
    return Population(recipe).of_recipe()


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One effect of one trial for one metric."""

    kind: str
    metric: str
    truth: float
    covered: bool
    width: float
    decided: bool  # better or worse


def run_trial(
    trial: int, scenario: Scenario, truths: Mapping[str, tuple[float, float]], *, resamples: int
) -> list[Outcome]:
    """Draw images and seeds, evaluate all models, and estimate the effects as compare.py does."""
    generator = np.random.default_rng((20_261, trial))
    world = draw_world(scenario.images, generator)
    drawn = draw_resamples(scenario.images, resamples, seed=trial)
    weights = np.concatenate((np.ones((1, scenario.images), np.int32), drawn))
    scores = {
        name: simulated_scores(recipe, scenario.seeds, world, weights, generator)[0]
        for name, recipe in scenario.recipes().items()
    }
    effects = effect_weights(Ablation(switches=tuple(scenario.switches), on={name: frozenset(name) for name in scores}))
    outcomes = []
    for k, metric in enumerate(METRICS):
        differences = [
            contrast([scores[name][k] for name in of], list(of.values()), num_images=scenario.images)
            for _, of, _ in effects
        ]
        decided = [verdict.decision != INCONCLUSIVE for verdict in decide_all(differences)]
        for (names, of, _), difference, decision in zip(effects, differences, decided, strict=True):
            truth = sum(weight * truths[name][k] for name, weight in of.items())
            outcomes.append(
                Outcome(
                    kind=KINDS[len(names)],
                    metric=metric,
                    truth=truth,
                    covered=difference.low <= truth <= difference.high,
                    width=difference.high - difference.low,
                    decided=decision,
                )
            )
    return outcomes


def simulate(
    scenario: Scenario, *, trials: int, resamples: int = 100, jobs: int = 1, trial_offset: int = 0
) -> list[tuple[str, str, float, float, float]]:
    """Return by kind and metric: coverage, median width, and how often an effect without truth got a verdict at all.

    The last is the fraction of trials with at least one such verdict on effects of this kind; nan if all have effects.
    """
    truths = {name: truth_of(recipe) for name, recipe in scenario.recipes().items()}
    run = partial(run_trial, scenario=scenario, truths=truths, resamples=resamples)
    numbers = range(trial_offset, trial_offset + trials)
    if jobs > 1:
        with ProcessPoolExecutor(jobs) as pool:
            results = list(pool.map(run, numbers, chunksize=10))
    else:
        results = [run(number) for number in numbers]
    rows = []
    for kind in KINDS.values():
        for metric in METRICS:
            by_trial = [[one for one in trial if (one.kind, one.metric) == (kind, metric)] for trial in results]
            every = [one for trial in by_trial for one in trial]
            if not every:
                continue
            nulls = [[one.decided for one in trial if abs(one.truth) < 1e-9] for trial in by_trial]
            false = float(np.mean([any(trial) for trial in nulls])) if nulls[0] else float("nan")
            coverage = float(np.mean([one.covered for one in every]))
            rows.append((kind, metric, coverage, float(np.median([one.width for one in every])), false))
    return rows


def main() -> None:
    """Simulate the scenarios, by default all, and print a table."""
    options, _ = parse_options(AblationSimulationOptions, None, description=__doc__ or "")
    LOGGER.info("| scenario | models | images | seeds | effect | metric | coverage | false verdicts | median width |")
    LOGGER.info("|---|---|---|---|---|---|---|---|---|")
    settings = {name: getattr(options, name) for name in ("trials", "resamples", "jobs", "trial_offset")}
    for scenario in (one for one in SCENARIOS if not options.scenarios or one.name in options.scenarios):
        for kind, metric, coverage, width, false in simulate(scenario, **settings):
            rate = "" if np.isnan(false) else f"{false:.1%}"
            counts = f"{len(scenario.recipes())} | {scenario.images} | {scenario.seeds}"
            values = f"{kind} | {metric} | {coverage:.1%} | {rate} | {width:.3f}"
            LOGGER.info(f"| {scenario.name} | {counts} | {values} |")


class AblationSimulationOptions(SimulationOptions):
    """Options of this simulation."""

    SCENARIOS = SCENARIOS


if __name__ == "__main__":
    run_script(main)
