"""The design and the arithmetic of the screen of AKConv's forms."""

from pathlib import Path

import numpy as np
import pytest

from models.config import load_model_config
from models.yolo import DetectionModel
from tests.studies.forms_screen import design, report, write_variant
from utils.options.hyperparameters import load_hyperparameters


def test_main_effects_are_orthogonal_to_each_other_and_to_interactions_of_two_factors() -> None:
    levels = design()
    assert levels.shape == (16, 6) and len(np.unique(levels, axis=0)) == 16
    pairs = np.column_stack([levels[:, i] * levels[:, j] for i in range(6) for j in range(i)])
    assert np.array_equal(levels.T @ levels, 16 * np.eye(6)) and not (levels.T @ pairs).any()


def test_planted_effects_are_found() -> None:
    effects = np.array([0.04, -0.03, 0.02, 0.0, -0.01, 0.06])
    noise = np.random.default_rng(5).normal(0, 1e-3, 20)
    scores = 0.3 + design() @ effects / 2 + noise[:16]
    rows = [line for line in report(scores, 0.25 + noise[16:]).splitlines() if line.startswith("| ")][1:]
    found = [float(row.split("|")[2].split("[")[0]) for row in rows]
    assert np.allclose(found, effects, atol=1.5e-3)


@pytest.mark.parametrize("row", [0, 5, 10, 15])
def test_variants_have_the_keywords_of_their_row(row: int, tmp_path: Path) -> None:
    levels = design()[row]
    cfg, hyp = write_variant(levels, tmp_path)
    layers = [m for m in DetectionModel(load_model_config(str(cfg))).modules() if type(m).__name__ == "AKConv"]
    assert len(layers) == 5
    for layer in layers:
        found = (hasattr(layer.p_conv, "weight"), layer.modulated, layer.gradient == "symmetric", layer.num_param == 4)
        assert found == tuple(levels[[0, 1, 2, 4]] > 0)
    assert load_hyperparameters(str(hyp)).offset_lr == (0.01 if levels[3] > 0 else 0.1)
