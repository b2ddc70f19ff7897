import pytest

from tests.studies.ablation_coverage import SCENARIOS, Scenario, run_trial, simulate


def test_recipes_follow_from_switches_that_are_on():
    scenario = Scenario(name="s", qualities={"A": 0.1, "AB": 0.3}, seed_stds={"B": 0.2})
    recipes = scenario.recipes()
    assert {name: recipe.quality for name, recipe in recipes.items()} == {"": 0, "A": 0.1, "B": 0, "AB": 0.4}
    assert recipes["B"].seed_std == 0.2 != recipes["A"].seed_std
    assert [len(one.recipes()) for one in SCENARIOS[-2:]] == [8, 5]


@pytest.mark.slow
def test_trials_are_repeatable_and_know_the_truth():
    scenario = Scenario(name="small", images=20, seeds=2)
    truths = {"": (0.5, 0.3), "A": (0.6, 0.4), "B": (0.5, 0.3), "AB": (0.7, 0.5)}
    first, second, other = (run_trial(trial, scenario, truths, resamples=20) for trial in (3, 3, 4))
    assert first == second != other and len(first) == 6
    found = [one.truth for one in first if one.metric == "mAP50-95"]
    assert found == pytest.approx([0.15, 0.05, 0.1]) and {one.kind for one in first} == {"switch", "interaction"}


@pytest.mark.long
def test_interval_coverage_and_error_rate_of_effects():
    for _, _, coverage, _, false in simulate(SCENARIOS[0], trials=400, trial_offset=50_000):
        assert 0.93 - 0.035 < coverage < 0.97 + 0.025 and false < 0.05 + 0.033
