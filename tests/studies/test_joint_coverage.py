"""The study of the joint interval: its trials are nested, repeatable and know the truth; at length, its bars."""

from dataclasses import replace

import numpy as np
import pytest

from tests.studies import joint_coverage
from tests.studies.ci_coverage import STANDARD, SUPERIOR, Scenario
from tests.studies.joint_coverage import run_set, simulate
from tests.studies.simulated_detectors import Population


@pytest.mark.slow
def test_fewer_seeds_are_the_first_of_all_and_trials_are_repeatable(monkeypatch):
    monkeypatch.setattr(joint_coverage, "_population", lambda recipe: Population(recipe, points=3))
    populations = (joint_coverage._population(SUPERIOR), joint_coverage._population(STANDARD))
    scenario = Scenario(name="x", images=20, seeds=(5, 5), model=SUPERIOR)
    first, second = (run_set(3, scenario, populations, resamples=20) for _ in range(2))
    assert first == second and first != run_set(4, scenario, populations, resamples=20)
    assert [of[0].num_runs for of in first.differences.values()] == [(2, 2), (3, 3), (5, 5)]
    other = run_set(3, replace(scenario, seeds=(5, 5)), populations, resamples=20)
    assert first.differences[2] == other.differences[2] and all(0.02 < truth < 0.12 for truth in first.truths)


def test_heterogeneous_sets_have_no_mean_difference_for_any_number_of_sets():
    qualities = np.array(
        [model.quality - baseline.quality for model, baseline in joint_coverage.PAIRS["heterogeneous"]]
    )
    assert [qualities[:sets].sum() for sets in (2, 3, 5)] == [0, 0, 0] and np.abs(qualities).sum() == 1


@pytest.mark.long
@pytest.mark.parametrize("name", list(joint_coverage.PAIRS))
def test_joint_interval_coverage_and_error_rate(name):
    for summaries in simulate(name, trials=300, resamples=100, trial_offset=70_000).values():
        for summary in summaries:
            assert 0.93 - 0.04 < summary.coverage < 0.97 + 0.03, summary  # three standard errors of 300 trials
            if name != "heterogeneous, better":
                assert summary.better + summary.worse < 0.05 + 0.038, summary
