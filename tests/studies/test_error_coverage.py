"""The simulation of errors: every kind occurs, a better model makes fewer, and a comparison is reproducible."""

import numpy as np
import pytest

from tests.studies.error_coverage import covered, detect, draw_world, true_scores
from utils.metrics.tide import AP, ERRORS, assign_errors


def test_every_kind_of_error_occurs_and_fewer_of_a_better_model():
    world = draw_world(200, np.random.default_rng(0))
    errors = assign_errors(detect(world, 200, 0.0, np.random.default_rng(1)))
    assert set(errors.kinds) == set(range(len(ERRORS))) and errors.missed.any()
    baseline, better = (true_scores(quality, images=300) for quality in (0.0, 1.0))
    assert better[AP] > baseline[AP] + 0.05 and better["missed"] < baseline["missed"]


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_comparison_is_reproducible_and_covers_what_lies_within_its_intervals(seeds):
    def of(difference):
        return covered(20, seeds, 0.0, dict.fromkeys((AP, *ERRORS, "a", "b"), difference), resamples=30, trial=1)

    assert of(0.0).shape == (9,) and (of(0.0) == of(0.0)).all()
    assert of(0.0).sum() >= 7 and not of(5.0).any()
