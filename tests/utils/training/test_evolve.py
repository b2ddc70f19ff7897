"""The search over hyperparameters: ranges kept, the same search from the same seed, gone on with after a stop."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.helpers.training_runs import stop_in_batch, train_options
from utils.errors import ConfigError, RunError, RunStopped
from utils.options.hyperparameters import Hyperparameters, load_hyperparameters
from utils.training import evolve
from utils.training.evolve import RANGES, Generation, next_recipe, read_table, run_evolution

pytestmark = pytest.mark.slow


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


def test_a_search_resumes_and_writes_table_hyperparameters_and_plot(data: Path, tmp_path: Path) -> None:
    common = {"cfg": "yolov5n.yaml", "epochs": 1, "imgsz": 64, "exist_ok": True}
    run_evolution(train_options(data, tmp_path, name="parts", evolve=1, **common))
    first = (tmp_path / "parts/evolve.csv").read_text()
    folder = run_evolution(train_options(data, tmp_path, name="parts", evolve=2, **common))
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
        run_evolution(train_options(tmp_path / "any.yaml", tmp_path, evolve=2, name="bad"))
    with pytest.raises(ConfigError, match="--evolve"):
        run_evolution(train_options(tmp_path / "any.yaml", tmp_path, evolve=2, noval=True))


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evolve, "plot_evolution", lambda *_: None)


SHORT = {"cfg": "yolov5n.yaml", "epochs": 1, "imgsz": 64}


def test_a_table_is_read_to_the_last_bit(undrawn: None, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    past = []
    for number in range(50):
        recipe = replace(Hyperparameters(), **{key: float(rng.uniform(*RANGES[key])) for key in RANGES})
        past.append(replace(generation(number, float(rng.random()), recipe), map50=float(rng.random())))
    evolve._write(tmp_path, past)
    assert read_table(tmp_path / "evolve.csv") == past
    for damaged in ("generation,fitness\n0,0.5\n", "generation\nx\n", "\x00", "a,b\n1,2,3\n"):
        (tmp_path / "evolve.csv").write_text(damaged)
        with pytest.raises(ConfigError, match=r"evolve\.csv: is no table of a search|hyperparameters missing"):
            read_table(tmp_path / "evolve.csv")


@pytest.mark.long
def test_a_search_that_is_stopped_says_how_to_go_on_and_does(
    undrawn: None, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run_evolution(train_options(data, tmp_path, name="whole", evolve=2, **SHORT))
    stop_in_batch(monkeypatch, 5)
    (tmp_path / "search").mkdir()
    wanted = train_options(data, tmp_path, name="search", evolve=2, **SHORT)
    advised = "go on with the same command and --name search2 --exist-ok"
    with pytest.raises(RunStopped, match=f"in generation 1, in epoch 0 after 2 of 3 batches.*{advised}") as caught:
        run_evolution(wanted)
    assert caught.value.exit_code == 143 and "--resume" not in str(caught.value)
    assert len(read_table(tmp_path / "search2/evolve.csv")) == 1
    again = replace(wanted, name="search2", exist_ok=True)
    stop_in_batch(monkeypatch, 1)
    with pytest.raises(RunStopped, match=r"go on with the same command\."):
        run_evolution(again)
    folder = run_evolution(again)
    assert (folder / "evolve.csv").read_text() == (whole / "evolve.csv").read_text()


def test_generations_that_are_finished_but_in_no_table_are_taken_as_they_are(
    undrawn: None, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = train_options(data, tmp_path, name="search", evolve=2, exist_ok=True, **SHORT)
    folder = run_evolution(wanted)
    table = (folder / "evolve.csv").read_text()
    trained, run_training = [], evolve.run_training

    def count(*words: object) -> object:
        trained.append(words[0].name)  # type: ignore[attr-defined]
        return run_training(*words)  # type: ignore[arg-type]

    monkeypatch.setattr(evolve, "run_training", count)
    (folder / "evolve.csv").unlink()
    run_evolution(wanted)
    assert (folder / "evolve.csv").read_text() == table and not trained
    (folder / "evolve.csv").unlink()
    run_evolution(replace(wanted, seed=1))
    assert trained == ["generation1"], "the first recipe is the one given, the second is another search's"
    (folder / "evolve.csv").unlink()
    (folder / "generation0/summary.json").write_text("{}")
    run_evolution(replace(wanted, seed=1, evolve=1))
    assert trained == ["generation1", "generation0"]


def test_several_processes_are_refused_before_anything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"--evolve: runs in one process \(torchrun started 2\)"):
        run_evolution(train_options(tmp_path / "any.yaml", tmp_path / "runs", evolve=2))
    assert not (tmp_path / "runs").exists()
