import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.studies.ci_coverage import SCENARIOS, STANDARD, SUPERIOR, Scenario, run_trial, simulate
from tests.studies.simulated_detectors import Population, Recipe, add_image_interaction, detect, draw_world
from utils.metrics.bootstrap import resample_ap

ROOT = Path(__file__).resolve().parents[2]


def world_of(images=300):
    return draw_world(images, np.random.default_rng(0))


def test_a_simulated_detector_returns_a_valid_evaluated_set():
    evaluated = detect(world_of(), 0.0, np.random.default_rng(1))
    assert (np.diff(evaluated.image_ids) >= 0).all() and evaluated.tp.shape == (len(evaluated.confidences), 10)
    assert (np.diff(evaluated.tp.astype(int), axis=1) <= 0).all(), "a match at a large IoU threshold is one at smaller"
    assert evaluated.tp[:, 0].sum() <= len(evaluated.label_classes)
    for image in range(20):
        assert (np.diff(evaluated.confidences[evaluated.image_ids == image]) <= 0).all()


def test_map_rises_with_quality_and_interaction_may_be_zero():
    ones, world = np.ones((1, 300), np.int32), world_of()
    maps = [float(resample_ap(detect(world, q, np.random.default_rng(1)), ones).mean()[0]) for q in (-1, 0, 1)]
    assert maps[0] + 0.05 < maps[1] < maps[2] - 0.05
    recipe = Recipe(quality=0, seed_std=0, interaction_std=0)
    unchanged = add_image_interaction(world, recipe, np.random.default_rng(0))
    assert np.array_equal(unchanged.image_difficulty, world.image_difficulty)


@pytest.mark.slow
def test_the_population_is_the_mean_of_many_runs():
    population = Population(Recipe(quality=0.1, seed_std=0.2), points=7)
    rng = np.random.default_rng(5)
    runs = np.array([population.of_run(0.1 + 0.2 * z) for z in rng.standard_normal(4000)])
    assert population.of_recipe() == pytest.approx(runs.mean(0), abs=0.003)
    assert population.of_run(0.5) > population.of_run(-0.3)


@pytest.mark.slow
def test_trials_are_repeatable_and_know_the_truth():
    populations = (Population(SUPERIOR, points=5), Population(STANDARD, points=5))
    scenario = Scenario(name="small", images=30, model=SUPERIOR)
    first, second = (run_trial(3, scenario, populations, resamples=30) for _ in range(2))
    assert first == second and first != run_trial(4, scenario, populations, resamples=30)
    assert all(0.02 < truth < 0.12 for truth in first.truths)
    assert first.differences[0].num_runs == (3, 3) and first.differences[0].covers_seeds


@pytest.mark.long
def test_interval_coverage_and_error_rate():
    for scenario in SCENARIOS[:2]:
        for summary in simulate(scenario, trials=400, resamples=100, trial_offset=50_000):
            assert 0.93 - 0.035 < summary.coverage < 0.97 + 0.025, summary  # three standard errors of 400 trials
            if scenario.name == "equal":
                assert summary.better + summary.worse < 0.05 + 0.033, summary


@pytest.mark.slow
def test_the_script_refuses_unknown_scenarios():
    command = [sys.executable, "-m", "tests.studies.ci_coverage", "--scenarios", "none such"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 2
    assert all(text in result.stderr for text in ("--scenarios", "'none such'", "equal", "2 seeds"))
