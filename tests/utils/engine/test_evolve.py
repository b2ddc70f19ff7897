"""The search over hyperparameters: ranges kept, the same search from the same seed, gone on with after a stop."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.conftest import TINY_DATA
from tests.test_end_to_end import options
from utils.datasets.config import load_data_config
from utils.datasets.shapes import ensure_shapes
from utils.engine import evolve
from utils.engine.evolve import RANGES, Generation, next_recipe, run_evolution
from utils.engine.hyperparameters import Hyperparameters, load_hyperparameters
from utils.errors import ConfigError, RunError


def generation(number: int, fitness: float, recipe: Hyperparameters) -> Generation:
    return Generation(number=number, fitness=fitness, map50=fitness, map50_95=fitness, recipe=recipe)


def test_recipes_stay_in_their_ranges_and_follow_the_best() -> None:
    start = Hyperparameters()
    assert next_recipe(start, [], seed=0) is start
    good, bad = replace(start, degrees=30.0), replace(start, degrees=0.0)
    failed = replace(start, degrees=45.0)
    past = [
        generation(0, 0.1, bad),
        generation(1, 0.9, good),
        generation(2, float("nan"), failed),
    ]
    near = 0
    for seed in range(200):
        recipe = next_recipe(start, past, seed=seed)
        assert recipe == next_recipe(start, past, seed=seed)
        for key, (low, high) in RANGES.items():
            assert low <= getattr(recipe, key) <= high
        assert recipe.lr0 == start.lr0 and recipe.box == start.box
        near += recipe.degrees == 30.0
    assert near > 60, "most children keep most of the best parent"


def test_a_search_goes_on_where_it_was_and_writes_table_recipe_and_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yaml = tmp_path / "tiny.yaml"
    yaml.write_text(TINY_DATA)
    ensure_shapes(load_data_config(str(yaml)))
    common = {"cfg": "yolov5n.yaml", "epochs": 1, "imgsz": 64, "exist_ok": True}
    run_evolution(options(yaml, tmp_path, name="parts", evolve=1, **common))
    first = (tmp_path / "parts/evolve.csv").read_text()
    folder = run_evolution(options(yaml, tmp_path, name="parts", evolve=2, **common))
    assert (folder / "evolve.csv").read_text().startswith(first)
    table = pd.read_csv(folder / "evolve.csv")
    assert table["generation"].tolist() == [0, 1] and np.isfinite(table["fitness"]).all()
    assert any(table[key][0] != table[key][1] for key in RANGES)
    best = load_hyperparameters(str(folder / "hyp_evolve.yaml"))
    row = table.loc[table["fitness"].idxmax()]
    assert all(getattr(best, key) == pytest.approx(row[key]) for key in RANGES)
    assert (folder / "evolve.png").stat().st_size > 5000


def test_a_failing_recipe_counts_as_bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RunError("epoch 0", "the loss is not finite")

    monkeypatch.setattr(evolve, "run_training", fail)
    with pytest.raises(RunError, match="no generation could be trained"):
        run_evolution(options(tmp_path / "any.yaml", tmp_path, evolve=2, name="bad"))
    with pytest.raises(ConfigError, match="--evolve"):
        run_evolution(options(tmp_path / "any.yaml", tmp_path, evolve=2, noval=True))
