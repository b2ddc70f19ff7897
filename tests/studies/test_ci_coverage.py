import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.studies.ci_coverage import GOOD, SETTINGS, USUAL, Setting, compare_once, simulate
from tests.studies.simulated_detectors import Population, Recipe, add_image_interaction, detect, draw_world
from utils.metrics.bootstrap import resample_ap

ROOT = Path(__file__).resolve().parents[2]


def world(seed=0, images=300):
    return draw_world(images, np.random.default_rng(seed))


def test_a_simulated_detector_gives_what_a_validation_gives():
    shown = world()
    judged = detect(shown, 0.0, np.random.default_rng(1))
    assert (np.diff(judged.image_ids) >= 0).all() and judged.tp.shape == (len(judged.confidences), 10)
    assert (np.diff(judged.tp.astype(int), axis=1) <= 0).all(), "right at a large overlap is right at a small one"
    assert judged.tp[:, 0].sum() <= len(judged.label_classes)
    for image in range(20):
        scores = judged.confidences[judged.image_ids == image]
        assert (np.diff(scores) <= 0).all()


def test_better_quality_is_better_and_easier_images_are_easier():
    ones, shown = np.ones((1, 300), np.int32), world()
    found = [float(resample_ap(detect(shown, q, np.random.default_rng(1)), ones).mean()[0]) for q in (-1, 0, 1)]
    assert found[0] + 0.05 < found[1] < found[2] - 0.05
    easier = add_image_interaction(shown, Recipe(quality=0, seed_std=0, taste=0), np.random.default_rng(0))
    assert np.array_equal(easier.image_difficulty, shown.image_difficulty)


@pytest.mark.slow
def test_the_population_is_the_mean_of_many_runs():
    recipe = Recipe(quality=0.1, seed_std=0.2)
    population = Population(recipe, points=7)
    rng = np.random.default_rng(5)
    runs = np.array([population.of_run(0.1 + 0.2 * z) for z in rng.standard_normal(4000)])
    assert population.of_recipe() == pytest.approx(runs.mean(0), abs=0.003)
    assert population.of_run(0.5) > population.of_run(-0.3)


@pytest.mark.slow
def test_comparisons_are_repeatable_and_know_the_truth():
    populations = (Population(GOOD, points=5), Population(USUAL, points=5))
    setting = Setting(name="small", images=30, model=GOOD)
    first, second = (compare_once(3, setting, populations, resamples=30) for _ in range(2))
    assert first == second and first != compare_once(4, setting, populations, resamples=30)
    assert all(0.02 < truth < 0.12 for truth in first.truths)
    assert first.differences[0].num_runs == (3, 3) and first.differences[0].covers_seeds


@pytest.mark.long
def test_the_interval_is_honest():
    for setting in SETTINGS[:2]:
        for tally in simulate(setting, comparisons=400, resamples=100, first=50_000):
            assert 0.93 - 0.035 < tally.held < 0.97 + 0.025, tally  # three standard deviations of 400
            if setting.name == "equal":
                assert tally.better + tally.worse < 0.05 + 0.033, tally


@pytest.mark.slow
def test_the_script_names_unknown_settings():
    words = [sys.executable, "-m", "tests.studies.ci_coverage", "--settings", "none such"]
    result = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 2 and "'none such' is unknown. Fix: one of: equal" in result.stderr
